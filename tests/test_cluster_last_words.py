"""What an actor's process said last is in the error that tells of its death."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ShardFailed
from cluster.job import Job
from cluster.last_words import CHARACTERS, tail
from cluster.placement import Needs
from cluster.pool import ActorPool
from cluster.session import Cluster


def load_and_die(words: str) -> Callable[[Any], Any]:
    """A handler's loading that takes its process with it, as a library may that finds no device."""
    import os

    print(words, file=sys.stderr, flush=True)
    os._exit(3)


def load_and_leave(words: str) -> Callable[[Any], Any]:
    raise SystemExit(words)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (load_and_die, r"died 1 times while loading; got it said last: (.* \| )?no device of kind K"),
        (load_and_leave, "failed in loading; got .*SystemExit: no device of kind K"),
    ],
)
def test_an_actor_that_dies_while_loading_shows_its_last_words(
    ray_cluster: Cluster, make: Callable[[str], Callable[[Any], Any]], told: str
) -> None:
    with ActorPool(retries=0) as pool, pytest.raises(ShardFailed, match=told):
        list(pool.run([Job("scores", partial(make, "no device of kind K"), [("a", 1)], needs=Needs(1.0))]))


def test_the_tail_is_short_and_of_the_newest_log_of_that_process(tmp_path: Path) -> None:
    assert tail(tmp_path, 7) == ""
    (tmp_path / "worker-ab-01-7.err").write_text(":job_id:01\n:actor_name:Host\n\n")
    assert tail(tmp_path, 7) == ""
    lines = "".join(f"line {n}\n" for n in range(100_000))
    (tmp_path / "worker-ab-01-7.err").write_text(lines + "  é \n\n")
    (tmp_path / "worker-ab-01-17.err").write_text("another's\n")
    assert tail(tmp_path, 7) == "line 99997 | line 99998 | line 99999 | é"
    (tmp_path / "worker-ab-01-7.err").write_bytes(b"\xff" * 100_000)
    assert len(tail(tmp_path, 7)) == CHARACTERS
