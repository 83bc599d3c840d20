"""Where results go is looked at before the work: what cannot be written, and what is read."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster import destinations
from cluster.destinations import check_out_file, check_out_folder
from cluster.errors import BadInput
from jobs.commands import app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("check", [check_out_file, check_out_folder])
@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 250, "a/" + "x" * 300, "x/" * 3000, "file/out", "file/a/b/out", "pipe"]
)
def test_what_cannot_be_written_is_refused(folder: Path, check: Callable[[Path], None], name: str) -> None:
    with pytest.raises(BadInput, match="--out"):
        check(folder / name)


def test_a_folder_is_no_file_and_a_file_no_folder(folder: Path) -> None:
    with pytest.raises(BadInput, match="is a directory"):
        check_out_file(folder / "folder")
    with pytest.raises(BadInput, match="is a file"):
        check_out_folder(folder / "file")
    check_out_file(folder / "file")
    check_out_file(folder / "new" / "below" / "out.jsonl")
    check_out_folder(folder / "folder")
    check_out_folder(folder / "new" / "below")


def test_a_folder_that_nobody_may_write_into_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations.os, "access", lambda place, mode: False)
    for check, name in ((check_out_folder, "folder"), (check_out_folder, "new"), (check_out_file, "new")):
        with pytest.raises(BadInput, match="permissions"):
            check(folder / name)


@pytest.mark.parametrize("name", ["read.jsonl", "./folder/../read.jsonl", "symbolic", "hard", "folder/back"])
def test_a_file_that_is_read_is_not_written_under_any_of_its_names(folder: Path, name: str) -> None:
    read = folder / "read.jsonl"
    read.write_text("{}")
    (folder / "symbolic").symlink_to(read)
    os.link(read, folder / "hard")
    (folder / "folder" / "back").symlink_to("../symbolic")
    with pytest.raises(BadInput, match="what is read"):
        check_out_file(folder / name, [read])


def test_a_folder_that_is_read_is_not_written_into(folder: Path) -> None:
    (folder / "other").symlink_to(folder / "folder")
    for name in ("folder", "other", "folder/../other/."):
        with pytest.raises(BadInput, match="folder that is read"):
            check_out_folder(folder / name, [folder / "folder"])
    with pytest.raises(BadInput, match="what is read"):
        check_out_file(folder / "other" / "audit.json", [folder / "folder"])


@pytest.mark.parametrize("same", ["answers.jsonl", "./answers.jsonl", "link.jsonl"])
def test_verify_leaves_the_users_file_as_it_is(tmp_path: Path, same: str) -> None:
    """`--out` equal to `--answers` replaced the user's only copy."""
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"answer": "4", "reference": "4"}) + "\n")
    (tmp_path / "link.jsonl").symlink_to(answers)
    before = answers.read_bytes()
    done = CliRunner().invoke(app, ["verify", "--answers", str(answers), "--out", str(tmp_path / same)])
    assert isinstance(done.exception, BadInput)
    assert answers.read_bytes() == before


@pytest.mark.parametrize("command", ["score", "select", "audit"])
def test_no_command_writes_into_the_folder_that_it_reads(tmp_path: Path, command: str) -> None:
    (tmp_path / "big.jsonl").write_text("{}\n")
    given = ["--scores" if command == "select" else "--answers", str(tmp_path)]
    given += [] if command == "select" else ["--student", "nowhere"]
    out = tmp_path / "audit.json" if command == "audit" else tmp_path
    done = CliRunner().invoke(app, [command, *given, "--out", str(out)])
    assert isinstance(done.exception, BadInput)
    assert "read" in str(done.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.jsonl"]
