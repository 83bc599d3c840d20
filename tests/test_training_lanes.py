"""How trainings are dealt to worker groups that train side by side."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.models.loading import ModelSource
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.run.progress import Terminal
from jobs.run.run import Run
from jobs.stages.train import run_queue
from training.data import Example, write_examples
from training.job import DONE, TrainJob
from training.settings import TrainSettings
from training.trainer import dealt


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = Place(str(tmp_path_factory.mktemp("lanes") / "examples.arrow"))
    write_examples(place, [Example((1, 2, 3), 1, 3)])
    return str(place)


def job(k: int, steps: int, start: str, examples: str, folder: str = "/nowhere") -> TrainJob:
    settings = TrainSettings(steps=steps)
    return TrainJob(f"j{k}", ModelSource(start), examples, f"{folder}/{k}", 0, settings)


@given(st.lists(st.tuples(st.integers(1, 700), st.integers(-2, 30)), max_size=24), st.integers(1, 9))
def test_every_job_is_dealt_once_after_what_it_starts_from_and_no_lane_waits_long(
    examples: str, drawn: list[tuple[int, int]], lanes: int
) -> None:
    jobs: list[TrainJob] = []
    for k, (steps, before) in enumerate(drawn):
        what = "model" if steps % 2 else f"step-{steps}"
        start = f"/nowhere/{before % k}/{what}" if k and before >= 0 else "/nowhere/init/model"
        jobs.append(job(k, steps, start, examples))
    shares = dealt(jobs, lanes)
    assert sorted(j.job_id for share in shares for j in share) == sorted(j.job_id for j in jobs)
    assert len(shares) <= lanes
    assert all(shares) or not jobs
    outputs = {j.output for j in jobs}
    for share in shares:
        there: set[str] = set()
        for j in share:
            base = j.source.path.rpartition("/")[0]
            assert base in there or base not in outputs
            there.add(j.output)
    # A lane is longer than an even share by no more than the longest chain, which is one that was dealt last.
    totals = [sum(j.steps for j in share) for share in shares]
    chains: dict[str, int] = {}
    first: dict[str, str] = {}
    for j in jobs:
        base = j.source.path.rpartition("/")[0]
        first[j.output] = first.get(base, j.output)
        chains[first[j.output]] = chains.get(first[j.output], 0) + j.steps
    if jobs:
        assert max(totals) <= sum(totals) / len(shares) + max(chains.values())


def test_equally_long_jobs_go_round_and_long_ones_stand_alone(examples: str) -> None:
    equal = [job(k, 5, "/nowhere/init/model", examples) for k in range(5)]
    assert [[j.job_id for j in share] for share in dealt(equal, 2)] == [["j0", "j2", "j4"], ["j1", "j3"]]
    mixed = [job(k, steps, "/nowhere/init/model", examples) for k, steps in enumerate((1, 9, 3, 5))]
    assert [[j.job_id for j in share] for share in dealt(mixed, 2)] == [["j1"], ["j3", "j2", "j0"]]


def test_what_is_done_already_does_not_move_the_others(examples: str, tmp_path: Path) -> None:
    """A lane whose jobs were done made one lane of two, and the other's checkpoints were not found again."""
    jobs = [job(k, 5 + k, "/nowhere/init/model", examples, str(tmp_path)) for k in range(4)]
    before = dealt(jobs, 2)
    for j in before[0]:
        Place(j.output).path.mkdir()
        (Place(j.output) / DONE).write_bytes(b"{}")
    assert all(j.is_done for j in before[0])
    assert dealt(jobs, 2) == before


def test_a_pause_moves_nobody(examples: str) -> None:
    """Dealt by the steps of an attempt, a job went to another lane for the next, and began anew."""
    steps = (3, 3, 3, 9)
    jobs = [job(k, n, "/nowhere/init/model", examples) for k, n in enumerate(steps)]
    paused = [replace(j, until=2) for j in jobs]
    both = (dealt(jobs, 2), dealt(paused, 2))
    lanes = [[[j.job_id for j in share] for share in shares] for shares in both]
    assert lanes[0] == lanes[1] == [["j3"], ["j0", "j1", "j2"]]


def test_a_run_that_is_to_begin_anew_forgets_the_checkpoints_of_every_lane(
    examples: str, tmp_path: Path
) -> None:
    jobs = [job(k, 3, "/nowhere/init/model", examples, str(tmp_path / "out")) for k in range(2)]
    begun: list[str] = []
    host = SimpleNamespace(train=lambda jobs, name, *rest: begun.append(name))
    run = SimpleNamespace(
        host=host, store=SimpleNamespace(root=Place(str(tmp_path))), terminal=Terminal(), resume="auto"
    )
    run_queue(cast(Run, run), jobs, Placement())
    (name,) = begun
    kept = [tmp_path / "checkpoints" / n for n in (name, f"{name}-0-2", f"{name}-1-2", "queue-other")]
    for folder in kept:
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(b"x")
    run_queue(cast(Run, run), jobs, Placement())
    assert all(folder.exists() for folder in kept)
    run.resume = "never"
    run_queue(cast(Run, run), jobs, Placement())
    assert [folder.exists() for folder in kept] == [False, False, False, True]


def test_names_without_folders_and_models_many_start_from_make_no_chain(examples: str) -> None:
    jobs = [job(k, 3, start, examples) for k, start in enumerate(("some/model", "some/model", "model", "/m"))]
    jobs.append(replace(jobs[0], job_id="j9", output="/nowhere/9"))
    assert sorted(len(share) for share in dealt(jobs, 8)) == [1, 1, 1, 1, 1]
