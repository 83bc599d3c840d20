"""Everything one forward pass of the student says about an answer, kept as sums, from which every cost is a view.

Rows in, statistics out, without Ray. Rows with the same prompt share it: it is computed once (`cluster.branching`). Prompts
with their answers fill batches of a token budget, longest first, so that memory stays bounded; `selection.predictions` and
`selection.layers` do the sums.

Conventions: natural log; l_t = -log p(x_t | x_<t) computed in float32 whatever the model's dtype; position 0 has no loss;
special tokens are in neither span. u_t is the unit vector of the last decoder layer's `mlp.up_proj` output at t.

Shapes: T tokens of a batch, D width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from cluster.branching import Layout, Tree, forward, sharing, why_not_shared
from cluster.errors import BadInput
from cluster.heads import check_projection
from cluster.loading import context_length, keep_freed_memory
from cluster.rendering import Rendered
from selection.layers import UnitSums, find_layer_module
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
        clipped_rank: sum over A of min(rank_t, 100), rank_t = 1 + number of tokens with a strictly larger logit.
        brier: sum over A of 1 - 2 p~_t + sum_k p~_k^2 with p~ the softmax over the 50 largest logits (p~_t = 0 outside).
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
    """An answer without one countable token: scoring it would give the cost 0 and let it win."""


@dataclass(frozen=True)
class _Family:
    """Answers to one prompt that are scored together; `rows` are their places in the caller's list."""

    tree: Tree
    rows: tuple[int, ...]


