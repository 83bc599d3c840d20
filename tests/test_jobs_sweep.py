"""Sweeps: settings known beforehand, one pool for all trials, a killed driver, a failed trial."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from cluster.errors import BadInput
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import begin, look
from jobs.report.sweep import render_sweep
from jobs.results.outcome import Outcome
from jobs.sweep.scheduler import _sparing_references
from jobs.sweep.settings import Setting, expand_settings, experiment_of
from jobs.sweep.summary import summarise_sweep
from jobs.sweep.trial import Trial
from jobs.sweep.tune import by_trial
from jobs.systems.paths import paths_of
from jobs.systems.select import SYSTEM
from tests.fault_proxy import FaultProxy
from tests.runs import open_here

ROOT = Path(__file__).resolve().parents[1]
KEY = "sk-a-secret-that-must-appear-nowhere-7261"


def test_settings_are_the_whole_grid_for_every_draw_and_the_same_each_time(
    small_world: dict[str, Any],
) -> None:
    small_world["sweep"] = {
        "parameters": {
            "arm.lambda": [0.0, 0.5],
            "train.learning_rate": {"loguniform": [1e-4, 1e-2]},
            "arm.groups": {"choice": [2, 3]},
        },
        "samples": 3,
    }
    settings = expand_settings(parse_experiment(small_world))
    assert settings[0] == Setting("strongest")
    drawn = [dict(s.values) for s in settings[1:]]
    assert len(drawn) == 6
    assert [d["arm.lambda"] for d in drawn] == [0.0, 0.5] * 3
    rates = [d["train.learning_rate"] for d in drawn]
    assert rates[0] == rates[1] != rates[2]  # a draw is tried with the whole grid
    assert all(1e-4 <= r <= 1e-2 for r in rates)
    assert expand_settings(parse_experiment(small_world)) == settings
    assert expand_settings(parse_experiment({**small_world, "seed": 1})) != settings
    tried = experiment_of(parse_experiment(small_world), settings[1])
    assert [(a.name, a.scas_lambda, a.groups) for a in tried.arms] == [("scas", 0.0, drawn[0]["arm.groups"])]
    assert tried.train.learning_rate == rates[0]


def test_a_whole_arm_can_be_swept(small_world: dict[str, Any]) -> None:
    small_world["sweep"] = {"parameters": {"arm": [{"rule": "random"}, {"rule": "minimum", "cost": "rsr"}]}}
    e = parse_experiment(small_world)
    arms = [experiment_of(e, s).arms[0] for s in expand_settings(e)[1:]]
    assert [(a.name, a.rule, a.cost) for a in arms] == [("scas", "random", None), ("scas", "minimum", "rsr")]
    settings = expand_settings(e)
    failed = [Trial(s, 0, "failed", 0.0, {}, "why not") for s in settings]
    results = summarise_sweep(e, settings, failed, ["mine.yaml"])
    assert len({r.setting for r in results.settings}) == 3
    page = render_sweep(results)
    assert page.count("why not") >= 3
    assert "nothing is compared" in page


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"store": ["a", "b"]}, "store cannot be swept"),
        ({"arms.0.lambda": [0.1]}, "arms.0.lambda cannot be swept"),
        (
            {"arm.lamda": [0.1]},
            r"setting lamda=0.1 is no valid experiment.*unknown key arms.0.lamda.*did you mean lambda",
        ),
        ({"arm.lambda": [0.1, 7]}, r"setting lambda=7 is no valid experiment.*less than or equal to 1"),
        ({"train.rate": [1]}, "unknown key train.rate"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_before_anything_starts(
    small_world: dict[str, Any], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        expand_settings(parse_experiment({**small_world, "sweep": {"parameters": parameters}}))


@pytest.mark.parametrize(
    "draw", [{"uniform": [1, 0]}, {"loguniform": [0, 1]}, {"uniform": [0, 1], "randint": [0, 3]}, {}]
)
def test_a_random_value_that_cannot_be_drawn_is_refused(
    small_world: dict[str, Any], draw: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match=r"sweep\.parameters\.arm\.lambda"):
        parse_experiment({**small_world, "sweep": {"parameters": {"arm.lambda": draw}}})


class Sweep:
    """A sweep in a process of its own whose environment holds a key, watched: is the key in anybody's command
    line?
    """

    def __init__(self, file: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        command = [sys.executable, "-m", "jobs", "--debug", "sweep", str(file)]
        pipe = subprocess.PIPE
        environment = {**kept, "FAR_KEY": KEY}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )
        self.shown: list[str] = []
        self.said: list[str] = []
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.shown += [entry.as_posix()] if KEY.encode() in entry.read_bytes() else []
            time.sleep(0.3)  # looks at the process table until the sweep ends

    def read(self, until: str | None = None) -> int:
        """Read what it says up to its end, or kill it once it says this; returns its exit status."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if until is not None and until in line:
                self.process.kill()
        status = self.process.wait()  # its output has ended
        self.watcher.join()
        return status

    @property
    def output(self) -> str:
        return "".join(self.said)

    @property
    def logs(self) -> Path:
        return Path(self.output.partition("workers' logs: ")[2].partition("\n")[0])


