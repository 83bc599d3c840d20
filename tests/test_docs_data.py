"""The examples of docs/data.md and docs/verdicts.md are what they say."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from jobs.experiment.judge import Judge
from jobs.files.layouts import read_teacher_files
from jobs.files.turns import turns_of
from selection.verification import VerifySettings, judge
from tests.conftest import write_jsonl
from tests.runs import ROOT

TEXT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
VERDICTS = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_every_row_is_a_question_and_most_are_answered(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [json.loads(block) for block in blocks("json")]
    assert len(rows) == 8
    found = [turns_of(row) for row in rows]
    assert all(turns.prompt is not None for turns in found)
    assert [turns.answer is None for turns in found] == [False] * 7 + [True]
    assert {turns.layout for turns in found} == {
        "messages",
        "ShareGPT",
        "prompt and completion",
        "Alpaca",
        "columns",
    }
    read = read_teacher_files(str(write_jsonl(tmp_path / "large.jsonl", rows[:7])))
    assert (len(read.rows), read.refused) == (7, [])


def test_the_judge_is_one_and_the_container_function_is_python() -> None:
    sections = yaml.safe_load(blocks("yaml")[0])
    assert Judge(**sections["judge"]).check_method == "math"
    compile(blocks("python")[0], "docs/data.md", "exec")


def test_every_line_of_the_table_of_verdicts_is_what_happens() -> None:
    """However the final answer is marked."""
    line = re.compile(r"^\| (math|numeric|choice|exact) \| `(.+?)` \| `(.+?)` \| (\w+) \|", re.MULTILINE)
    rows = line.findall(VERDICTS.replace("\\|", "\0"))
    assert len(rows) > 60
    missed = []
    for method, answer, reference, wanted in rows:
        text = f"Answer: {answer}".replace("\0", "|")
        found = judge(text, reference.replace("\0", "|"), VerifySettings(method=method)).state
        if found != wanted:
            missed.append((method, answer, reference, found))
    assert missed == []
