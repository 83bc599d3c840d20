"""The audit of the costs on the user's own answers: do they rank answers as exact gradient norms do?"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from cluster.errors import BadInput
from cluster.models.rendering import Renderer
from jobs.files.answers import Row
from jobs.files.given import Column, Lists, Rows, read_given
from jobs.files.layouts import read_teacher_files
from jobs.files.values import whole
from jobs.run.progress import Terminal
from jobs.run.store import write_atomically
from jobs.standalone.score import score_in_shards
from jobs.standalone.student import Student, device_of, open_student
from selection.audit import NORMS, Agreement, agreements
from selection.costs import COSTS_OF_STATISTICS, CostSettings, compute_cost
from selection.gradients import Gradients
from selection.scoring import Scorer


def audit(
    student: Student,
    questions: Column | None = None,
    answers: Lists | Rows | None = None,
    *,
    sample: int = 200,
    seed: int = 0,
    chat_template: str | None = None,
    device: str = "auto",
    max_length: int = 4096,
    verbose: bool = False,
) -> pd.DataFrame:
    """Whether costs rank answers as their exact gradient norms do. One backward pass an answer.

    Args:
        student, questions, answers, chat_template, device, max_length, verbose: as in `tutelage.score`. A
            student that is loaded here computes in float32.
        sample: questions in the sample, drawn by `seed`.

    Returns:
        Spearman's rank correlation of each cost with each norm, in columns `cost`, `norm` (`gradient_norm`
        over all parameters, `projection_gradient_norm` over the vocabulary projection), `scope` (`all
        answers` or `within a question`), `correlation`, `low` and `high` (95 % interval over questions),
        `questions` and `answers` (how many entered).

    Raises:
        BadInput: no answer could be scored; as in `tutelage.score`.
    """
    if answers is None:
        raise BadInput("no answers", "", "lists beside the questions, or rows that hold both", "")
    rows = draw_sample(read_given(questions, answers).in_order(), sample, seed)
    how = AuditSettings(chat_template, device, max_length, seed)
    results, _, _ = audit_rows(student, rows, how, Terminal(quiet=not verbose))
    columns = [field.name for field in fields(Agreement)]
    return pd.DataFrame([asdict(result) for result in results], columns=columns)


@dataclass(frozen=True)
class AuditSettings:
    """How an audit reads its student and draws its intervals."""

    chat_template: str | None
    device: str
    max_length: int
    seed: int


@dataclass(frozen=True)
class AuditOptions:
    """The options of `tutelage audit`."""

    student: str
    answers: str
    out: Path
    questions: int
    seed: int
    chat_template: str | None
    device: str
    max_length: int
    answer_field: str | None = None


def audit_files(options: AuditOptions) -> None:
    """Compare every cost of a sample of answers with their gradient norms; show and write the agreement.

    Raises:
        BadInput: no answer could be scored, a defect of a file.
    """
    if options.out.suffix.lower() == ".parquet":
        raise BadInput(
            "--out is a JSON file", options.out, "a name that ends in .json", "tables go beside it"
        )
    check_sample(options.questions, options.seed)
    device_of(options.device)
    terminal = Terminal()
    found = read_teacher_files(options.answers, answer=options.answer_field)
    for line in [str(found), *found.notes]:
        terminal.say(line)
    sample = draw_sample(found.in_order(), options.questions, options.seed)
    how = AuditSettings(options.chat_template, options.device, options.max_length, options.seed)
    results, left_out, costs = audit_rows(options.student, sample, how, terminal)
    terminal.show(as_table(results, left_out))
    write_audit(options.out, results, left_out, costs)
    terminal.say(f"wrote {options.out} and {options.out.with_suffix('.parquet')}")


def audit_rows(
    student: Student, sample: dict[str, Row], how: AuditSettings, terminal: Terminal
) -> tuple[list[Agreement], int, pd.DataFrame]:
    """The agreements, how many answers were left out, and the costs and norms of the others.

    Raises:
        BadInput: no answer could be scored.
    """
    with open_student(student, how.chat_template, device=how.device) as (model, renderer):
        scorer = Scorer(model, renderer.special_ids)
        every = score_in_shards(list(sample.values()), renderer, scorer, how.max_length, terminal)
        frame = every[every["state"] == "scored"].reset_index(drop=True)
        left_out = len(every) - len(frame)
        if frame.empty:
            got = f"{left_out} left out"
            raise BadInput("no answer could be scored", got, "at least one", "look at the answers")
        norms = gradient_norms(model, renderer, [sample[str(i)] for i in frame["answer_id"]], terminal)
    frame = frame.drop(columns=["state", "reason", "conversation_tokens"]).join(norms)
    settings = {name: CostSettings(name) for name in COSTS_OF_STATISTICS}  # type: ignore[arg-type]
    computed = {name: compute_cost(frame, own) for name, own in settings.items()}
    costs = frame.assign(**computed)
    return agreements(costs, COSTS_OF_STATISTICS, how.seed), left_out, costs


def check_sample(questions: int, seed: int) -> None:
    """Refuse a sample of no questions, and a seed that none is drawn by.

    Raises:
        BadInput: names it.
    """
    if questions < 1 or seed < 0:
        raise BadInput("--questions or --seed", f"{questions}, {seed}", "1 or more; 0 or more", "")


def draw_sample(rows: Sequence[Row], questions: int, seed: int) -> dict[str, Row]:
    """Answer id -> row, of as many questions as asked for, drawn by the seed."""
    known = sorted({r.question_id for r in rows})
    drawn = set(np.random.default_rng(seed).permutation(known)[:questions].tolist())
    return {r.answer_id: r for r in rows if r.question_id in drawn}


def gradient_norms(model: Any, renderer: Renderer, rows: Sequence[Row], terminal: Terminal) -> pd.DataFrame:
    """The exact norms of every answer, one backward pass each."""
    gradients, norms = Gradients(model, renderer.special_ids), []
    with terminal.bar("gradients", len(rows), "answers") as bar:
        for row in rows:
            norms.append(gradients.norms(renderer.conversation(row.prompt, row.answer, calls=row.calls)))
            bar.advance()
    return pd.DataFrame(norms, columns=list(NORMS))


def as_table(results: Sequence[Agreement], left_out: int) -> Table:
    """The agreements for the terminal."""
    shown = Table(
        title="Spearman's correlation with the exact gradient norm, 95 % intervals over questions; "
        f"{left_out} left out"
    )
    for column in ("cost", "norm", "scope", "correlation", "interval", "questions", "answers"):
        shown.add_column(column)
    for r in results:
        shown.add_row(
            r.cost,
            r.norm,
            r.scope,
            f"{r.correlation:+.2f}",
            f"{r.low:+.2f} to {r.high:+.2f}",
            f"{r.questions:,}",
            f"{r.answers:,}",
        )
    return shown


def write_audit(out: Path, results: Sequence[Agreement], left_out: int, costs: pd.DataFrame) -> None:
    """Write the correlations as JSON, and every answer's costs and norms as Parquet beside it."""
    plain = whole({"left_out": left_out, "agreements": [asdict(r) for r in results]})  # NaN is no JSON
    write_atomically(out, json.dumps(plain, indent=1).encode())
    costs.to_parquet(out.with_suffix(".parquet"), index=False)
