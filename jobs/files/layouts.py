"""The SCAS authors' file layouts, read and written: one `<teacher>.jsonl` per teacher in, scores and
selections out.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from jobs.files.answers import Row
from jobs.files.rows import OnBroken, read_rows
from jobs.run.store import write_atomically
from selection.costs import CostSettings, compute_cost, scas_parts
from selection.rules import group_of_rank

SCORES_SUFFIX = "_scas_scores.jsonl"


def read_teacher_files(
    folder: Path, on_broken: OnBroken = None, limit: int | None = None
) -> dict[str, list[tuple[Row, dict[str, Any]]]]:
    """Read `<teacher>.jsonl` files: `id, instruction, teacher_output`, optional `system`; returns teacher ->
    rows with their source.

    Raises:
        BadInput: no file, a missing field, an id twice in one file, one id with two questions.
    """
    files = (
        sorted(p for p in folder.glob("*.jsonl") if not p.name.endswith(SCORES_SUFFIX))
        if folder.is_dir()
        else []
    )
    if not files:
        raise BadInput("no teacher files there", folder, "one <teacher>.jsonl per teacher", "check --answers")
    texts: dict[str, tuple[str, str]] = {}
    return {path.stem: _rows_of_teacher(path, texts, on_broken, limit) for path in files}


def _rows_of_teacher(
    path: Path, texts: dict[str, tuple[str, str]], on_broken: OnBroken, limit: int | None
) -> list[tuple[Row, dict[str, Any]]]:
    """The rows of one teacher's file, the first `limit` of them; all of them are checked.

    Args:
        texts: question id -> its text and the file it was first seen in; grows with every file.
    """
    rows: list[tuple[Row, dict[str, Any]]] = []
    seen: dict[str, int] = {}
    for number, row in read_rows(path, on_broken):
        where = f"{path} line {number}"
        item = _item_in(row, path.stem, where)
        if item.question_id in seen:
            raise BadInput(
                f"{where} repeats an id",
                f"{item.question_id}, first seen at line {seen[item.question_id]}",
                "one answer an id",
                "remove one",
            )
        seen[item.question_id] = number
        _refuse_second_text(texts, item, path)
        if limit is None or len(rows) < limit:
            rows.append((item, row))
    return rows


def _item_in(row: Mapping[str, Any], teacher: str, where: str) -> Row:
    missing = [k for k in ("id", "instruction", "teacher_output") if row.get(k) is None]
    if missing:
        raise BadInput(
            f"{where} lacks {missing[0]}", ", ".join(row), "id, instruction and teacher_output", ""
        )
    identity = str(row["id"])
    system = None if row.get("system") is None else str(row["system"])
    question, answer = str(row["instruction"]), str(row["teacher_output"])
    return Row(f"{teacher}/{identity}", identity, teacher, question, answer, system)


def _refuse_second_text(texts: dict[str, tuple[str, str]], item: Row, path: Path) -> None:
    text, file = texts.setdefault(item.question_id, (item.question, str(path)))
    if text != item.question:
        raise BadInput(
            f"question {item.question_id} has two different texts",
            f"in {file} and {path}",
            "one text an id",
            "give them different ids",
        )


def in_order(found: Mapping[str, Sequence[tuple[Row, dict[str, Any]]]]) -> list[Row]:
    """All teachers' rows, by question and then by answer."""
    return sorted(
        (item for own in found.values() for item, _ in own), key=lambda r: (r.question_id, r.answer_id)
    )


def write_scores(
    scores: pd.DataFrame, sources: Mapping[str, Mapping[str, Any]], settings: CostSettings, out: Path
) -> list[Path]:
    """Write `<out>/<teacher>_scas_scores.jsonl` with the authors' field names; rows that failed carry `error`
    and no score.

    Args:
        scores: statistics by answer, in the columns of a score stage.
        sources: answer id -> the row it was read from, kept in the output.
    """
    paths = []
    scored = scores[scores["state"] == "scored"].reset_index(drop=True)
    parts = scas_parts(scored).assign(
        scas_score=compute_cost(scored, settings), answer_id=scored["answer_id"]
    )
    by_id = parts.set_index("answer_id")
    for teacher, own in scores.groupby("teacher", sort=True):
        lines = []
        for answer, state, reason in zip(own["answer_id"], own["state"], own["reason"], strict=True):
            row = {**sources[str(answer)], "teacher_name": teacher}
            if state == "scored":
                row |= {k: float(v) for k, v in by_id.loc[answer].items()} | {
                    "lambda_scas": settings.scas_lambda
                }
            else:
                row |= {"scas_score": None, "error": f"{state}: {reason}"}
            lines.append(json.dumps(row, ensure_ascii=False))
        path = out / f"{teacher}{SCORES_SUFFIX}"
        write_atomically(path, ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
        paths.append(path)
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


def ranked(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    """Question id -> its rows, cheapest first; equal scores are ordered by teacher name."""
    by_question: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_question.setdefault(str(row["id"]), []).append(row)
    return {
        q: sorted(own, key=lambda r: (r[key], str(r["teacher_name"])))
        for q, own in sorted(by_question.items())
    }


def write_selection(path: Path, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Write one selected set in the authors' layout, with the dataset_info.json that LLaMA-Factory reads,
    beside it.
    """
    lines = [
        json.dumps({**row, "output": row["teacher_output"], "selected_score": row[key]}, ensure_ascii=False)
        for row in rows
    ]
    write_atomically(path, ("\n".join(lines) + "\n" if lines else "").encode("utf-8", "surrogatepass"))
    columns = {"prompt": "instruction", "response": "teacher_output", "system": "system"}
    if not any(row.get("system") for row in rows):
        del columns["system"]
    info = path.with_name("dataset_info.json")
    known = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
    known[path.stem] = {"file_name": path.name, "columns": columns}
    write_atomically(info, json.dumps(known, indent=1, sort_keys=True).encode())


def group_members(
    rows: Sequence[Mapping[str, Any]], groups: int, group: int, compat: str
) -> list[Mapping[str, Any]]:
    """The rows of one group of a ranking."""
    return [
        row for rank, row in enumerate(rows, 1) if group_of_rank(rank, len(rows), groups, compat) == group
    ]
