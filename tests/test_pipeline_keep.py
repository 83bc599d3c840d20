"""Which weights stay, what a run took, and what a plan says of rows that cannot be used."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import run_pipeline
from jobs.plan import make_plan, notes
from jobs.results.summary import summarise
from jobs.results.usage import usage_table
from jobs.run.progress import Terminal
from jobs.run.run import Run
from jobs.run.store import Store
from jobs.stages import evaluate
from jobs.stages.states import ModelState
from tests.conftest import make_small_world
from tests.in_process import InProcess
from tests.runs import open_here, run, tutelage, write_experiment


def two_rounds(small_world: dict[str, Any], **changes: Any) -> dict[str, Any]:
    arms = [{"name": "scas", "rule": "minimum", "cost": "scas"}]
    train = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
    small = {"arms": arms, "rounds": 2, "limit": 8, "train": train, "evaluate": {"metric": "loss"}}
    return small_world | small | changes


def weights_of(done: Run, number: int) -> Path:
    return done.stages["train", f"kid scas seed 0 round {number}"].directory.path / "model"


@pytest.mark.long
def test_the_last_rounds_weights_stay_and_the_others_are_made_again_when_they_are_needed(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    everything = two_rounds(small_world, store=str(tmp_path / "all"))
    whole, _ = run(everything, tmp_path)
    assert weights_of(whole, 1).is_dir()
    tree = two_rounds(small_world, keep="last")
    fewer = tree | {"questions": {**tree["questions"], "evaluate_rows": "0:7"}}
    done, _ = run(fewer, tmp_path)
    assert not weights_of(done, 1).exists()
    assert weights_of(done, 2).is_dir()
    with open_here(tree, tmp_path, mode="plan") as plan:
        rows = {row.stage: row for row in make_plan(plan, parse_experiment(tree))}
    assert rows["train, all rounds"].cached == "1 of 2"
    assert not weights_of(done, 1).exists()
    again, outcome = run(tree, tmp_path)  # more held-out questions
    assert isinstance(again.host, InProcess)
    assert again.host.trained == [done.stages["train", "kid scas seed 0 round 1"].id]
    assert not weights_of(done, 1).exists()
    assert len(list(outcome.evaluated())) == 2
    other_losses = tree | {"keep": "all", "score": {"max_length": 4000}}
    kept, _ = run(other_losses, tmp_path)
    one, other = (load_file(weights_of(r, 1) / "model.safetensors") for r in (whole, kept))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("judged", "stays"), [((-3.0, -1.0, -2.0), 2), ((-1.0, -1.0, -2.0), 1)], ids=["best", "earlier of equals"]
)
def test_the_best_rounds_weights_stay(
    small_world: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    judged: tuple[float, ...],
    stays: int,
) -> None:
    """The values are given: which round of a training comes out best hangs on how a processor rounds."""
    read_off = evaluate._losses
    values = {f"kid scas seed 0 round {number}": value for number, value in enumerate(judged, 1)}

    def given(run: Run, students: Mapping[str, ModelState], *rest: Any) -> dict[str, evaluate.StudentResults]:
        found = read_off(run, students, *rest)
        return {n: replace(j, table=j.table.assign(value=values.get(n, -4.0))) for n, j in found.items()}

    monkeypatch.setattr(evaluate, "_losses", given)
    done, outcome = run(two_rounds(small_world, keep="best", rounds=3), tmp_path)
    assert [s.manifest()["counts"]["value"] for *_, s in outcome.evaluated()] == list(judged)
    kept = [weights_of(done, number).is_dir() for number in (1, 2, 3)]
    assert kept == [number == stays for number in (1, 2, 3)]


def test_weights_that_another_run_names_stay(small_world: dict[str, Any], tmp_path: Path) -> None:
    other, _ = run(two_rounds(small_world, rounds=1), tmp_path)
    store, elsewhere = Store(small_world["store"]), Place(str(tmp_path / "elsewhere"))
    with Run(store, elsewhere, Terminal(), InProcess()) as here:
        run_pipeline(here, parse_experiment(two_rounds(small_world, keep="last")))
    assert weights_of(here, 1) == weights_of(other, 1)
    assert weights_of(here, 1).is_dir()


def test_a_run_tells_what_it_had_made_from_what_it_found(small_world: dict[str, Any], tmp_path: Path) -> None:
    tree = two_rounds(small_world, evaluate={"max_new_tokens": 160})
    done, _ = run(tree, tmp_path)
    first = usage_table(done).set_index("stage")
    assert {"verify", "score", "train", "evaluate", "all"} <= set(first.index)
    here, ever = first["CPU-seconds, this run"], first["CPU-seconds, when made"]
    assert (here == ever).all()
    assert (here > 0).all()
    assert ever["all"] == pytest.approx(ever.drop("all").sum())
    again, _ = run(tree, tmp_path)  # another attempt of the same run, which has nothing to do
    assert usage_table(again).set_index("stage").equals(first)
    with Run(Store(tree["store"]), Place(str(tmp_path / "b")), Terminal(), InProcess()) as other:
        results = summarise(other, run_pipeline(other, parse_experiment(tree)))
    found = results.spent.set_index("stage")
    assert (found["CPU-seconds, this run"] == 0).all()
    assert found["CPU-seconds, when made"].equals(ever)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """The experiment of a finished run in which a hosted teacher drew its answers."""
    folder = tmp_path_factory.mktemp("drawn")
    world = make_small_world(folder, tiny_model)
    dan = {"kind": "model", "name": "dan", "path": str(tiny_model)}
    generate = {"temperature": 1.0, "max_new_tokens": 2}
    tree = two_rounds(world, rounds=1, teachers=[*world["teachers"], dan], generate=generate)
    run(tree, folder)
    return tree


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"temperature": 0.5}, "generate dan: temperature was 1.0, is 0.5"),
        ({"temperature": 0.0}, "seed was 0, is not given, temperature was 1.0, is not given"),
        (
            {"max_new_tokens": 30},
            "generate dan: 8 existing rows cannot be used: they were cut off at another token limit",
        ),
        ({"top_p": 1.0}, ""),
    ],
)
def test_a_plan_says_why_rows_that_are_there_cannot_be_used(
    drawn: dict[str, Any], tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    other = drawn | {"generate": drawn["generate"] | changed}
    with open_here(other, tmp_path, mode="plan") as plan:
        make_plan(plan, parse_experiment(other))
        said = "\n".join(notes(plan))
    assert (told in said) if told else said == ""


def test_a_plan_tells_of_a_store_of_the_older_layout(small_world: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "store" / "generate" / "0123456789abcdef01234567").mkdir(parents=True)
    said = tutelage("plan", write_experiment(small_world, tmp_path)).stdout
    assert "also holds generate of an older layout: not migrated, and not used" in " ".join(said.split())
