"""Decoding in which a student may ask its teacher for one token. The student calls by choosing a token of its
own, the help token, or another rule calls for it.

Both models keep their caches. The teacher reads what it has not read, gives one token, and the student goes
on. The teacher never sees the help token, and it has a prompt of its own. Every row has its own draws for
either model, so an answer does not depend on its batch, up to rounding.

Shapes: B rows under way, V vocabulary.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from cluster.halving import run_halving
from cluster.models.asked import CachedReader, Reading, RecomputedReader, reader
from cluster.models.decoding import CachedRows, RecomputedRows
from cluster.models.positions import context_length, stretched_above
from cluster.models.sampling import LEAVE_TOGETHER, Finish, Sampling, batches_of, choose
from cluster.models.vocabulary import Head
from cluster.progress import tell
from cluster.threads import is_small, lanes_of, one_thread, side_by_side

# Who decides on a call.
# student: it chooses the help token like any other.
# drawn: calls are drawn by the help token's probability, also where the likeliest tokens are taken.
# likely: where the help token is likely enough.
# random: by chance. entropy: where the student is unsure.
# oracle: where the student is far from the teacher, which has to read every token for that.
Caller = Literal["student", "drawn", "likely", "never", "always", "random", "entropy", "oracle"]
OF_STUDENT: tuple[Caller, ...] = ("student", "drawn", "likely")


@dataclass(frozen=True)
class Calls:
    """When the teacher is called.

    Attributes:
        caller: who decides.
        help_id: the token that calls, and that the student reads before the teacher's. None: no such token.
        threshold: for caller likely the least probability of the help token, for random the chance of a call,
            for entropy and oracle the least number of nats.
        bias: is added to the logit of the help token. Positive makes calls likelier.
        most: the most calls of an answer. None means any number.
        share: at any time there are at most 1 + share x (tokens written) calls. None means any number.
    """

    caller: Caller = "student"
    help_id: int | None = None
    threshold: float = 0.0
    bias: float = 0.0
    most: int | None = None
    share: float | None = None

    def may_call(self, calls: int, written: int) -> bool:
        """Whether the limits allow one more call."""
        if self.caller == "never" or (self.most is not None and calls >= self.most):
            return False
        return self.share is None or calls + 1 <= 1 + self.share * written


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        head: of the model, whose projection has been proved.
        prompts: token ids of each row, none empty.
        seeds: of each row's draws. Needed if the temperature is above 0.
        tokens: a teacher cannot give ids from this one on: they are rows of its vocabulary that the student
            has no token for. None means it can give all.
    """

    head: Head
    prompts: Sequence[Sequence[int]]
    seeds: Sequence[int] | None = None
    tokens: int | None = None

    @property
    def model(self) -> Any:
        return self.head.model


@dataclass(frozen=True)
class Relayed:
    """One answer.

    Attributes:
        ids: its tokens, without help tokens and without the end token.
        by_teacher: for each token of `ids`, and for the end token if there is one, whether the teacher gave
            it.
        path: what the student has read: `ids` with help tokens, and the end token if there is one.
        logprobs: ln pi of each decision (as many as `by_teacher`): of the student's token, or of its call.
        help: the probability of a call before each decision. 0 where none was allowed.
        entropies: of the student's next token before each decision, in nats, help left out.
        processed: how many tokens the teacher has read.
    """

    ids: tuple[int, ...]
    finish: Finish
    by_teacher: tuple[bool, ...]
    path: tuple[int, ...]
    logprobs: tuple[float, ...]
    help: tuple[float, ...]
    entropies: tuple[float, ...]
    processed: int

    @property
    def calls(self) -> int:
        return sum(self.by_teacher)


def relay(
    student: Side, teacher: Side | None, settings: Sampling, calls: Calls, reading: Reading = "cached"
) -> list[Relayed | Exception]:
    """Generate one answer for each prompt, in their order. A row that fails by itself gets its exception
    instead.

    Args:
        teacher: None if it cannot be called.
        settings: of both models. Log-probabilities are always kept.
        reading: how the teacher reads (`cluster.models.asked`).

    Raises:
        ValueError: draws without seeds, or a teacher is missing.
    """
    if calls.caller in ("random", "drawn") and student.seeds is None:
        raise ValueError(f"caller {calls.caller} needs one seed per prompt")
    if settings.temperature > 0 and None in (student.seeds, [] if teacher is None else teacher.seeds):
        raise ValueError("sampling with a temperature needs one seed per prompt, for either model")
    if teacher is None and calls.caller != "never":
        raise ValueError("there is no teacher to call")
    found: list[Relayed | Exception | None] = [None] * len(student.prompts)
    sides = [s for s in (student, teacher) if s is not None]
    steady = all(stretched_above(s.model) == math.inf for s in sides)
    lanes = min(lanes_of(s.model) for s in sides) if steady else 1
    longest = [max(prompts, key=len) for prompts in zip(*(s.prompts for s in sides), strict=True)]
    # with help tokens a text is up to twice as long
    batches = batches_of(longest, 2 * settings.max_new_tokens, settings.token_budget, lanes)

    def relayed(rows: Sequence[int]) -> list[Relayed | Exception]:
        return run_halving(rows, lambda some: _relay_batch(student, teacher, settings, calls, reading, some))

    # a large model would lose its threads: both must be small
    quiet = one_thread(student.model) if all(is_small(s.model) for s in sides) else nullcontext()
    with quiet:
        for rows, answers in zip(batches, side_by_side(lanes, relayed, batches), strict=True):
            for i, answer in zip(rows, answers, strict=True):
                found[i] = answer
            tell(len(rows) / len(student.prompts))
    return [answer for answer in found if answer is not None]