class Scorer:
    """Computes statistics of rendered answers under one student.

    A row's numbers do not depend on the rows beside it, to rounding. Where position encodings depend on the length of what
    is in the batch (dynamic and long RoPE), rows longer than the original length are computed alone, each after a pass over two
    tokens: dynamic RoPE keeps the frequencies of the longest row it has seen until it sees a short one.

    Attributes:
        not_shared: None where prompts are shared between their answers; else why this model cannot do that.
    """

    def __init__(self, model: Any, special_ids: frozenset[int], target_layer: str | None = None, token_budget: int | None = None) -> None:
        check_projection(model)
        self.model, device = model, model.device.type
        self.token_budget = token_budget or DEFAULT_TOKEN_BUDGET.get(device, DEFAULT_TOKEN_BUDGET["cuda"])
        self.module = find_layer_module(model, target_layer)
        self.fused_up_half = model.config.model_type == "phi3" and target_layer is None
        self.context_length = context_length(model)
        self.special_ids = np.array(sorted(special_ids), dtype=np.int64)
        self.not_shared = why_not_shared(model)
        self.alone_above = _stretched_above(model)
        self.vocabulary = Vocabulary(model)
        if device == "cpu":
            keep_freed_memory()

    def score(self, rows: Sequence[Rendered]) -> list[Statistics | Exception]:
        """Statistics per row, in order. A row that fails alone gets its exception instead; its neighbours are unharmed."""
        results: list[Statistics | Exception] = [EmptySpan("the answer has no token besides special ones", "", "at least one", "")] * len(
            rows
        )
        with torch.inference_mode(), sharing(self.model, self.not_shared is None):
            for batch in self._batches(self._families(rows)):
                for family, found in zip(batch, self._halving(batch), strict=True):
                    for i, result in zip(family.rows, found, strict=True):
                        results[i] = result
        return results

    def _families(self, rows: Sequence[Rendered]) -> list[_Family]:
        """Group rows by their prompt and cut each answer after its last countable token; empty answers are left out."""
        together: dict[tuple[Any, ...], list[tuple[int, tuple[int, ...]]]] = {}
        special = set(self.special_ids.tolist())
        for i, row in enumerate(rows):
            answer = row.ids[row.prompt_length : row.answer_end]
            counted = next((k for k in range(len(answer), 0, -1) if answer[k - 1] not in special), 0)
            alone = self.not_shared is not None or row.length > self.alone_above
            if counted:
                together.setdefault((row.ids[: row.prompt_length], i if alone else None), []).append((i, answer[:counted]))
        families = []
        for (prompt, _), members in together.items():
            members.sort(key=lambda m: (-len(m[1]), m[0]))
            parts: list[list[tuple[int, tuple[int, ...]]]] = []
            used = math.inf
            for member in members:
                if used + len(member[1]) > self.token_budget:
                    parts.append([])
                    used = len(prompt)
                parts[-1].append(member)
                used += len(member[1])
            families += [_Family(Tree(prompt, tuple(a for _, a in part)), tuple(i for i, _ in part)) for part in parts]
        return sorted(families, key=lambda f: (-f.tree.tokens, f.rows))

    def _batches(self, families: Sequence[_Family]) -> list[list[_Family]]:
        """Consecutive families up to the token budget, padding included where rows are padded."""
        batches: list[list[_Family]] = []
        used = 0
        for family in families:
            first = batches[-1][0].tree.tokens if batches else 0  # the largest of its batch
            size = first if self.not_shared is not None else family.tree.tokens
            if not batches or used + size > self.token_budget or first > self.alone_above:
                batches.append([])
                used, size = 0, family.tree.tokens
            batches[-1].append(family)
            used += size
        return batches

    def _halving(self, families: list[_Family]) -> list[list[Statistics | Exception]]:
        """Score a batch; on out-of-memory halve it, down to single answers."""
        try:
            return self._score_batch(families)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(families) == 1 and len(families[0].rows) == 1:
                self.vocabulary.free()
                return [[error.with_traceback(None)]]  # its frames hold the batch's tensors
        self.vocabulary.free()
        torch.cuda.empty_cache()
        if len(families) > 1:
            middle = len(families) // 2
            return self._halving(families[:middle]) + self._halving(families[middle:])
        (family,) = families
        prompt, answers, middle = family.tree.prompt, family.tree.branches, len(family.rows) // 2
        first = self._halving([_Family(Tree(prompt, answers[:middle]), family.rows[:middle])])
        return [first[0] + self._halving([_Family(Tree(prompt, answers[middle:]), family.rows[middle:])])[0]]

    def _score_batch(self, families: list[_Family]) -> list[list[Statistics | Exception]]:
        if self.alone_above < math.inf:
            forward(self.model, Layout([Tree((0,), ((0,),))]), self.not_shared is None)
        layout = Layout([f.tree for f in families])
        counted = ~np.isin(layout.ids, self.special_ids)
        sums = UnitSums(layout, counted, self.fused_up_half)
        hidden_TD = forward(self.model, layout, self.not_shared is None, self.module, sums)
        found = self._collect(layout, counted, hidden_TD, sums)
        return [[_finite(next(found)) for _ in family.rows] for family in families]

    def _collect(self, layout: Layout, counted: np.ndarray, hidden_TD: torch.Tensor, sums: UnitSums) -> Iterator[Statistics]:
        """Statistics of every answer of a batch, in the layout's order."""
        answers = find_predictions(
            layout, counted, [(p, b) for p, spans in zip(layout.prompts, layout.branches, strict=True) for b in spans]
        )
        questions = find_predictions(layout, counted, [(slice(p.start, p.start), p) for p in layout.prompts])
        tokens = self.vocabulary.measure(hidden_TD, layout, answers, full=True)
        asked = self.vocabulary.measure(hidden_TD, layout, questions, full=False)
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
    """The statistics, or an error where one is not finite: a broken row must not win by NaN."""
    broken = [name for name in STATISTIC_NAMES if not math.isfinite(getattr(result, name))]
    return ArithmeticError(f"the student gives {', '.join(broken)} that are not finite") if broken else result


def _stretched_above(model: Any) -> float:
    """The length above which a model's RoPE frequencies depend on the longest row in the batch; infinite for most models."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    flat = [rope, *(v for v in rope.values() if isinstance(v, dict))]
    limits = [
        r.get("original_max_position_embeddings") or config.max_position_embeddings
        for r in flat
        if r.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits, default=math.inf)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: CUDA has a type for it, PyTorch on a CPU only a message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
