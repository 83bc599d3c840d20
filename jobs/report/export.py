"""A finished run's answers and choices as plain files that other programs read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jobs.results.outcome import Outcome
from jobs.run.store import write_atomically


def export_run(outcome: Outcome, out: Path) -> list[Path]:
    """Write the verified pool as `answers/<teacher>.jsonl`, in the layout that `score` and `audit` read, and
    every choice as `chosen/<student-arm-seed>-round-<n>.jsonl` with its cost, rank and weight; returns the
    files.

    That layout has one answer a question, so a teacher's second right answers go to `<teacher>-2.jsonl`, and
    so on.
    """
    answers = outcome.start.pool.answers
    pool = answers[answers["state"] == "verified"].sort_values(["question_id", "answer_id"])
    paths = []
    rows: dict[str, dict[str, Any]] = {}
    for a in pool.itertuples():
        question = outcome.start.questions[str(a.question_id)]
        rows[str(a.answer_id)] = {
            "id": question.id,
            "instruction": question.text,
            "teacher_output": a.text,
            "reference_answer": question.reference,
            **({"system": question.system} if question.system is not None else {}),
        }
    ranks = pool.groupby(["teacher", "question_id"]).cumcount() + 1
    for (teacher, rank), own in pool.groupby(["teacher", ranks]):
        name = f"{teacher}-{rank}" if rank != 1 else str(teacher)
        paths.append(_write(out / "answers" / f"{name}.jsonl", (rows[str(i)] for i in own["answer_id"])))
    for (path, number), stage in outcome.chosen.items():
        chosen = stage.read("chosen")
        extras = chosen[["teacher", "cost", "rank", "candidates", "weight"]].to_dict("records")
        lines = ({**rows[str(i)], **extra} for i, extra in zip(chosen["answer_id"], extras, strict=True))
        paths.append(_write(out / "chosen" / f"{path.label.replace(' ', '-')}-round-{number}.jsonl", lines))
    return paths


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    write_atomically(path, text.encode("utf-8", "surrogatepass"))
    return path
