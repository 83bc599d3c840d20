"""Files of scores: written with the authors' field names, one for each teacher, and read again."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd

from cluster.errors import BadInput
from jobs.files.columns import id_of, value_at
from jobs.files.folders import SCORES_SUFFIX
from jobs.files.layouts import Answers, in_authors_words, state_of
from jobs.files.refusals import NO_ANSWER, LeftOut, Missing, NotUnderstood, told_of
from jobs.files.rows import read_rows
from jobs.files.values import is_nothing
from jobs.run.store import write_atomically
from selection.costs import CostSettings, compute_cost, scas_parts

LONGEST_NAME = 200  # bytes of a teacher's name in the name of a file
SCORED_BY = "scored_by"  # a row's column with the student whose score it is


def scores_name(teacher: str) -> str:
    """The name of a teacher's file of scores. A file's name has at most 255 bytes."""
    name = quote(teacher, safe=" ")
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(teacher.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = quote(teacher[: LONGEST_NAME // 12], safe=" ") + f"-{digest}"
    return name + SCORES_SUFFIX


def write_scores(
    scores: pd.DataFrame, answers: Answers, settings: CostSettings, out: Path, student: str
) -> list[Path]:
    """Write `<out>/<teacher>_scas_scores.jsonl` with the authors' field names. Rows that failed have `error`
    and no score.

    Args:
        scores: statistics by answer, in the columns of a score stage.
        student: which every row names, so that scores of two students are not compared.
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
        row.pop("error", None)  # a user's own column of this name; here it says why a row has no score
        row[SCORED_BY] = student
        if state == "scored" and not math.isfinite(by_id.loc[answer, "scas_score"]):
            row |= {"scas_score": None, "error": "not_finite: the student gives this answer no number"}
        elif state == "scored":
            row |= {k: float(v) for k, v in by_id.loc[answer].items()} | {"lambda_scas": settings.scas_lambda}
        else:
            row |= {"scas_score": None, "error": f"{state}: {reason}"}
        lines.setdefault(item.teacher, []).append(json.dumps(row, ensure_ascii=False, default=str))
    for teacher, source, reason in answers.refused:
        row = {
            **source,
            "teacher_name": teacher,
            "scas_score": None,
            "error": f"{state_of(reason)}: {reason}",
        }
        lines.setdefault(teacher, []).append(json.dumps(row, ensure_ascii=False, default=str))
    paths = [out / scores_name(teacher) for teacher in sorted(lines)]
    for path, teacher in zip(paths, sorted(lines), strict=True):
        write_atomically(path, ("\n".join(lines[teacher]) + "\n").encode("utf-8", "surrogatepass"))
    return paths


def read_scores(folder: Path, key: str, on_unscored: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """The rows of every `*_scas_scores.jsonl` that have a score under `key`. `on_unscored` is called with the
    number of rows without one, for each file.
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
    """The rows with a finite score. The others are counted, and the first of them is named.

    Raises:
        BadInput: no row of the file has a score, and none says why.
    """
    unscored, left_out = 0, LeftOut(str(path))
    teacher = unquote(path.name.removesuffix(SCORES_SUFFIX))
    for place, row in read_rows(path):
        if row.get("error") and is_nothing(value_at(row, key)):
            unscored += 1
            continue
        try:
            yield _scored(row, key, teacher)
            left_out.taken += 1
        except NotUnderstood as error:
            left_out.add(place, error, id_of(row))
    left_out.refuse_all()
    if unscored:
        on_unscored(
            f"{unscored:,} rows of {path.name} have an error instead of a score and cannot be selected"
        )
    for line in left_out.first:
        on_unscored(line)
    if told := told_of(left_out.reasons):
        on_unscored(f"{path.name}{told}")


def _scored(row: dict[str, Any], key: str, teacher: str) -> dict[str, Any]:
    """A row with its score, its id as text, and its teacher.

    Raises:
        NotUnderstood: it has no finite score, no id or no answer.
    """
    score, identity = row.get(key), id_of(row)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        remedy = "check --score-key"
        raise Missing(f"no number under {key}", {str(score): ""}, "a score", remedy)
    if identity is None or row.get("teacher_output") is None:  # an answer that only calls tools has ""
        raise NotUnderstood("no id" if identity is None else NO_ANSWER)
    return {**row, "id": identity, "teacher_name": row.get("teacher_name") or teacher}
