"""The progress of a queue of trainings, as its metrics files tell it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.storage import Place
from tests.engine import job
from training import fitting
from training.data import Example, write_examples
from training.fitting import progress_of
from training.metrics import METRICS, read_metrics


def test_progress_counts_all_jobs_and_reads_the_one_under_way_alone(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tmp_path / "examples.arrow"
    write_examples(Place(str(examples)), [Example((1, 2, 3), 1, 3)] * 8)
    jobs = [job(f"job-{k}", tiny_model, examples, tmp_path, steps=4) for k in range(5)]
    jobs[1] = replace(jobs[1], until=2)  # an attempt that ends earlier
    read: list[str] = []
    told: list[tuple[int, int]] = []

    def reading(output: Place) -> list[dict[str, object]]:
        read.append(output.name)
        return read_metrics(output)

    monkeypatch.setattr(fitting, "read_metrics", reading)
    report = progress_of(jobs, lambda done, of: told.append((done, of)))

    def write(number: int, rows: int) -> None:
        place = tmp_path / f"job-{number}" / METRICS
        place.parent.mkdir(exist_ok=True)
        place.write_text("".join(json.dumps({"step": k + 1}) + "\n" for k in range(rows)))

    report()
    write(0, 3)
    report()
    write(0, 4)
    write(1, 2)
    write(2, 1)
    report()
    assert told == [(0, 18), (3, 18), (7, 18)]
    read.clear()
    report()
    assert read == ["job-2"]
    for number in (2, 3, 4):
        write(number, 4)
    report()
    report()
    assert told[-2:] == [(18, 18), (18, 18)]
    assert read == ["job-2", "job-2", "job-3", "job-4"]
