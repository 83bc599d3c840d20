"""Selections in the SCAS authors' layout: every group of the ranking, the draw from one of them, a manifest,
and the `dataset_info.json` that LLaMA-Factory reads.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from jobs.run.store import write_atomically
from selection.rules import group_of_rank

Ranking = Mapping[str, Sequence[Mapping[str, Any]]]


def ranked(
    rows: Sequence[Mapping[str, Any]], key: str, groups: int, compat: str
) -> dict[str, list[dict[str, Any]]]:
    """Question id -> its rows, cheapest first, each with its `score_rank` (from 1) and `group`. Equal scores
    are ordered by the teacher's name.
    """
    by_question: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_question.setdefault(str(row["id"]), []).append(row)
    found = {}
    for question, own in sorted(by_question.items()):
        order = sorted(own, key=lambda r: (r[key], str(r["teacher_name"])))
        found[question] = [
            {**row, "score_rank": rank, "group": group_of_rank(rank, len(order), groups, compat)}
            for rank, row in enumerate(order, 1)
        ]
    return found


def in_group(ranking: Ranking, group: int) -> list[Mapping[str, Any]]:
    """The rows of one group, by question and rank."""
    return [row for rows in ranking.values() for row in rows if row["group"] == group]


def write_selection(path: Path, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    """Write one set of rows, and name it in `dataset_info.json` beside it. It is not named if some rows have
    more turns than one question.
    """
    lines = [
        json.dumps({**row, "output": row["teacher_output"], "selected_score": row[key]}, ensure_ascii=False)
        for row in rows
    ]
    write_atomically(path, ("\n".join(lines) + "\n" if lines else "").encode("utf-8", "surrogatepass"))
    if any("messages" in row for row in rows):  # LLaMA-Factory reads turns from what `export` writes for it
        return
    columns = {"prompt": "instruction", "response": "teacher_output", "system": "system"}
    if not any(row.get("system") for row in rows):
        del columns["system"]
    tell_dataset_info(path, columns)


def tell_dataset_info(path: Path, columns: Mapping[str, str], more: Mapping[str, Any] | None = None) -> None:
    """Name a file in the `dataset_info.json` beside it, as LLaMA-Factory reads it.

    Raises:
        BadInput: there is one already that is no JSON object.
    """
    info = path.with_name("dataset_info.json")
    try:
        known = json.loads(info.read_text(encoding="utf-8-sig")) if info.exists() else {}
    except ValueError as error:
        known = str(error)
    if not isinstance(known, dict):
        got = known if isinstance(known, str) else type(known).__name__
        raise BadInput(f"{info} names no data sets", got, "a JSON object", "mend it, or move it away")
    known[path.stem] = {"file_name": path.name, **(more or {}), "columns": dict(columns)}
    write_atomically(info, json.dumps(known, indent=1, sort_keys=True).encode())


def write_manifest(folder: Path, key: str, groups: int, selected: int, seed: int, ranking: Ranking) -> None:
    """Write a manifest: how the groups of a folder were made, and how many rows each has."""
    counts = {str(k): len(in_group(ranking, k)) for k in range(1, groups + 1)}
    content = {
        "score_key": key,
        "num_groups": groups,
        "selected_group": selected,
        "seed": seed,
        "num_questions": len(ranking),
        "num_rows": sum(counts.values()),
        "group_counts": counts,
        "files": {str(k): f"group_{k}.jsonl" for k in range(1, groups + 1)},
    }
    write_atomically(folder / "manifest.json", json.dumps(content, indent=1).encode())
