"""Exports a finished run's answers and choices as plain files for other programs, with a data set card."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import Unrenderable
from cluster.models.messages import Conversation, read_turns, write_turns
from cluster.models.rendering import Renderer, TooLong
from cluster.storage import Place
from jobs.files.answers import Row, answer_turn
from jobs.files.layouts import in_authors_words
from jobs.files.selections import tell_dataset_info
from jobs.report.card import card_of
from jobs.report.formats import FORMATS, CannotHold, ChosenAnswer
from jobs.results.outcome import Outcome, StudentPath
from jobs.run.slices import Sliced
from jobs.run.store import write_atomically
from jobs.stages.score import verified_in
from jobs.stages.scorer import kept_of
from jobs.stages.select import teacher_costs, with_costs

ABOUT = ["teacher", "cost", "rank", "candidates", "weight"]
SHAREGPT = {"formatting": "sharegpt"}


def export_run(outcome: Outcome, out: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Write the files of a finished run. The verified pool goes to `answers/<teacher>.jsonl`, in the layout
    that `score` and `audit` read. Every choice goes to `chosen/<student-arm-seed>-round-<n>.jsonl` with cost,
    rank and weight. Each further format goes to `<format>/<…>`.

    If a teacher has several right answers to a question, each has its own row. With `score.cut` a choice's
    answers of many turns are cut where they are cut for its student, with the number of turns left out as
    `turns_cut`; the pool's files hold them whole.

    Returns:
        The paths of the files. The card is the last.
    """
    paths = write_answers(outcome, out / "answers")
    left_out: Counter[str] = Counter()
    for path, number, scores, chosen in outcome.choices():
        name = f"{path.label.replace(' ', '-')}-round-{number}"
        cut = Cutting.of(outcome, path)
        lines = (line for k in range(chosen.count) for line in chosen_lines(outcome, chosen, k, cut))
        paths.append(_write(out / "chosen" / f"{name}.jsonl", lines))
        known = teacher_costs(path.choosing, outcome.start.pool, scores) if formats else {}
        for form in formats:
            answers = (
                answer
                for k in range(chosen.count)
                for answer in chosen_answers(outcome, path, number, chosen, k, known, cut)
            )
            paths.append(write_format(out, name, form, answers, left_out))
    card = out / "README.md"
    write_atomically(card, card_of(outcome, formats, left_out).encode())
    return [*paths, card]


