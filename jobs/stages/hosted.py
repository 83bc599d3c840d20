"""Asking a model that an actor hosts. The model is loaded once and samples in batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cluster.errors import Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.positions import context_length
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
        limit: the most tokens of an answer, the end token included.
        seed: the seed of sampling. Answers at temperature 0 do not depend on it.
        logprobs: whether to keep the log-probability of every sampled token.
    """

    temperature: float
    top_p: float
    limit: int
    seed: int
    logprobs: bool = False

    def identity(self) -> dict[str, object]:
        """The settings that answers depend on, if they differ from the defaults. The token limit is not among
        them: each row records its own limit.
        """
        kept = {"logprobs": self.logprobs}
        if self.temperature == 0:
            return unusual(kept, {"logprobs": False})
        given = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return unusual(given | kept, {"top_p": 1.0, "logprobs": False})


class ModelAsker:
    """Handler in an actor: loads a model in any state, and makes it answer."""

    def __init__(self, state: ModelState, draw: Draw, num_gpus: float) -> None:
        self.draw = draw
        self.model = load_model(state.source, pick_device(num_gpus))
        self.proof = prove(self.model, SAMPLING)
        self.fallbacks = self.proof.lines
        self.renderer = state.renderer()
        self.room = context_length(self.model) or math.inf

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
                continue
            if len(prompts[ask]) >= self.room:
                told = f"too long to be asked: {len(prompts[ask]):,} tokens, the model has {self.room:,.0f}"
                answers[ask] = failed(f"{told} positions", draw.limit, len(prompts.pop(ask)))
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