def parts(store: Path, stage: str) -> dict[str, int]:
    """Every part of a stage with its inode: a part that is made again is another file."""
    return {p.as_posix(): p.stat().st_ino for p in (store / "tables" / stage).glob("*/*.parquet")}


@pytest.mark.ray
def kill_in_its_first_trial(file: Path, store: Path) -> Sweep:
    """A sweep whose driver is killed when something has been scored and trained."""
    sweep = Sweep(file)
    assert sweep.read(until=" after 1 rounds") == -signal.SIGKILL, sweep.output
    assert parts(store, "statistics")
    assert list(store.glob("train/*/model/model.safetensors"))
    return sweep


@pytest.mark.long
@pytest.mark.parametrize("is_killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_sweep_asks_nobody_twice_gives_failed_trials_a_row_shows_no_key_and_goes_on_when_it_is_killed(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, is_killed: bool
) -> None:
    proxy = FaultProxy("http://127.0.0.1:9", [], after="500")  # every answer repeats the key it was sent
    far = {
        "kind": "endpoint",
        "name": "far",
        "base_url": proxy.url,
        "model": "m",
        "api_key_env": "FAR_KEY",
        "max_retries": 0,
    }
    tree = small_world | {
        "teachers": [
            *small_world["teachers"],
            {"kind": "model", "name": "dan", "path": str(tiny_model)},
            far,
        ],
        "generate": {"max_new_tokens": 24},
        "evaluate": {"metric": "loss"},
        "placement": {"max_failures": 0},
        "sweep": {"parameters": {"arm.lambda": [0.0], "arm.threshold": [None, -1000.0]}},
    }
    file, store = tmp_path / "sweep.yaml", tmp_path / "store"
    file.write_text(yaml.safe_dump(tree))
    sweeps = [kill_in_its_first_trial(file, store)] if is_killed else []
    shared = {stage: parts(store, stage) for stage in ("answers", "verdicts", "statistics")}
    trained = {p: p.stat().st_ino for p in store.glob("train/*/model/model.safetensors")}
    again = Sweep(file)
    sweeps.append(again)
    assert again.read() == 0, again.output
    proxy.close()
    assert ("continuing the sweep" in again.output) == is_killed
    # nothing was asked, verified or scored again: tables that were there have the parts that they had
    after = {kind: parts(store, kind) for kind in shared}
    tables = {Path(path).parent for known in shared.values() for path in known}
    kept = {kind: {p: i for p, i in own.items() if Path(p).parent in tables} for kind, own in after.items()}
    assert kept == shared
    assert len(proxy.seen) == 24
    assert {p: p.stat().st_ino for p in trained} == trained
    table = pd.read_parquet(tmp_path / "runs" / "small-sweep" / "trials.parquet")
    assert len(table) == 3
    failed = table[table["arm.threshold"] == -1000.0]
    assert failed["state"].tolist() == ["failed"]
    assert failed["error"].str.contains("chose no answer at all").all()
    rest = table[table["arm.threshold"].isna()]
    assert set(rest["state"]) == {"finished"}
    assert rest["value"].notna().all()
    assert list((tmp_path / "runs" / "small-sweep" / "tune").glob("trial-*/events.out.tfevents*"))
    assert (tmp_path / "runs" / "small-sweep" / "report.html").read_text().count("<svg") == 2
    # The key was sent with every call and echoed, and is in no command line, file or log.
    assert all(KEY in h["authorization"] for h in proxy.headers)
    assert not any(sweep.shown or KEY in sweep.output for sweep in sweeps)
    assert len(list(again.logs.iterdir())) > 5
    folders = [store, tmp_path / "runs", *(sweep.logs for sweep in sweeps)]
    places = [place for folder in folders for place in folder.rglob("*")]
    assert [p for p in places if p.is_file() and KEY.encode() in p.read_bytes()] == []


