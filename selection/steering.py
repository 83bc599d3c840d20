"""OGLS-SD (arXiv 2605.12400): the states of a frozen teacher on a student's wrong rollouts, when its prompt
shows right and wrong solutions of the same question.

Contexts are pure functions of rollouts and verdicts. The teacher pass reads every rollout after
every context, and keeps running means of hidden states before the vocabulary projection. If the projection is
linear, mean logits are the projection of the mean hidden state. So one state a token is enough for a set of
any size. Each context is computed once for all rollouts that are read after it (`cluster.models.branching`).

Row t of an array is the state that predicts token t of the rollout; row 0 is the prompt's last position.

Shapes: T tokens of a rollout that are read, D width, C contexts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from cluster.halving import run_halving
from cluster.memory import keep_freed_memory
from cluster.models.branching import Layout, Tree, forward, sharing
from cluster.models.positions import context_length, steady_positions, stretched_above
from cluster.models.proof import SCORING, prove
from cluster.progress import tell
from selection.scoring import DEFAULT_TOKEN_BUDGET

Array = Literal["h0", "h_s", "h_pos", "h_neg"]
ARRAYS: tuple[Array, ...] = ("h0", "h_s", "h_pos", "h_neg")


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer of the student to a question.

    Attributes:
        is_right: None if it is unknown, because a checker failed or ran out of time. Such a rollout is no
            context and is not trained on.
    """

    id: str
    text: str
    is_right: bool | None


@dataclass(frozen=True, slots=True)
class Contexts:
    """The contexts of a rollout's target: texts that take the place of a solution in the teacher's prompt.

    Attributes:
        why: the reason why the rollout is not trained on. Empty if it is.
    """

    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    why: str = ""


def contexts_of(
    rollouts: Sequence[Rollout], solution: str, exclude_self: bool = False, needs: str = "both"
) -> dict[str, Contexts]:
    """The contexts of each rollout of one question, by id (eqs 8 and 9, and what the paper leaves open).

    Right contexts are the right rollouts and the reference solution. Wrong contexts are the wrong rollouts,
    including the rollout itself. With `exclude_self` it is left out, and exact copies of it.

    Args:
        solution: the worked solution of the data. Empty if there is none.
        needs: which contexts must exist: both, right, or none.
    """
    right = tuple(r.text for r in rollouts if r.is_right)
    right += (solution,) if solution else ()
    wrong = [r for r in rollouts if r.is_right is False]
    found = {}
    for one in rollouts:
        if one.is_right is None:
            found[one.id] = Contexts(why="no_verdict")
        elif one.is_right:
            found[one.id] = Contexts(why="is_right" if wrong else "all_right")
        elif not right and needs != "none":
            found[one.id] = Contexts(why="no_positive_context")
        else:
            others = tuple(r.text for r in wrong if not exclude_self or r.text != one.text)
            lacks = needs == "both" and not others
            found[one.id] = Contexts(right, others, "no_negative_context" if lacks else "")
    return found


