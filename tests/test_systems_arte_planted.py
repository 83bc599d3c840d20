"""A planted preference: a student that likes one dialect. The aligned teacher must write that dialect more
often, and the one aligned to shuffled scores must not. In the miniature's writing world, which is built here
or taken from the store that TUTELAGE_WRITING names.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.systems.arte import algorithm
from jobs.systems.arte.prefer import Preferred
from jobs.systems.arte.rationales import Answering, answer_all
from selection.preferences import standard_error
from tests.runs import run

STYLES = {d: f"write {d}" for d in ("equations", "running", "prefix")}


def dialect_of(text: str) -> str:
    """The dialect of a worked answer, by its signs."""
    return "prefix" if "[" in text else "equations" if ";" in text else "running"


def tree(tmp_path: Path) -> dict[str, Any]:
    planted = {"kind": "arte", "signal": "scas"}
    return {
        "name": "planted",
        "store": os.environ.get("TUTELAGE_WRITING", str(tmp_path / "store")),
        "runs": str(tmp_path / "runs"),
        "miniature": {"world": "writing", "train_questions": 400, "evaluate_questions": 300},
        "questions": {"train": "miniature:train", "evaluate": "miniature:evaluate", "evaluate_rows": "0:8"},
        "teachers": [{"name": "tom", "path": "miniature:tom"}],
        "students": [{"name": "ron", "path": "miniature:ron"}],
        "arms": [{**planted, "name": "arte"}, {**planted, "name": "shuffled", "variant": "shuffled"}],
        "elicit": {
            "teacher": "tom",
            "tasks": {f: f"new question: {f}" for f in ("chain", "dial", "grid", "cups")},
            "styles": STYLES,
            "prompt": "{description}",
            "example": "{question}",
            "pattern": r"(?s)\A(?P<question>.+)\Z",
            "truth": "jobs.miniature.tasks:solve",
            "drafts": "verified",
            "shown": 0,
            "count": 1,
            "seeds": 0,
            "validation": 4,
            "items": 2,
            "questions": 60,
            "max_new_tokens": 64,
            "examples": 32,
            "align": {"learning_rate": 3e-4, "lora": None, "zero_stage": 0, "question_pairs": 0},
        },
        "generate": {"max_new_tokens": 240},
        "verify": {"method": "exact"},
        "train": {"steps": 2, "batch_size": 8, "learning_rate": 1e-4, "zero_stage": 0},
        "evaluate": {"max_new_tokens": 240, "allow_truncation": True},
        "ray": {"num_cpus": 2, "object_store_mib": 100},
    }


@pytest.mark.slow
@pytest.mark.parametrize("liked", ["running", "prefix"])
def test_the_aligned_teacher_writes_what_the_student_likes_and_the_shuffled_one_does_not(
    liked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}

    def planted(_run: Any, _e: Any, _elicit: Any, drafts: Any, _pool: Any, signals: Any) -> Any:
        likes = (drafts.table["style"] == liked).astype(float)
        return {label: Preferred(drafts.table.assign(score=likes, error=0.0), None) for label in signals}

    align_all = algorithm.align_all

    def aligned(run: Any, start: Any, outcome: Any, tasks: Any, first: Any, *rest: Any) -> Any:
        found = align_all(run, start, outcome, tasks, first, *rest)
        questions = dict(list(first.written.questions.items())[:200])
        teacher = algorithm.hosted_of(start, "tom")
        asked = {"as it was": teacher} | {label: way.hosted for label, way in found.items()}
        whom = {label: Answering(who, questions, {"plain": None}) for label, who in asked.items()}
        for label, (said,) in answer_all(run, start.experiment, whom).items():
            rows = said.read(questions).sort_values("question_id")
            told[label] = np.array([dialect_of(text) == liked for text in rows["text"]], dtype=float)
        return found

    monkeypatch.setattr(algorithm, "prefer", planted)
    monkeypatch.setattr(algorithm, "align_all", aligned)
    run(tree(tmp_path), tmp_path)
    before = told.pop("as it was")
    assert len(before) == 200
    changes = {label.partition(",")[0]: after - before for label, after in told.items()}
    low = {}
    for name, change in {**changes, "more than shuffled": changes["arte"] - changes["shuffled"]}.items():
        mean, error = float(change.mean()), 1.96 * standard_error(change.tolist())
        low[name] = mean - error
        print(f"{name}: {liked}, {before.mean():.3f} before, {mean:+.3f} ± {error:.3f}")
    assert low["arte"] > 0
    # One draw of shuffled scores moves the teacher too, either way, and towards an even mixture. Where the
    # liked dialect is rare there is room to tell the two apart.
    if before.mean() < 1 / len(STYLES):
        assert low["more than shuffled"] > 0
