"""One question to a trained student that may ask its teacher, for `tutelage relay`: the answer in pieces,
and who wrote each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.errors import BadInput
from cluster.models.messages import plain
from cluster.models.relay import Calls
from cluster.placement import Needs
from jobs.experiment.arms.training_wheels import WheelsArm
from jobs.results.outcome import Outcome, StudentPath
from jobs.stages.hosted import Draw
from jobs.stages.states import ModelState
from jobs.systems.training_wheels.examples import without_calls
from jobs.systems.training_wheels.handler import Asking, RelayHandler
from jobs.systems.training_wheels.paths import help_of, teacher_of, wheels_of


@dataclass(frozen=True)
class Piece:
    """Neighbouring tokens of one writer, as text."""

    text: str
    by_teacher: bool


@dataclass(frozen=True)
class Told:
    """An answer in pieces, and a line on what it took."""

    pieces: Sequence[Piece]
    line: str


def answer(
    outcome: Outcome,
    question: str,
    budget: int,
    student: str | None = None,
    arm: str | None = None,
    seed: int = 0,
    is_hard: bool = False,
    temperature: float = 0.0,
) -> Told:
    """Let a student of a finished run answer, in this process.

    Args:
        student, arm, seed: whose path. None means the first of this kind.
        is_hard: whether calls are limited to the budget, instead of by its sentence alone.
        temperature: of both models. Draws are those of the run's evaluations.

    Raises:
        BadInput: the run has no such student, its weights are gone, or the budget is no number below 50.
    """
    e = outcome.start.experiment
    if not 0 <= budget < 50:
        raise BadInput("--budget", budget, "calls per 100 tokens: 0 to 49", "")
    path, state = trained_state(outcome, student, arm, seed)
    wheels, teacher = wheels_of(e), teacher_of(outcome.start, path)
    help_id, limit = help_of(state, wheels), e.evaluate.max_new_tokens
    calls = Calls("drawn" if budget else "never", help_id)
    if is_hard:
        calls = replace(calls, most=math.ceil(budget * limit / 100), share=budget / 100)
    draw = Draw(temperature, 1.0, limit, e.seed)
    handler = RelayHandler(state, teacher, help_id, calls, draw, False, Needs())
    asking = Asking(plain(question, e.questions.system), wheels.told(budget), 0)
    (row,) = handler.compute([asking]).to_dict("records")
    if row["finish"] == "failed":
        raise BadInput("the question could not be answered", row["error"], "an answer", "")
    by_teacher = [bool(called) for called in row["by_teacher"]]
    tokens = without_calls(row["path"], by_teacher)[: row["answer_tokens"]]
    known = (
        ""
        if budget in wheels.budgets
        else f"; it practised {', '.join(map(str, wheels.budgets))} and not {budget}"
    )
    line = (
        f"{sum(by_teacher)} of {len(by_teacher)} tokens by {teacher.name}, which read {row['processed']}; "
        f"{path.label}, at most {budget} in 100{' (a hard limit)' if is_hard else ''}{known}"
    )
    line += "; cut at the limit" if row["finish"] == "length" else ""
    return Told(pieces_of(state.renderer().tokenizer, tokens, by_teacher), line)


def trained_state(
    outcome: Outcome, student: str | None, arm: str | None, seed: int
) -> tuple[StudentPath, ModelState]:
    """A path of this kind and its student after the last round.

    Raises:
        BadInput: there is none, or its weights are gone.
    """
    start = outcome.start
    paths = [p for p in outcome.paths if isinstance(p.arm, WheelsArm)]
    fitting = [
        p for p in paths if student in (None, p.student) and arm in (None, p.arm.name) and p.seed == seed
    ]
    if not fitting:
        known = ", ".join(p.label for p in paths) or "no arm of kind training_wheels"
        raise BadInput(
            "the run has no such student that may ask a teacher",
            f"{student or 'any'}, {arm or 'any'}, seed {seed}",
            known,
            "",
        )
    path = fitting[0]
    numbers = [n for n in range(1, start.experiment.rounds + 1) if outcome.trained(path, n) is not None]
    if not numbers:
        raise BadInput(f"{path.label} was not trained", "", "a finished run", "run the experiment first")
    first = start.students[path.student].with_tokens([wheels_of(start.experiment).help])
    stages = [outcome.trained(path, n) for n in reversed(numbers)]
    states = [first.after(stage) for stage in stages if stage is not None]
    state = next((own for own in states if own.is_there), None)  # `keep: best` keeps another than the last
    if state is None:
        raise BadInput(
            f"the weights of {path.label} are gone", "", "keep: last or keep: all", "run the experiment again"
        )
    return path, state


def pieces_of(tokenizer: Any, tokens: Sequence[int], by_teacher: Sequence[bool]) -> list[Piece]:
    """An answer's text by writer. A character of several tokens belongs to the writer of its last one."""
    pieces: list[Piece] = []
    before = ""
    for k, called in enumerate(by_teacher[: len(tokens)]):
        text = tokenizer.decode(list(tokens[: k + 1]), skip_special_tokens=True)
        if text.endswith("\ufffd") and k + 1 < len(tokens):
            continue
        new, before = text[len(before) :], text
        if pieces and pieces[-1].by_teacher == called:
            pieces[-1] = Piece(pieces[-1].text + new, called)
        elif new:
            pieces.append(Piece(new, called))
    return pieces