@dataclass
class _Row:
    """An answer under way.

    Attributes:
        number: of the teacher's row.
        to_read: what the student has to read before it decides again.
        unread: what the teacher has not read.
    """

    number: int
    limit: int
    draws: np.ndarray | None
    teacher_draws: np.ndarray | None
    chance: np.ndarray | None
    unread: list[int]
    to_read: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    by_teacher: list[bool] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    help: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    calls: int = 0
    finish: Finish | None = None

    def draw_of(self, draws: np.ndarray | None) -> float:
        """The draw for this place of the answer. 0 if nothing is drawn."""
        return 0.0 if draws is None else float(draws[len(self.by_teacher)])

    def write(self, token: int, is_call: bool, settings: Sampling, calls: Calls) -> None:
        """Take a token of either model."""
        self.by_teacher.append(is_call)
        self.calls += is_call
        read = [calls.help_id, token] if is_call and calls.help_id is not None else [token]
        self.to_read = [int(i) for i in read if i is not None]
        self.path += self.to_read
        if token in settings.stop_ids:
            self.finish = "stop"
            return
        self.ids.append(token)
        self.unread.append(token)
        if len(self.ids) >= self.limit:
            self.finish = "length"


@torch.inference_mode()
def _relay_batch(
    student: Side,
    teacher: Side | None,
    settings: Sampling,
    calls: Calls,
    reading: Reading,
    rows: Sequence[int],
) -> list[Relayed]:
    """Decode a batch step by step. In each step every row of the student reads one token."""
    growing = [_row(k, i, student, teacher, settings, calls) for k, i in enumerate(rows)]
    under_way = [row for row in growing if row.finish is None]  # the others have no room for a token
    read = None
    asked: CachedReader | RecomputedReader | None = None
    own: CachedRows | RecomputedRows | None = None
    if under_way:
        prompts = [student.prompts[rows[row.number]] for row in under_way]
        cached = settings.way == "batched" and all(
            _fits(student.model, row, p) for row, p in zip(under_way, prompts, strict=True)
        )
        own = (CachedRows if cached else RecomputedRows)(student.model, prompts)
    if teacher is not None:
        longest = max(len(teacher.prompts[i]) for i in rows) + settings.max_new_tokens
        steady = longest <= stretched_above(teacher.model)
        asked = reader(teacher.head, reading if steady else "recomputed", len(rows), longest)
    given = (asked, teacher, settings, calls)
    while own is not None:
        logits_BV = own.logits(read)
        deciding = [place for place, row in enumerate(under_way) if not row.to_read and row.finish is None]
        if deciding:
            at = torch.tensor(deciding, device=logits_BV.device)
            _decide(logits_BV[at], [under_way[place] for place in deciding], *given)
        kept = [place for place, row in enumerate(under_way) if row.finish is None]
        if not kept:
            break
        next_ids = [row.to_read.pop(0) if row.to_read else 0 for row in under_way]
        read = torch.tensor(next_ids, device=logits_BV.device)
        if own.compacts and LEAVE_TOGETHER * (len(under_way) - len(kept)) >= len(under_way):
            places = torch.tensor(kept, device=logits_BV.device)
            own.keep(places)
            read, under_way = read[places], [under_way[place] for place in kept]
    return [
        Relayed(
            tuple(row.ids),
            row.finish or "length",
            tuple(row.by_teacher),
            tuple(row.path),
            tuple(row.logprobs),
            tuple(row.help),
            tuple(row.entropies),
            0 if asked is None else asked.processed[row.number],
        )
        for row in growing
    ]


