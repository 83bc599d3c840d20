"""The wheel in an environment of its own, outside the checkout and inside somebody else's repository.

Nothing is downloaded: packages come from this environment by links, and only those that the wheel asks for.
"""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from jobs.miniature.tasks import draw_episodes, work_out
from tests.conftest import write_jsonl
from tests.runs import ROOT

pytestmark = pytest.mark.slow
WORDS = ("cluster", "selection", "training", "jobs", "tutelage")


def needed(requirements: Iterator[str], extras: frozenset[str]) -> dict[str, metadata.Distribution]:
    """All distributions that these requirements lead to."""
    found: dict[str, metadata.Distribution] = {}
    asked: set[tuple[str, frozenset[str]]] = set()
    left = [(text, extras) for text in requirements]
    while left:
        text, own = left.pop()
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": one}) for one in own | {""}):
            continue
        wanted = (requirement.name.lower(), frozenset(requirement.extras))
        if wanted in asked:
            continue
        asked.add(wanted)
        distribution = metadata.distribution(requirement.name)
        found[requirement.name.lower()] = distribution
        left += [(one, wanted[1]) for one in distribution.requires or ()]
    return found


def link(distribution: metadata.Distribution, site: Path) -> None:
    """Put a distribution's files into another environment, by links to what lies at the top."""
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        place = Path(str(distribution.locate_file(top)))
        if place.exists() and not (site / top).exists():
            (site / top).symlink_to(place)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--wheel-dir", out, ROOT], check=True)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of somebody else's, whose environment has the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("theirs")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    [site] = (folder / "env" / "lib").glob("python*/site-packages")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site]
    subprocess.run([*command, wheel], check=True)
    [own] = metadata.distributions(path=[str(site)])
    for distribution in needed(iter(own.requires or ()), frozenset()).values():
        link(distribution, site)
    write_jsonl(folder / "answers.jsonl", rows())
    for arguments in (["init", "-q"], ["add", "answers.jsonl"], ["commit", "-q", "-m", "theirs"]):
        names = ["-c", "user.name=n", "-c", "user.email=e@e"]
        subprocess.run(["git", *names, *arguments], cwd=folder, check=True)
    return folder


def rows() -> list[dict[str, str]]:
    return [
        {
            "id": e.question_id,
            "question": e.question,
            "response": work_out(e, dialect),
            "reference": e.result,
            "teacher": dialect,
        }
        for e in draw_episodes(4, seed=1)
        for dialect in ("equations", "wordy")
    ]


def python(place: Path, *arguments: object) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    command = [str(place / "env" / "bin" / "python"), *map(str, arguments)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_modules_and_the_demos_experiment_come_from_the_wheel_and_it_has_no_commit(place: Path) -> None:
    program = (
        "import json, tutelage, cluster, selection, training, jobs\n"
        "from jobs.run.provenance import git_commit, package_versions\n"
        "files = [m.__file__ for m in (cluster, selection, training, jobs, tutelage)]\n"
        "print(json.dumps([files, tutelage.__version__, package_versions(), git_commit()]))"
    )
    files, version, versions, commit = json.loads(python(place, "-c", program))
    assert all(str(place / "env") in file for file in files)
    assert version == versions["tutelage"]
    assert versions["ray"] == versions["deepspeed"] == "not installed"
    assert commit == ""
    [site] = (place / "env" / "lib").glob("python*/site-packages")
    assert all((site / name / "py.typed").is_file() for name in WORDS[:4])
    demo = (ROOT / "experiments" / "quickstart.yaml").read_text(encoding="utf-8")
    assert python(place, "-m", "jobs", "quickstart", "--show") == demo


def test_its_commands_work_without_an_extra_and_name_the_one_that_is_lacking(
    place: Path, tiny_model: Path
) -> None:
    command = ("-m", "jobs")
    python(place, *command, "verify", "--answers", "answers.jsonl", "--out", "checked.jsonl")
    checked = [json.loads(line)["verdict"] for line in (place / "checked.jsonl").read_text().splitlines()]
    assert checked == ["correct"] * 8
    answers = ("--student", tiny_model, "--answers", "answers.jsonl")
    python(place, *command, "score", *answers, "--out", "scores")
    python(place, *command, "select", "--scores", "scores", "--out", "chosen")
    assert len((place / "chosen" / "min_score_selected.jsonl").read_text().splitlines()) == 4
    python(place, *command, "audit", *answers, "--out", "audit.json", "--questions", 2)
    with pytest.raises(AssertionError, match="not installed"):
        python(place, *command, "quickstart")
    said = python(place, "-c", "import sys, tutelage\ntry: tutelage.run({})\nexcept Exception as e: print(e)")
    assert said


def test_a_type_checker_reads_its_types(place: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import tutelage\nreveal_type(tutelage.verify)\n")
    command = [sys.executable, "-m", "mypy", "--python-executable", place / "env" / "bin" / "python"]
    done = subprocess.run(
        [*command, "--follow-imports", "silent", "--cache-dir", tmp_path / "cache", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "timeout_s: float" in done.stdout.replace("builtins.", ""), done.stdout