@dataclass(frozen=True)
class Reading:
    """A rollout that the teacher reads.

    Attributes:
        prompt: the token ids of the question, as the student was asked.
        tokens: the tokens of the rollout as it was sampled, up to the number that is read.
        reference, right, wrong: the token ids of prompts that show a solution: the reference, or one
            of the contexts.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    reference: tuple[int, ...] = ()
    right: tuple[tuple[int, ...], ...] = ()
    wrong: tuple[tuple[int, ...], ...] = ()

    def prompts(self, arrays: Sequence[Array]) -> Iterator[tuple[Array, tuple[int, ...]]]:
        """Every prompt after which the rollout is read, with the array that gets the mean."""
        own: dict[Array, Sequence[tuple[int, ...]]] = {
            "h0": [self.prompt],
            "h_s": [self.reference] if self.reference else [],
            "h_pos": self.right,
            "h_neg": self.wrong,
        }
        for name in arrays:
            for prompt in own[name]:
                yield name, prompt


@dataclass
class States:
    """The result of a reading: arrays [C, T, D] in float32. C is 1 if a mean replaces them.

    Attributes:
        left_out: the number of contexts that did not fit into the model.
    """

    arrays: dict[Array, np.ndarray] = field(default_factory=dict)
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class _Member:
    """One reading after one prompt.

    Attributes:
        share: its weight in the mean.
        place: its row of the array, if no mean is taken.
    """

    row: int
    array: Array
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    share: float
    place: int


class TeacherPass:
    """Reads rollouts under one frozen model.

    Args:
        max_length: the most tokens of a context with its rollout. The model's own positions may be fewer.

    Attributes:
        takes_means: whether one mean state is enough for a set of contexts. The projection must be a
            matrix with nothing nonlinear after it.
    """

    def __init__(
        self,
        model: Any,
        token_budget: int | None = None,
        shares: bool = True,
        max_length: int | None = None,
    ) -> None:
        self.model, device = model, model.device.type
        self.token_budget = token_budget or DEFAULT_TOKEN_BUDGET.get(device, DEFAULT_TOKEN_BUDGET["cuda"])
        self.proof = prove(model, SCORING)
        self.shares = shares and self.proof.allows("sharing")
        self.takes_means = self.proof.head.is_linear()
        self.max_length = min(max_length or math.inf, context_length(model) or math.inf)
        self.stretched_above = stretched_above(model)
        self.alone_above = self.stretched_above if self.shares or self.proof.allows("padding") else 0
        if device == "cpu":
            keep_freed_memory()

    def read(self, rows: Sequence[Reading], arrays: Sequence[Array]) -> list[States | Exception]:
        """The arrays of every reading, in order. One that fails by itself gets its exception instead.

        Contexts that do not fit into the model together with the rollout are left out and
        counted.
        """
        results: list[States | Exception] = [States() for _ in rows]
        members: list[_Member] = []
        for i, row in enumerate(rows):
            members += self._members(i, row, arrays, results)
        for batch in self._batches(members):
            with torch.inference_mode(), sharing(self.model, self.shares):
                found = run_halving(batch, self._read_batch)
            for member, result in zip(batch, found, strict=True):
                self._add(results, member, result)
            tell(len(batch) / len(members))
        return results

    def _members(
        self, i: int, row: Reading, arrays: Sequence[Array], results: list[States | Exception]
    ) -> Iterator[_Member]:
        fitting: dict[Array, list[tuple[int, ...]]] = {}
        states = results[i]
        for name, prompt in row.prompts(arrays):
            if len(prompt) + len(row.tokens) <= self.max_length:
                fitting.setdefault(name, []).append(prompt)
            elif isinstance(states, States):
                states.left_out += 1
        for name, prompts in fitting.items():
            for k, prompt in enumerate(prompts):
                share = 1 / len(prompts) if self.takes_means else 1.0
                yield _Member(i, name, prompt, row.tokens, share, 0 if self.takes_means else k)

    def _batches(self, members: Sequence[_Member]) -> Iterator[list[_Member]]:
        """Batches of members by prompt, the largest first, up to the token budget. A larger member is
        alone.
        """
        order = sorted(members, key=lambda m: (-len(m.prompt), m.prompt, -len(m.tokens), m.row))
        batch: list[_Member] = []
        used = 0
        for member in order:
            known = self.shares and batch and batch[-1].prompt == member.prompt
            size = len(member.tokens) + (0 if known else len(member.prompt))
            if not self.shares and batch:  # rows are padded to the longest of the batch
                size = max(size, used // len(batch))
            is_long = any(len(m.prompt) + len(m.tokens) > self.alone_above for m in (member, *batch[:1]))
            if batch and (used + size > self.token_budget or is_long):
                yield batch
                batch, used = [], 0
                size = len(member.tokens) + len(member.prompt)
            batch.append(member)
            used += size
        if batch:
            yield batch

    def _read_batch(self, members: Sequence[_Member]) -> list[np.ndarray]:
        """Hidden states [T, D] of each member."""
        if self.stretched_above < math.inf:
            steady_positions(self.model)
        trees: list[Tree] = []
        for member in members:
            if self.shares and trees and trees[-1].prompt == member.prompt:
                trees[-1] = Tree(member.prompt, (*trees[-1].branches, member.tokens))
            else:
                trees.append(Tree(member.prompt, (member.tokens,)))
        layout = Layout(trees)
        hidden_TD = forward(self.model, layout, self.shares)
        found = []
        for prompt, spans in zip(layout.prompts, layout.branches, strict=True):
            for span in spans:
                first = hidden_TD[prompt.stop - 1 : prompt.stop]
                own = torch.cat([first, hidden_TD[span.start : span.stop - 1]])
                found.append(own.float().cpu().numpy())
        return found

    def _add(
        self, results: list[States | Exception], member: _Member, result: np.ndarray | Exception
    ) -> None:
        states = results[member.row]
        if isinstance(states, Exception):
            return
        if isinstance(result, Exception):
            results[member.row] = result
            return
        if not np.isfinite(result).all():
            results[member.row] = ArithmeticError("the teacher gives states that are not finite")
            return
        known = states.arrays.get(member.array)
        if known is None or len(known) <= member.place:
            more = np.zeros((member.place + 1 - (0 if known is None else len(known)), *result.shape), "<f4")
            known = more if known is None else np.concatenate([known, more])
            states.arrays[member.array] = known
        known[member.place] += result * np.float32(member.share)


def naive_states(model: Any, row: Reading, arrays: Sequence[Array]) -> dict[Array, np.ndarray]:
    """The same as `TeacherPass`, one prompt at a time and without sharing. `TeacherPass` is compared with
    it.
    """
    from cluster.models.vocabulary import decoder_of

    sums: dict[Array, list[np.ndarray]] = {}
    for name, prompt in row.prompts(arrays):
        ids = torch.tensor([[*prompt, *row.tokens]], device=model.device)
        with torch.inference_mode():
            hidden = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
        start = len(prompt) - 1
        sums.setdefault(name, []).append(hidden[start : start + len(row.tokens)].float().cpu().numpy())
    return {name: np.mean(states, axis=0) for name, states in sums.items()}


def teacher_tokens(rows: Sequence[Reading], arrays: Sequence[Array], shares: bool) -> int:
    """The number of tokens that a pass computes. With sharing every prompt counts once for all rollouts that
    are read after it.
    """
    if not shares:
        return sum(len(p) + len(row.tokens) for row in rows for _, p in row.prompts(arrays))
    prompts = {p for row in rows for _, p in row.prompts(arrays)}
    read = sum(len(row.tokens) for row in rows for _ in row.prompts(arrays))
    return sum(map(len, prompts)) + read
