"""Provenance tells our own commit, and of nobody else's repository."""

import shutil
import subprocess
from pathlib import Path

import pytest

from jobs.run.provenance import commit_of

OWN = Path(__file__).parents[1] / "jobs" / "run" / "provenance.py"


def repository(root: Path) -> str:
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=n", "-c", "user.email=e@e", "commit", "-q", "--allow-empty", "-m", "m"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True)
    return head.stdout.decode().strip()


def installed(root: Path) -> Path:
    file = root / "jobs" / "run" / "provenance.py"
    file.parent.mkdir(parents=True)
    shutil.copy(OWN, file)
    return file


def test_a_checkouts_commit_is_told_and_that_it_was_changed(tmp_path: Path) -> None:
    file = installed(tmp_path)
    shutil.copy(OWN.parents[2] / "pyproject.toml", tmp_path)
    head = repository(tmp_path)
    assert commit_of(file) == head
    (tmp_path / "new").touch()
    assert commit_of(file) == head + "+"


@pytest.mark.parametrize("below", ["venv/lib/site-packages", "vendored/tutelage"])
def test_a_wheel_in_somebodys_repository_has_no_commit(tmp_path: Path, below: str) -> None:
    file = installed(tmp_path / below)
    repository(tmp_path)
    assert commit_of(file) == ""


def test_a_wheel_unpacked_at_the_top_of_a_repository_that_does_not_track_it_has_none(tmp_path: Path) -> None:
    repository(tmp_path)
    assert commit_of(installed(tmp_path)) == ""


@pytest.mark.parametrize("project", [None, "", "[project", '[project]\nname = "theirs"\n', "project = 3\n"])
def test_our_folders_at_the_top_of_somebodys_repository_have_none(
    tmp_path: Path, project: str | None
) -> None:
    """As where they are vendored, or a Lambda layer is committed whole."""
    file = installed(tmp_path)
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)
    repository(tmp_path)
    assert commit_of(file) == ""


def test_variables_of_git_lead_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    file = installed(tmp_path / "wheel")
    shutil.copy(OWN.parents[2] / "pyproject.toml", tmp_path / "wheel")
    assert commit_of(file) == ""
