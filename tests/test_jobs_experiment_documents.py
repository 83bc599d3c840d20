"""YAML as people, editors and attackers write it: what is no experiment is one line."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import BadInput
from jobs.doors.run_directory import claim_run_directory
from jobs.experiment.documents import plain_values
from jobs.experiment.parsing import load_experiment, parse_experiment, read_override, read_tree


def bomb(width: int, depth: int) -> str:
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * width)}]" for k in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got nothing"),
        (b"# nothing\n", "got nothing"),
        (b"null", "got nothing"),
        (b"- a\n- b\n", "got list"),
        (b"3", "got int"),
        (b"name: &x [1, *x]", "refers to itself"),
        (b"&x\nname: *x", "refers to itself"),
        (b"name: &x\n  a:\n    b: *x", "refers to itself"),
        (b"name: " + b"[" * 3000 + b"]" * 3000, "nested too deep"),
        (b"name: " + b"{a: " * 3000 + b"1" + b"}" * 3000, "nested too deep"),
        ("".join(f"{' ' * k}a:\n" for k in range(3000)).encode(), "nested too deep"),
        (bomb(9, 9).encode(), "holds too much"),
        (bomb(2, 40).encode(), "holds too much"),
        (b"name: a\nseed: 1\nname: b\n", "key twice; got name in line 3"),
        (b"train: {epochs: 1, epochs: 2}", "key twice; got epochs"),
        (b"name:\n\t- a\n", "not YAML"),
        (b"name: [a\n", "not YAML"),
        (b"name: *nobody", "not YAML"),
        (b"name: !!python/object/apply:os.system [ls]", "not YAML"),
        (b"name: a\n---\nname: b\n", "not YAML"),
        (b"[a]: b", "not YAML"),
        (b"seed: " + b"9" * 5000, "not YAML"),
        (b"name: 2001-99-99", "not YAML"),
        (b"1: a", "without a name"),
        ("name: ä".encode("latin-1"), "UTF-8"),
        ("name: a\n".encode("utf-16"), "UTF-16"),
        (bytes(range(256)), "UTF-8"),
        (b"name: a\x00b", "not YAML"),
        (b"#" * 10_000_001, "bytes"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_experiment_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "e.yaml").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_tree(tmp_path / "e.yaml", "experiment", "")


@pytest.mark.parametrize(
    "encode", [str.encode, lambda t: t.encode("utf-8-sig"), lambda t: t.replace("\n", "\r\n").encode()]
)
def test_a_file_reads_the_same_from_every_editor(
    tmp_path: Path, small_world: dict[str, Any], encode: Any
) -> None:
    plain = yaml.safe_dump(small_world)
    (tmp_path / "e.yaml").write_bytes(encode(plain))
    assert load_experiment(tmp_path / "e.yaml") == parse_experiment(small_world)


def test_aliases_and_merges_that_stand_for_little_are_read() -> None:
    text = "base: &b {x: 1, y: [1, 2]}\none: {<<: *b, x: 3}\ntwo: *b\n"
    assert plain_values(text, "it", "") == yaml.safe_load(text)


@pytest.mark.parametrize(
    "value",
    ["&x [*x]", "[" * 3000, "9" * 5000, "{a: 1, a: 2}", "[", "!!python/name:os.system"],
    ids=itertools.count(),
)
def test_a_value_on_the_command_line_is_read_as_carefully(value: str) -> None:
    with pytest.raises(BadInput, match="the value of name"):
        read_override(f"name={value}")


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "a long name", "below a file"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    places = {"a pipe": tmp_path / "pipe", "a device": Path("/dev/zero"), "a folder": tmp_path}
    places |= {"a long name": tmp_path / ("x" * 5000), "below a file": tmp_path / "file" / "e.yaml"}
    with pytest.raises(BadInput):
        load_experiment(places[kind])


@pytest.mark.parametrize("content", [b"[]", b"", b"name: &x [*x]", bytes(range(256)), b"null", b"a: 1\na: 2"])
def test_a_runs_saved_experiment_that_is_damaged_is_named_with_what_to_do(
    small_world: dict[str, Any], content: bytes
) -> None:
    experiment = parse_experiment(small_world)
    saved = Path(str(claim_run_directory(experiment))) / "experiment.yaml"
    saved.write_bytes(content)
    with pytest.raises(BadInput, match=str(saved)):
        claim_run_directory(experiment)
