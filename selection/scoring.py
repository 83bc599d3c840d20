"""The statistics of an answer from one forward pass of the student. They are kept as sums, from which every
cost is computed.

No Ray is used. Rows with the same prompt share it: it is computed once (`cluster.models.branching`). Prompts
with their answers fill batches up to a token budget, longest first, so that memory is bounded.
`selection.predictions` and `selection.layers` compute the sums.

Conventions: natural log; l_t = -log p(x_t | x_<t) computed in float32 whatever the model's dtype; position 0
has no loss; special tokens are in neither span. u_t is the unit vector of the last decoder layer's
`mlp.up_proj` output at t.

Shapes: T tokens of a batch, D width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import numpy as np
import torch

from cluster.errors import BadInput
from cluster.halving import run_halving
from cluster.memory import keep_freed_memory
from cluster.models.branching import Layout, Tree, divided, forward, sharing
from cluster.models.positions import context_length, declared_length, steady_positions, stretched_above
from cluster.models.proof import SCORING, prove
from cluster.models.rendering import Rendered
from cluster.progress import tell
from cluster.threads import lanes_of, one_thread, side_by_side
from selection.layers import UnitSums, find_layer
from selection.predictions import Vocabulary, find_predictions

DEFAULT_TOKEN_BUDGET = {"cpu": 8192, "cuda": 32_768}


@dataclass(frozen=True)
class Statistics:
    """Sums over one answer's tokens (A) and its prompt's tokens (Q). Losses in nats.

    Attributes:
        n_answer, n_question: number of tokens counted in A and Q.
        answer_loss, question_loss: sum of l_t.
        answer_norm_sq: |sum of u_t over A|^2.
        cross_dot: (sum of u_t over A) . (sum of u_t over Q).
        clipped_rank: sum over A of min(rank_t, 100), rank_t = 1 + number of tokens with a strictly larger
            logit.
        brier: sum over A of 1 - 2 p~_t + sum_k p~_k^2 with p~ the softmax over the 50 largest logits (p~_t =
            0 outside).
        entropy: sum over A of the entropy of the next-token distribution, in nats.
        max_loss: largest l_t in A.
    """

    n_answer: int
    n_question: int
    answer_loss: float
    question_loss: float
    answer_norm_sq: float
    cross_dot: float
    clipped_rank: float
    brier: float
    entropy: float
    max_loss: float


STATISTIC_NAMES = tuple(f.name for f in fields(Statistics))


class EmptySpan(BadInput):
    """An answer without a countable token. Scoring it would give the cost 0, and it would be chosen."""


@dataclass(frozen=True)
class _Member:
    """One answer to score: its place in the caller's list, its prompt, and its tokens up to the last
    countable one.
    """

    row: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    is_context: np.ndarray  # the tokens of the answer that the student does not write


@dataclass(frozen=True)
class _Family:
    """Answers to one prompt that are scored together."""

    members: tuple[_Member, ...]

    @property
    def tokens(self) -> int:
        return len(self.members[0].prompt) + sum(len(m.answer) for m in self.members)


def refusal(model: Any, row: Rendered) -> Exception | None:
    """Why a row must not be given to a model. On a GPU a token outside of its vocabulary would end the
    process.
    """
    known, most = model.get_input_embeddings().weight.shape[0], context_length(model)
    strange = next((i for i in row.ids if not 0 <= i < known), None)
    if strange is not None:
        return BadInput("a token is outside of the model's vocabulary", strange, f"0 to {known - 1}", "")
    if most is not None and row.answer_end > most:
        return BadInput(
            "the text is longer than the model has positions for",
            f"{row.answer_end} tokens",
            f"at most {most}",
            "",
        )
    return None


class Scorer:
    """Computes statistics of rendered answers under one student.

    Up to rounding, a row's numbers do not depend on other rows. If position encodings depend on the longest
    row of a batch (dynamic and long RoPE), rows longer than the original length are computed alone.

    Attributes:
        lanes: how many batches run side by side. They share the token budget.
        proof: the shortcuts that this model allows. Anything else is done the plain way.
    """

    result = Statistics

    def __init__(
        self,
        model: Any,
        special_ids: frozenset[int],
        target_layer: str | None = None,
        token_budget: int | None = None,
    ) -> None:
        self.model, device = model, model.device.type
        self.layer = find_layer(model, target_layer)
        self.proof = prove(model, SCORING)
        self.shares = self.proof.allows("sharing")
        self.context_length, self.declared_length = context_length(model), declared_length(model)
        self.special_ids = np.array(sorted(special_ids), dtype=np.int64)
        self.stretched_above = stretched_above(model)
        self.alone_above = self.stretched_above if self.shares or self.proof.allows("padding") else 0
        # a model whose positions stretch keeps the longest row it has seen
        self.lanes = lanes_of(model) if self.stretched_above == math.inf else 1
        budget = token_budget or DEFAULT_TOKEN_BUDGET.get(device, DEFAULT_TOKEN_BUDGET["cuda"])
        self.token_budget = max(1, budget // self.lanes)
        self._spare: list[Vocabulary] = []  # of finished batches, with their memory blocks
        if device == "cpu":
            keep_freed_memory()

    def score(self, rows: Sequence[Rendered]) -> list[Statistics | Exception]:
        """The statistics of each row, in order. A row that fails by itself gets its exception instead. Other
        rows are not affected.
        """
        empty = EmptySpan("the answer has no token besides special ones", "", "at least one", "")
        results: list[Statistics | Exception] = [empty] * len(rows)
        members: list[_Member] = []
        for i, row in enumerate(rows):
            results[i] = refusal(self.model, row) or empty
            member = self._member(i, row)
            members += [] if member is None or results[i] is not empty else [member]
        batches = self._batches(self._families(members))
        with one_thread(self.model), sharing(self.model, self.shares):
            scored = side_by_side(self.lanes, self._score_members, batches)
            for batch, found in zip(batches, scored, strict=True):
                for member, result in zip(batch, found, strict=True):
                    results[member.row] = result
                tell(len(batch) / len(members))
        return results

    def _member(self, i: int, row: Rendered) -> _Member | None:
        """The answer, cut after its last countable token. None for an empty one."""
        answer, context = row.ids[row.prompt_length : row.answer_end], row.is_context
        is_special = np.isin(np.array(answer, dtype=np.int64), self.special_ids)
        countable = np.flatnonzero(~is_special & ~context)
        if not len(countable):
            return None
        end = int(countable[-1]) + 1
        return _Member(i, row.ids[: row.prompt_length], answer[:end], context[:end])

    def _families(self, members: Sequence[_Member]) -> list[_Family]:
        """Group answers by their prompt where it can be shared, within the token budget;
        the largest first.
        """
        together: dict[tuple[Any, ...], list[_Member]] = {}
        for m in members:
            alone = not self.shares or len(m.prompt) + len(m.answer) > self.alone_above
            together.setdefault((m.prompt, m.row if alone else None), []).append(m)
        families = []
        for (prompt, _), those in together.items():
            longest_first = sorted(those, key=lambda m: (-len(m.answer), m.row))
            sizes = [len(m.answer) for m in longest_first]
            parts = divided(longest_first, sizes, len(prompt), self.token_budget)
            families += [_Family(tuple(part)) for part in parts]
        return sorted(families, key=lambda f: (-f.tokens, [m.row for m in f.members]))

    def _batches(self, families: Sequence[_Family]) -> list[list[_Member]]:
        """Consecutive families up to the token budget, padding included where rows are padded."""
        batches: list[list[_Member]] = []
        used = first = 0  # `first` is the largest of its batch
        for family in families:
            size = family.tokens if self.shares else first
            if not batches or used + size > self.token_budget or first > self.alone_above:
                batches.append([])
                used, size, first = 0, family.tokens, family.tokens
            batches[-1] += family.members
            used += size
        return batches

    def _score_members(self, members: Sequence[_Member]) -> list[Statistics | Exception]:
        """A batch's statistics, computed in this thread. If it fails, its halves are computed."""
        try:
            vocabulary = self._spare.pop()
        except IndexError:
            vocabulary = Vocabulary(self.proof.head)
        with torch.inference_mode():
            found = run_halving(members, lambda some: self._score_batch(some, vocabulary), vocabulary.free)
        self._spare.append(vocabulary)
        return found

    def _score_batch(
        self, members: Sequence[_Member], vocabulary: Vocabulary
    ) -> list[Statistics | Exception]:
        if self.stretched_above < math.inf:
            steady_positions(self.model)
        trees = [
            Tree(prompt, tuple(m.answer for m in some))
            for (prompt, _), some in groupby(
                members, key=lambda m: (m.prompt, None if self.shares else m.row)
            )
        ]
        layout = Layout(trees)
        counted = ~np.isin(layout.ids, self.special_ids)
        for member, span in zip(members, (s for spans in layout.branches for s in spans), strict=True):
            counted[span] &= ~member.is_context
        sums = UnitSums(layout, counted, self.layer)
        hidden_TD = forward(self.model, layout, self.shares, self.layer.module, sums)
        if not len(sums.sums_SH):
            raise BadInput(
                "the layer did not run on a text",
                self.layer.name,
                "one that every token goes through",
                "name another target_layer",
            )
        return [_finite(s) for s in self._collect(layout, counted, hidden_TD, sums, vocabulary)]

    def _collect(
        self,
        layout: Layout,
        counted: np.ndarray,
        hidden_TD: torch.Tensor,
        sums: UnitSums,
        vocabulary: Vocabulary,
    ) -> Iterator[Statistics]:
        """Statistics of every answer of a batch, in the layout's order."""
        answers = find_predictions(
            layout,
            counted,
            [(p, b) for p, spans in zip(layout.prompts, layout.branches, strict=True) for b in spans],
        )
        questions = find_predictions(layout, counted, [(slice(p.start, p.start), p) for p in layout.prompts])
        tokens = vocabulary.measure(hidden_TD, layout, answers, full=True)
        asked = vocabulary.measure(hidden_TD, layout, questions, full=False)
        n = sum(len(spans) for spans in layout.branches)
        totals = {name: np.bincount(answers.segment, values, n) for name, values in tokens.items()}
        largest = np.full(n, -np.inf)
        with np.errstate(invalid="ignore"):
            np.maximum.at(largest, answers.segment, tokens["loss"])
        question_loss = np.bincount(questions.segment, asked["loss"], len(layout.prompts))
        norm_sq, cross = sums.products()
        a = 0
        for q, (prompt, spans) in enumerate(zip(layout.prompts, layout.branches, strict=True)):
            for span in spans:
                yield Statistics(
                    n_answer=int(counted[span].sum()),
                    n_question=int(counted[prompt].sum()),
                    answer_loss=float(totals["loss"][a]),
                    question_loss=float(question_loss[q]),
                    answer_norm_sq=norm_sq[a],
                    cross_dot=cross[a],
                    clipped_rank=float(totals["rank"][a]),
                    brier=float(totals["brier"][a]),
                    entropy=float(totals["entropy"][a]),
                    max_loss=float(largest[a]),
                )
                a += 1


def _finite(result: Statistics) -> Statistics | Exception:
    """The statistics, or an error if one is not finite. A broken row must not be chosen because of NaN."""
    broken = [name for name in STATISTIC_NAMES if not math.isfinite(getattr(result, name))]
    return ArithmeticError(f"the student gives {', '.join(broken)} that are not finite") if broken else result
