"""Asking a model that an actor hosts: loaded once, sampled in batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cluster.errors import Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.proof import SAMPLING, prove
from cluster.models.sampling import Sampling, generation_stop_ids, sample
from cluster.seeds import derive_seed
from jobs.run.tables import unusual
from jobs.stages.answers import Answer, Ask, failed, table_of, tally_of
from jobs.stages.states import ModelState


@dataclass(frozen=True)
class Draw:
    """How answers are drawn from a model.

    Attributes:
        limit: the most tokens of an answer, the one that ends it included.
        seed: of sampling; answers at temperature 0 do not hang on it.
        logprobs: keep the log-probability of every sampled token.
    """

    temperature: float
    top_p: float
    limit: int
    seed: int
    logprobs: bool = False

    def identity(self) -> dict[str, object]:
        """What answers hang on, as far as it differs from the usual; the limit is a column of theirs."""
        kept = {"logprobs": self.logprobs}
        if self.temperature == 0:
            return unusual(kept, {"logprobs": False})
        given = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return unusual(given | kept, {"top_p": 1.0, "logprobs": False})


class ModelAsker:
    """Handler in a hosting actor: a model in any state, which answers."""

    def __init__(self, state: ModelState, draw: Draw, num_gpus: float) -> None:
        self.draw = draw
        self.model = load_model(state.source, pick_device(num_gpus))
        self.proof = prove(self.model, SAMPLING)
        self.fallbacks = self.proof.lines
        self.renderer = state.renderer()

    def give_up(self, ask: Ask, reason: str) -> pd.DataFrame:
        return table_of([failed(reason, self.draw.limit)], self.draw.logprobs)

    def tally(self, table: pd.DataFrame) -> Tally:
        return tally_of(table)

    def compute(self, asks: Sequence[Ask]) -> pd.DataFrame:
        draw, prompts, answers = self.draw, {}, {}
        for ask in asks:
            try:
                prompts[ask] = self.renderer.prompt(ask.prompt)
            except Unrenderable as error:
                answers[ask] = failed(str(error), draw.limit)
        stop_ids = self.renderer.stop_ids | generation_stop_ids(self.model)
        chosen = Sampling(draw.limit, stop_ids, draw.temperature, draw.top_p, way=self.proof.way)
        sampling = replace(chosen, logprobs=draw.logprobs)
        seeds = [derive_seed(draw.seed, ask.key.hex()) for ask in prompts]
        completions = sample(self.model, list(prompts.values()), sampling, seeds)
        for (ask, ids), completion in zip(prompts.items(), completions, strict=True):
            if isinstance(completion, Exception):
                answers[ask] = failed(describe(completion), draw.limit, len(ids))
                continue
            text, own = self.renderer.answer_text(completion.ids), completion.ids
            said = Answer(text, completion.finish, "", len(ids), len(own), draw.limit, own)
            answers[ask] = replace(said, token_logprobs=completion.logprobs)
        return table_of((answers[ask] for ask in asks), draw.logprobs)
