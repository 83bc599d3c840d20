"""The guides: every command that they tell a user to run is run here, on files such as they speak of."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.miniature.tasks import draw_episodes, work_out
from tests.conftest import write_jsonl
from tests.runs import ROOT, tutelage

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def place(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the guides speak of."""
    folder = tmp_path_factory.mktemp("guides")
    episodes = draw_episodes(20, seed=5)
    for name, part in (("train", episodes[:12]), ("held_out", episodes[12:])):
        rows = [{"id": e.question_id, "question": e.question, "reference": e.result} for e in part]
        write_jsonl(folder / f"{name}.jsonl", rows)
    for teacher, dialect in (("big", "equations"), ("small", "running")):
        rows = [
            {
                "id": e.question_id,
                "instruction": e.question,
                "teacher_output": work_out(e, dialect),
                "reference": e.result,
            }
            for e in episodes[:12]
        ]
        write_jsonl(folder / "answers" / f"{teacher}.jsonl", rows)
    for name in ("kid", "teacher"):
        shutil.copytree(tiny_model, folder / "models" / name)
    return folder


def blocks(guide: Path) -> list[tuple[str, str, str]]:
    return [(m[1], m[2] or "", m[3]) for m in BLOCK.finditer(guide.read_text(encoding="utf-8"))]


def run_line(line: str, place: Path) -> tuple[int, str]:
    """One command of a guide; tutelage itself in this process, all else in a shell."""
    words = shlex.split(line, comments=True)
    if words[0] == "tutelage":
        done = tutelage(*words[1:], cwd=place)
        return done.returncode, done.stdout + done.stderr
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.run(
        ["bash", "-c", line],
        cwd=place,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    return shell.returncode, shell.stdout + shell.stderr


LONG = ("comparing-systems", "adding-a-selector")  # they train several times


@pytest.mark.long
@pytest.mark.parametrize(
    "guide",
    [
        pytest.param(g, marks=[pytest.mark.slow] if g.stem in LONG else [])
        for g in GUIDES
        if g.name != "README.md"
    ],
    ids=lambda g: g.stem,
)
def test_every_command_of_a_guide_does_what_it_says(guide: Path, place: Path) -> None:
    # the experiment that several guides go on from is in the first
    for other in (ROOT / "docs" / "guides" / "first-run.md", guide):
        for language, name, text in blocks(other):
            if name:
                assert language == "yaml"
                (place / name).write_text(text)
    run = 0
    for language, _, text in blocks(guide):
        for line in text.strip().splitlines() if language == "sh" else ():
            fails = line.startswith("! ")
            code, said = run_line(line.removeprefix("! "), place)
            assert (code != 0) == fails, (line, said)
            assert "Traceback" not in said, (line, said)
            run += 1
    assert run > 0


def test_guides_name_files_and_commands_that_are_there() -> None:
    listed = (ROOT / "docs" / "guides" / "README.md").read_text()
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        assert guide.name in listed or guide.name == "README.md"
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (guide.parent / target).is_file(), (guide.name, target)
        for path in re.findall(r"`((?:docs|selection|jobs|experiments|tests)/[\w/.-]+)`", text):
            assert (ROOT / path).exists(), (guide.name, path)