def _row(number: int, i: int, student: Side, teacher: Side | None, settings: Sampling, calls: Calls) -> _Row:
    """An answer that begins. Its limit is what both models have room for."""

    def draws(side: Side | None, further: int = 0) -> np.ndarray | None:
        if side is None or side.seeds is None:
            return None
        return np.random.default_rng([side.seeds[i], *([further] if further else [])]).random(
            settings.max_new_tokens
        )

    limit = float(settings.max_new_tokens)
    for side, twice in ((student, calls.help_id is not None and calls.caller != "never"), (teacher, False)):
        if side is not None:
            room = (context_length(side.model) or math.inf) - len(side.prompts[i])
            limit = min(limit, room // 2 if twice else room)
    is_greedy = settings.temperature == 0
    row = _Row(
        number,
        int(limit),
        None if is_greedy else draws(student),
        None if is_greedy else draws(teacher),
        draws(student, 1) if calls.caller in ("random", "drawn") else None,
        [] if teacher is None else list(teacher.prompts[i]),
    )
    if row.limit < 1:
        row.finish = "length"
    return row


def _fits(model: Any, row: _Row, prompt: Sequence[int]) -> bool:
    """Whether the row stays below the length at which the model stretches its positions."""
    return len(prompt) + 2 * row.limit <= stretched_above(model)


def _decide(
    logits_BV: torch.Tensor,
    rows: Sequence[_Row],
    asked: CachedReader | RecomputedReader | None,
    teacher: Side | None,
    settings: Sampling,
    calls: Calls,
) -> None:
    """Let each row take its next token, from the student or from the teacher.

    Raises:
        ArithmeticError: a logit is not a number.
    """
    device, help_id = logits_BV.device, calls.help_id
    tokens = None if teacher is None else teacher.tokens
    may_call = [calls.may_call(row.calls, len(row.by_teacher)) for row in rows]
    logits_BV = logits_BV.clone()
    plain_BV = logits_BV.clone() if help_id is not None else logits_BV
    if help_id is not None:
        plain_BV[:, help_id] = -torch.inf
        is_open = [may and calls.caller in OF_STUDENT for may in may_call]
        logits_BV[:, help_id] += calls.bias
        logits_BV[~torch.tensor(is_open, device=device), help_id] = -torch.inf
    log_own_BV, log_pi_BV = torch.log_softmax(plain_BV, -1), torch.log_softmax(logits_BV, -1)
    own_B = log_own_BV.exp()
    entropy_B = -torch.where(own_B > 0, own_B * log_own_BV, 0.0).sum(-1)
    help_B = [0.0] * len(rows) if help_id is None else log_pi_BV[:, help_id].exp().tolist()
    open_BV = logits_BV if calls.caller == "student" else plain_BV
    chosen_B = choose(open_BV, [row.draw_of(row.draws) for row in rows], settings)
    told: torch.Tensor | None = None
    if calls.caller == "student":
        wanted = [False] * len(rows) if help_id is None else (chosen_B == help_id).tolist()
    elif calls.caller in ("random", "drawn"):
        chances = [calls.threshold] * len(rows) if calls.caller == "random" else help_B
        wanted = [
            row.chance is not None and row.draw_of(row.chance) < chance
            for row, chance in zip(rows, chances, strict=True)
        ]
    elif calls.caller == "oracle" and asked is not None:
        told = _ask(asked, rows, help_id, tokens)
        shared = min(told.shape[1], log_own_BV.shape[1])
        log_t = torch.log_softmax(told, -1)[:, :shared]
        own, log_own = own_B[:, :shared], log_own_BV[:, :shared]
        each = torch.where(own > 0, own * (log_own - log_t), 0.0)
        wanted = (each.sum(-1) > calls.threshold).tolist()
    else:
        values = {"entropy": entropy_B.tolist(), "likely": help_B}.get(calls.caller)
        wanted = [calls.caller == "always"] * len(rows)
        wanted = wanted if values is None else [value > calls.threshold for value in values]
    is_call = [may and want for may, want in zip(may_call, wanted, strict=True)]
    callers = [k for k, called in enumerate(is_call) if called]
    given: dict[int, int] = {}
    if callers and asked is not None:
        logits = _ask(asked, [rows[k] for k in callers], help_id, tokens) if told is None else told[callers]
        drawn = choose(logits, [rows[k].draw_of(rows[k].teacher_draws) for k in callers], settings)
        given = dict(zip(callers, drawn.tolist(), strict=True))
    decided_B = chosen_B.clone()
    if help_id is not None and calls.caller in OF_STUDENT:
        decided_B[callers] = help_id
    logprobs = log_pi_BV.gather(1, decided_B.unsqueeze(1)).squeeze(1).tolist()
    for k, (row, token) in enumerate(zip(rows, chosen_B.tolist(), strict=True)):
        row.logprobs.append(logprobs[k])
        row.help.append(help_B[k])
        row.entropies.append(float(entropy_B[k]))
        row.write(given.get(k, token), k in given, settings, calls)


def _ask(
    asked: CachedReader | RecomputedReader, rows: Sequence[_Row], help_id: int | None, tokens: int | None
) -> torch.Tensor:
    """The teacher's logits [B, V] for the next token of these rows, after it has read what it had not. It
    cannot give the help token, whose id may be one of its unused ones, nor ids from `tokens` on.
    """
    logits = asked.logits([row.number for row in rows], [row.unread for row in rows])
    for row in rows:
        row.unread = []
    if help_id is not None and help_id < logits.shape[1]:
        logits[:, help_id] = -torch.inf
    if tokens is not None:
        logits[:, tokens:] = -torch.inf
    return logits
