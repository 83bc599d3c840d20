"""Asking a model that an actor hosts: loaded once, sampled in batches."""

from collections.abc import Sequence

import pandas as pd

from cluster.errors import Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.proof import SAMPLING, prove
from cluster.models.sampling import Sampling, generation_stop_ids, sample
from cluster.seeds import derive_seed
from jobs.experiment.stages import Generate
from jobs.stages.answers import ANSWER_COLUMNS, Ask, answer_id, answer_row, tally_of
from jobs.stages.states import ModelState


class ModelAsker:
    """Handler in a hosting actor: a model in any state, which answers."""

    def __init__(self, state: ModelState, settings: Generate, seed: int, num_gpus: float) -> None:
        self.name, self.settings, self.seed = state.name, settings, seed
        self.model = load_model(state.source, pick_device(num_gpus))
        self.proof = prove(self.model, SAMPLING)
        self.fallbacks = self.proof.lines
        self.renderer = state.renderer()

    def identity(self, ask: Ask) -> str:
        return answer_id(self.name, ask.question_id, ask.sample)

    def give_up(self, ask: Ask, reason: str) -> pd.DataFrame:
        return pd.DataFrame([answer_row(self.name, ask, "", "failed", reason)], columns=ANSWER_COLUMNS)

    def tally(self, table: pd.DataFrame) -> Tally:
        return tally_of(table)

    def compute(self, asks: Sequence[Ask]) -> pd.DataFrame:
        prompts, rows = [], {}
        for ask in asks:
            try:
                prompts.append((ask, self.renderer.prompt(ask.text, ask.system)))
            except Unrenderable as error:
                rows[ask] = answer_row(self.name, ask, "", "failed", str(error))
        s = self.settings
        stop_ids = self.renderer.stop_ids | generation_stop_ids(self.model)
        sampling = Sampling(s.max_new_tokens, stop_ids, s.temperature, s.top_p, way=self.proof.way)
        seeds = [derive_seed(self.seed, self.identity(a)) for a, _ in prompts]
        completions = sample(self.model, [ids for _, ids in prompts], sampling, seeds)
        for (ask, ids), completion in zip(prompts, completions, strict=True):
            if isinstance(completion, Exception):
                reason = describe(completion)
                rows[ask] = answer_row(self.name, ask, "", "failed", reason, (len(ids), 0))
                continue
            text = self.renderer.answer_text(completion.ids)
            used = (len(ids), len(completion.ids))
            rows[ask] = answer_row(self.name, ask, text, completion.finish, "", used)
        return pd.DataFrame([rows[a] for a in asks], columns=ANSWER_COLUMNS)