def write_answers(outcome: Outcome, folder: Path) -> list[Path]:
    """Write the verified pool slice by slice, with one file for each teacher."""
    pool, partial = outcome.start.pool, ".partial"
    names = sorted({str(t) for own in pool.each() for t in own["teacher"][own["state"] == "verified"]})
    paths = [folder / f"{name}.jsonl" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        opened = {
            name: files.enter_context(open(f"{path}{partial}", "wb"))
            for name, path in zip(names, paths, strict=True)
        }
        for number in range(pool.count):
            for row in records(verified_in(pool.read(number))):
                opened[str(row["teacher"])].write(_line(_in_words(outcome, row)))
    for path in paths:
        Path(f"{path}{partial}").replace(path)
    return paths


@dataclass(frozen=True)
class Cutting:
    """Cuts answers of many turns where they are cut for a student.

    Attributes:
        renderer: the student's. None if nothing is cut.
        limit: the most tokens.
    """

    outcome: Outcome
    renderer: Renderer | None
    limit: int

    @classmethod
    def of(cls, outcome: Outcome, path: StudentPath) -> "Cutting":
        """As the run's settings say."""
        settings = outcome.start.experiment.score
        renderer = outcome.start.students[path.student].renderer() if settings.cut else None
        return cls(outcome, renderer, settings.max_length)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """An answer's row. If it is cut, `turns_cut` says how many turns were left out.

        Raises:
            TooLong, Unrenderable: as for `kept_of`.
        """
        if self.renderer is None or not row["turns"]:
            return row
        whole = _row_of(self.outcome, row)
        kept = kept_of(whole, self.renderer, self.limit)
        if kept is whole:
            return row
        told = {"text": kept.answer, "tool_calls": kept.calls, "turns": write_turns(kept.turns)}
        return row | told | {"turns_cut": len(whole.turns) - len(kept.turns)}


def chosen_lines(outcome: Outcome, chosen: Sliced, number: int, cut: Cutting) -> Iterator[dict[str, Any]]:
    """The rows of one slice of a choice, with the same field names as the pool's files."""
    table, rows = chosen.read("chosen", number), answers_by_id(outcome, number)
    for identity, about in zip(table["answer_id"], records(table[ABOUT]), strict=True):
        row = cut(rows[str(identity)])
        told = {"turns_cut": row["turns_cut"]} if "turns_cut" in row else {}
        yield _in_words(outcome, row) | about | told


def answers_by_id(outcome: Outcome, number: int) -> dict[str, dict[str, Any]]:
    """A slice's answers by id."""
    return {str(row["answer_id"]): row for row in records(outcome.start.pool.read(number))}


def chosen_answers(
    outcome: Outcome,
    path: StudentPath,
    number: int,
    choice: Sliced,
    k: int,
    of_teachers: Mapping[str, float],
    cut: Cutting,
) -> list[ChosenAnswer]:
    """One slice of a path's choice in one round. Each chosen answer comes with a worse one for preference
    pairs, if there is any.
    """
    questions, chosen, rows = outcome.start.questions, choice.read("chosen", k), answers_by_id(outcome, k)
    worse = worse_answers(outcome, path, number, k, of_teachers)
    return [
        ChosenAnswer(
            questions[str(r["question_id"])],
            _said(cut(rows[str(r["answer_id"])])),
            str(r["teacher"]),
            {name: r[name] for name in ABOUT if name != "teacher"},
            _rejected(str(r["answer_id"]), float(r["cost"]), worse.get(str(r["question_id"]), ()), rows, cut),
        )
        for r in records(chosen)
    ]


def worse_answers(
    outcome: Outcome, path: StudentPath, number: int, k: int, of_teachers: Mapping[str, float]
) -> dict[str, list[tuple[str, str, float]]]:
    """For each question of a slice, the candidates for the rejected answer of a preference pair, the
    preferred one first. Wrong answers come first, by key. Right answers follow, the one with the highest cost
    for this student first.
    """
    pool = outcome.start.pool.told(k)
    wrong = pool[pool["state"] == "wrong"].sort_values("answer_key")
    found: dict[str, list[tuple[str, str, float]]] = {}
    for question, answer in zip(wrong["question_id"], wrong["answer_id"], strict=True):
        found.setdefault(str(question), []).append((str(answer), "wrong", math.inf))
    scores = outcome.scores(path, number)
    if path.choosing.cost_settings is None or scores is None:
        return found
    costs = with_costs(scores.slice(k), path.choosing, of_teachers)
    costs = costs.sort_values(["cost", "answer_id"], ascending=[False, True])
    columns = (costs[name] for name in ("question_id", "answer_id", "cost"))
    for question, answer, cost in zip(*columns, strict=True):
        found.setdefault(str(question), []).append((str(answer), "costlier", float(cost)))
    return found


def _rejected(
    chosen: str,
    own_cost: float,
    worse: Iterable[tuple[str, str, float]],
    rows: Mapping[str, dict[str, Any]],
    cut: Cutting,
) -> tuple[Any, str, str] | None:
    said = _said(cut(rows[chosen]))
    for answer, why, cost in worse:
        if cost <= own_cost or answer == chosen:
            continue
        try:
            row = cut(rows[answer])
        except (TooLong, Unrenderable):
            continue
        if _said(row) != said:
            return _said(row), str(row["teacher"]), why
    return None


def _said(row: Mapping[str, Any]) -> Conversation:
    """All turns of an answer."""
    return (*read_turns(row["turns"]), answer_turn(row["text"], row["tool_calls"]))


def write_format(
    out: Path, name: str, form: str, answers: Iterable[ChosenAnswer], left_out: Counter[str]
) -> Path:
    """Write one choice in one format. Rows that the format cannot hold are counted by reason in the given
    `left_out`.
    """
    rows = []
    for answer in answers:
        try:
            rows.append(FORMATS[form](answer))
        except CannotHold as reason:
            left_out[f"{form}: {reason}"] += 1
    if form == "verl":
        path = out / form / f"{name}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        write_atomically(path, sink.getvalue().to_pybytes())
        return path
    path = _write(out / form / f"{name}.jsonl", rows)
    if form == "llama-factory":
        columns = {
            "messages": "conversations",
            **({"tools": "tools"} if any("tools" in r for r in rows) else {}),
        }
        tell_dataset_info(path, columns, SHAREGPT)
    return path


def _row_of(outcome: Outcome, row: Mapping[str, Any]) -> Row:
    question = outcome.start.questions[str(row["question_id"])]
    names = (str(row["answer_id"]), question.id, str(row["teacher"]))
    said = str(row["text"]), str(row["tool_calls"]), read_turns(row["turns"])
    return Row(*names, question.prompt, *said)


def _in_words(outcome: Outcome, row: Mapping[str, Any]) -> dict[str, Any]:
    question, answer = outcome.start.questions[str(row["question_id"])], _row_of(outcome, row)
    references = question.references
    reference = question.reference if len(references) < 2 else list(references)
    return in_authors_words(answer, {"reference_answer": reference})


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows one by one, as they are produced."""
    Place(str(path)).write_with(lambda file: file.writelines(_line(row) for row in rows))
    return path


def _line(row: Mapping[str, Any]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, default=_plain) + "\n"
    return text.encode("utf-8", "surrogatepass")


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries of plain values."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    """Convert a NumPy number to a Python number."""
    return value.item() if hasattr(value, "item") else str(value)
