"""Answers to score, in any layout, and their scores in the SCAS authors' layout: one `<teacher>.jsonl` per
teacher in, `<teacher>_scas_scores.jsonl` out.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from cluster.errors import BadInput
from cluster.models.messages import Prompt, write_calls
from jobs.files.answers import Row, answer_text, answer_turn, body_of
from jobs.files.columns import ID_NAMES, TEACHER_NAMES, first_value
from jobs.files.questions import question_id_of
from jobs.files.rows import HUB, OnBroken, check_source, is_saved, read_rows
from jobs.files.turn import NotUnderstood
from jobs.files.turns import Turns, turns_of
from jobs.run.store import write_atomically
from selection.costs import CostSettings, compute_cost, scas_parts

SCORES_SUFFIX = "_scas_scores.jsonl"
IN_THE_TEXT = ("input", "history")  # Alpaca's columns, once they are part of the instruction or the turns


@dataclass
class Answers:
    """Teachers' answers as files hold them.

    Attributes:
        rows: of all teachers, in the files' order.
        sources: answer id -> the row it was read from.
        refused: rows that cannot be understood: teacher, row, reason.
        layouts: how many answers each layout gave.
    """

    rows: list[Row] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    layouts: Counter[str] = field(default_factory=Counter)

    def in_order(self) -> list[Row]:
        """All rows, by question and then by answer."""
        return sorted(self.rows, key=lambda r: (r.question_id, r.answer_id))

    def __str__(self) -> str:
        teachers = len({row.teacher for row in self.rows})
        layouts = ", ".join(f"{n:,} as {name}" for name, n in self.layouts.most_common())
        told = f"{len(self.rows):,} answers of {teachers} teachers ({layouts})"
        if not self.refused:
            return told
        reasons = Counter(reason for _, _, reason in self.refused).most_common(3)
        why = "; ".join(f"{n:,} with {reason}" for reason, n in reasons)
        return f"{told}; {len(self.refused):,} refused: {why}"


def read_teacher_files(where: str, on_broken: OnBroken = None, limit: int | None = None) -> Answers:
    """Read every teacher's answers, in any layout: a folder with one file a teacher, which is called by its
    name, or one source whose rows name their teachers. Several answers of a teacher to a question are its
    samples.

    Args:
        limit: the most answers of one teacher; all are checked.

    Raises:
        BadInput: no file, a row without a question or an answer, one id with two questions.
    """
    found = Answers()
    texts: dict[str, tuple[Prompt, str]] = {}
    samples: Counter[tuple[str, str]] = Counter()
    of_teacher: Counter[str] = Counter()
    for source, named in sources_in(where):
        stem = Path(source.partition("?")[0]).stem
        for number, row in read_rows(source, on_broken):
            teacher = named or str(first_value(row, None, TEACHER_NAMES) or stem)
            try:
                turns = turns_of(row)
            except NotUnderstood as error:
                found.refused.append((teacher, row, str(error)))
                continue
            item = _item_in(row, turns, teacher, f"{source} line {number}", samples)
            _refuse_second_text(texts, item, source)
            of_teacher[teacher] += 1
            if limit is None or of_teacher[teacher] <= limit:
                found.rows.append(item)
                found.sources[item.answer_id] = row
                found.layouts[turns.layout] += 1
    return found


def sources_in(where: str) -> list[tuple[str, str]]:
    """The sources of answers at a place, each with the teacher that it is named after: a folder's files; or
    one source, whose rows name their teachers.

    Raises:
        BadInput: nothing there.
    """
    folder = Path(where)
    if where.startswith(HUB) or not folder.is_dir() or is_saved(folder):
        check_source(where, "answers")
        return [(where, "")]
    files = sorted(p for p in folder.iterdir() if p.suffix in (".jsonl", ".json", ".parquet"))
    files = [p for p in files if not p.name.endswith(SCORES_SUFFIX) and p.name != "dataset_info.json"]
    if not files:
        raise BadInput("no teacher files there", where, "one <teacher>.jsonl per teacher", "check --answers")
    return [(str(p), p.stem) for p in files]


def _item_in(
    row: Mapping[str, Any], turns: Turns, teacher: str, where: str, samples: Counter[tuple[str, str]]
) -> Row:
    if turns.prompt is None or turns.answer is None:
        what = "answer" if turns.answer is None else "question"
        raise BadInput(
            f"{where} has no {what}", ", ".join(row), "instruction and teacher_output, or turns", ""
        )
    given = first_value(row, None, ID_NAMES)
    identity = question_id_of(turns.prompt) if given is None else str(given)
    sample = samples[teacher, identity]
    samples[teacher, identity] += 1
    name = f"{teacher}/{identity}/{sample}"
    calls = write_calls(turns.answer.tool_calls)
    return Row(name, identity, teacher, turns.prompt, answer_text(turns.answer), calls)


def _refuse_second_text(texts: dict[str, tuple[Prompt, str]], item: Row, source: str) -> None:
    prompt, file = texts.setdefault(item.question_id, (item.prompt, source))
    if body_of(prompt) != body_of(item.prompt):
        raise BadInput(
            f"question {item.question_id} has two different texts",
            f"in {file} and {source}",
            "one text an id",
            "give them different ids",
        )


def in_authors_words(item: Row, source: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the authors' columns beside its own; with its turns where they are more than a question."""
    source = {name: value for name, value in source.items() if name not in IN_THE_TEXT}
    row = {**source, "id": item.question_id, "instruction": item.prompt.text, "teacher_output": item.answer}
    if item.prompt.system is not None:
        row["system"] = item.prompt.system
    if not item.prompt.is_plain or item.calls:
        row["messages"] = [*item.prompt.for_template(), answer_turn(item.answer, item.calls).for_template()]
        if item.prompt.tools:
            row["tools"] = item.prompt.tools
    return row


