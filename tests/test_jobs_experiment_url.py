"""Addresses of servers: what may hold a secret is refused wherever one is given, and is never repeated."""

import copy
import traceback
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from tests.runs import tutelage, write_experiment
from tests.test_jobs_stages_ask import endpoint

SECRET = "hunter2"
SECRETIVE = [
    f"http://user:{SECRET}@127.0.0.1:9/v1",
    f"http://{SECRET}@127.0.0.1:9",
    f"https://:{SECRET}@host/v1",
    f"user:{SECRET}@host/v1",
    f"//user:{SECRET}@host/v1",
    f"http://user%3A{SECRET}%40host/v1",
    f"http://user:{SECRET}?@host/v1",
    f"http://user:{SECRET}#@host/v1",
    f"http://user:{SECRET}/x@host/v1",
    f"http://user\\:{SECRET}@host\\@other/v1",
    f"http://user:{SECRET}@host:port/v1",
    f"http://host/v1?api_key={SECRET}",
    f"http://host/v1?key={SECRET}#x",
    f"http://host/v1#{SECRET}",
]
NONE = ["", "host", "localhost:8000/v1", "ftp://host/v1", "http://", "http:///v1", "http://host:99999/v1"]
NONE += [
    "http://host /v1",
    "http://host/\nv1",
    "http://ho\tst/v1",
    "http://[::1/v1",
    "file:///v1",
    "http://h/v1?",
    "https://api.example.org/v1/chat/completions",
    "http://h:8000/v1/completions/",
    "https://api.example.org/v1/responses",
]
GOOD = ["http://127.0.0.1:8000/v1", "https://api.example.org/v1/", "http://[::1]:80", "HTTP://Host/a@b/v1"]


def trees(small_world: dict[str, Any], url: str) -> list[dict[str, Any]]:
    """An experiment with this address as its teacher's, and one with it as its judge's."""
    of_teacher = endpoint(copy.deepcopy(small_world), url, Path("m"))
    judge = {"name": "j", "base_url": url, "model": "m"}
    return [of_teacher, small_world | {"judge": judge, "verify": {"method": "judge"}}]


@pytest.mark.parametrize("url", SECRETIVE)
def test_an_address_with_a_secret_is_refused_without_repeating_it(
    small_world: dict[str, Any], url: str
) -> None:
    for tree in trees(small_world, url):
        with pytest.raises(BadInput, match="base_url: must") as told:
            parse_experiment(tree)
        assert SECRET not in "".join(traceback.format_exception(told.value))


@pytest.mark.parametrize("url", NONE)
def test_what_is_no_address_is_refused_before_anything_starts(small_world: dict[str, Any], url: str) -> None:
    for tree in trees(small_world, url):
        with pytest.raises(BadInput, match="base_url: must"):
            parse_experiment(tree)


@pytest.mark.parametrize("url", GOOD)
def test_an_address_of_host_port_and_path_is_taken_as_it_is(small_world: dict[str, Any], url: str) -> None:
    assert parse_experiment(trees(small_world, url)[0]).teachers[0].base_url == url  # type: ignore[union-attr]


def test_a_refused_address_is_written_nowhere(small_world: dict[str, Any], tmp_path: Path) -> None:
    """It was in experiment.yaml and in the report, for everybody to read."""
    tree = endpoint(small_world, SECRETIVE[0], Path("m")) | {"runs": str(tmp_path / "runs")}
    file = write_experiment(tree, tmp_path)
    for command in ("run", "plan"):
        done = tutelage(command, file)
        assert done.returncode != 0
        assert SECRET not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert path == file or path.is_dir() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://key:{SECRET}@bucket/store",
        f"s3://bucket/store?endpoint_override=key:{SECRET}@host:9000&scheme=http",
        f"s3://bucket/store?endpoint_override=key:{SECRET}%40host:9000",
        f"s3://key%3A{SECRET}%40bucket/store",
    ],
)
def test_a_store_with_a_secret_in_its_address_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(BadInput, match="a URI with a key in it") as told:
        Place(uri)
    assert SECRET not in str(told.value)