@pytest.mark.long
def test_arms_and_seeds_are_swept_and_changed_data_starts_the_trials_again(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    held_out = tmp_path / "held-out.jsonl"
    lines = Path(small_world["questions"]["evaluate"]).read_text().splitlines()
    held_out.write_text("\n".join(lines[:8]) + "\n")
    ways = [{"rule": "random"}, {"rule": "minimum", "cost": "naturalness"}]
    tree = small_world | {
        "questions": {**small_world["questions"], "evaluate": str(held_out)},
        "arms": [small_world["arms"][0]],
        "train": {**small_world.get("train", {}), "steps": 1},
        "evaluate": {"metric": "loss"},
        "sweep": {"parameters": {"arm": ways, "seed": [1, 2]}},
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(tree))
    first = Sweep(file)
    assert first.read() == 0, first.output
    assert "on 8 held-out questions" in first.output
    table = pd.read_parquet(tmp_path / "runs" / "small-sweep" / "trials.parquet")
    assert table["state"].tolist() == ["finished"] * 4, table["error"].tolist()
    assert set(table["seed"]) == {0}
    tried = [
        ("random" in arm, seed) for arm, seed in zip(table["swept arm"], table["swept seed"], strict=True)
    ]
    assert sorted(tried) == [(False, 1), (False, 2), (True, 1), (True, 2)]
    held_out.write_text("\n".join(lines[:6]) + "\n")
    again = Sweep(file)
    assert again.read() == 0, again.output
    assert "data, a check or a model has changed since" in again.output
    assert "on 6 held-out questions" in again.output


def test_the_record_of_a_trial_that_tune_started_again_is_found_under_its_name() -> None:
    """Its folder has a suffix, because the failed one's is there."""
    place = "evaluation kid"
    ended = [
        SimpleNamespace(path="/t/tune/trial-0001", metrics=None, error=ValueError("at first")),
        SimpleNamespace(path="/t/tune/trial-0001_1985", metrics={"rounds": 1.0, place: "e"}, error=None),
        SimpleNamespace(path="/t/tune/trial-0000", metrics={"rounds": 1.0, place: "d"}, error=None),
    ]
    found = by_trial(ended)
    assert [found[name].metrics[place] for name in ("0000", "0001")] == ["d", "e"]
    assert by_trial(ended[::-1])["0001"].error is None


def test_a_training_that_stops_after_every_epoch_ends_where_an_undisturbed_one_does(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """What `report_every: epoch` does, in this process."""
    tree = small_world | {
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
        "evaluate": {"metric": "loss"},
    }
    said: list[float] = []
    values: list[pd.Series[float]] = []
    for by_epoch in (True, False):
        own = tree | {"store": str(tmp_path / f"store-{by_epoch}")}
        with open_here(own, tmp_path) as here:
            start = begin(here, look(here, parse_experiment(own)))
            paths = paths_of(start.experiment)[:1]
            outcome = Outcome(start, paths)
            SYSTEM.teach(here, start, outcome, paths, lambda rounds, _: said.append(rounds), by_epoch)
            values.append(outcome.rounds[paths[0], 1].evaluation.read()["value"])
    assert said == [0.5, 1.0, 1.0]
    assert values[0].tolist() == pytest.approx(values[1].tolist(), abs=1e-6)
    assert not list(tmp_path.glob("store-*/train/*/step-*"))  # finished ones let their epochs go
    assert not list(tmp_path.glob("store-*/train/*/PAUSED-*"))


def test_the_scheduler_stops_weak_settings_early_and_never_a_reference() -> None:
    from types import SimpleNamespace

    scheduler = _sparing_references(max_t=3, grace_period=1, reduction_factor=3)
    scheduler.set_search_properties("value", "max")
    said = []
    for k, (value, is_reference) in enumerate(
        [(0.5, False), (0.6, False), (0.7, False), (0.1, False), (0.1, True)]
    ):
        trial = SimpleNamespace(
            trial_id=str(k), config={"trial": {"values": "[]" if is_reference else "[[1, 2]]"}}
        )
        scheduler.on_trial_add(None, trial)
        said.append(scheduler.on_trial_result(None, trial, {"training_iteration": 1, "value": value}))
    assert said == ["CONTINUE", "CONTINUE", "CONTINUE", "STOP", "CONTINUE"]