def write_scores(scores: pd.DataFrame, answers: Answers, settings: CostSettings, out: Path) -> list[Path]:
    """Write `<out>/<teacher>_scas_scores.jsonl` with the authors' field names; rows that failed carry `error`
    and no score.

    Args:
        scores: statistics by answer, in the columns of a score stage.
    """
    scored = scores[scores["state"] == "scored"].reset_index(drop=True)
    parts = scas_parts(scored).assign(
        scas_score=compute_cost(scored, settings), answer_id=scored["answer_id"]
    )
    by_id, lines = parts.set_index("answer_id"), dict[str, list[str]]()
    items = {row.answer_id: row for row in answers.rows}
    for answer, state, reason in zip(scores["answer_id"], scores["state"], scores["reason"], strict=True):
        item = items[answer]
        row = {**in_authors_words(item, answers.sources[answer]), "teacher_name": item.teacher}
        if state == "scored":
            row |= {k: float(v) for k, v in by_id.loc[answer].items()} | {"lambda_scas": settings.scas_lambda}
        else:
            row |= {"scas_score": None, "error": f"{state}: {reason}"}
        lines.setdefault(item.teacher, []).append(json.dumps(row, ensure_ascii=False, default=str))
    for teacher, source, reason in answers.refused:
        row = {**source, "teacher_name": teacher, "scas_score": None, "error": f"not_understood: {reason}"}
        lines.setdefault(teacher, []).append(json.dumps(row, ensure_ascii=False, default=str))
    paths = [out / f"{quote(teacher, safe=' ')}{SCORES_SUFFIX}" for teacher in sorted(lines)]
    for path, teacher in zip(paths, sorted(lines), strict=True):
        write_atomically(path, ("\n".join(lines[teacher]) + "\n").encode("utf-8", "surrogatepass"))
    return paths


def read_scores(folder: Path, key: str, on_unscored: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Rows of every `*_scas_scores.jsonl` that have a score under `key`; how many of each file have none is
    told to `on_unscored`.
    """
    files = sorted(folder.glob(f"*{SCORES_SUFFIX}")) if folder.is_dir() else []
    if not files:
        raise BadInput(
            "no score files there",
            folder,
            f"<teacher>{SCORES_SUFFIX}, as `tutelage score` writes them",
            "check --scores",
        )
    for path in files:
        yield from _rows_with_score(path, key, on_unscored)


def _rows_with_score(path: Path, key: str, on_unscored: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    unscored = 0
    for number, row in read_rows(path):
        if row.get("error"):
            unscored += 1
            continue
        if not isinstance(row.get(key), int | float):
            what = f"{path} line {number} has no number under {key}"
            raise BadInput(what, row.get(key), "a score", "check --score-key")
        yield row
    if unscored:
        on_unscored(
            f"{unscored:,} rows of {path.name} have an error instead of a score and cannot be selected"
        )
