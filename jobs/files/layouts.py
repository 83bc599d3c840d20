"""The SCAS authors' file layouts, read and written: one `<teacher>.jsonl` per teacher in, scores and
selections out.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from jobs.files.datasets import OnBroken, Row, read_rows
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
    result = {}
    for path in files:
        rows: list[tuple[Row, dict[str, Any]]] = []
        seen: dict[str, int] = {}
        for number, row in read_rows(path, on_broken):
            where = f"{path} line {number}"
            missing = [k for k in ("id", "instruction", "teacher_output") if row.get(k) is None]
            if missing:
                raise BadInput(
                    f"{where} lacks {missing[0]}", ", ".join(row), "id, instruction and teacher_output", ""
                )
            identity = str(row["id"])
            if identity in seen:
                raise BadInput(
                    f"{where} repeats an id",
                    f"{identity}, first seen at line {seen[identity]}",
                    "one answer an id",
                    "remove one",
                )
            seen[identity] = number
            known = texts.setdefault(identity, (str(row["instruction"]), str(path)))
            if known[0] != str(row["instruction"]):
                raise BadInput(
                    f"question {identity} has two different texts",
                    f"in {known[1]} and {path}",
                    "one text an id",
                    "give them different ids",
                )
            if limit is not None and len(rows) >= limit:
                continue
            system = None if row.get("system") is None else str(row["system"])
            item = Row(
                f"{path.stem}/{identity}",
                identity,
                path.stem,
                str(row["instruction"]),
                str(row["teacher_output"]),
                system,
            )
            rows.append((item, row))
        result[path.stem] = rows
    return result


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
        unscored = 0
        for number, row in read_rows(path):
            if row.get("error"):
                unscored += 1
                continue
            if not isinstance(row.get(key), int | float):
                raise BadInput(
                    f"{path} line {number} has no number under {key}",
                    row.get(key),
                    "a score",
                    "check --score-key",
                )
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
