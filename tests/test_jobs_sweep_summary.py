"""A sweep's results: honest differences, a best setting judged by other questions, a page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from jobs.report.sweep import render_sweep, write_sweep
from jobs.run.store import Store, write_table
from jobs.sweep.evaluations import choosing
from jobs.sweep.results import SweepResults, sweep_lines
from jobs.sweep.settings import expand_settings
from jobs.sweep.summary import summarise_sweep
from jobs.sweep.trial import Trial
from training.comparison import holm


def made(
    tmp_path: Path,
    small_world: dict[str, Any],
    effects: dict[float, float],
    seeds: int = 3,
    noise: float = 0.05,
) -> SweepResults:
    """Results of a sweep over lambda whose trials are right with these probabilities;
    the baseline with 0.5.
    """
    small_world["sweep"] = {"parameters": {"arm.lambda": list(effects)}, "seeds": seeds}
    e = parse_experiment(small_world)
    settings, store, rng, questions = expand_settings(e), Store(tmp_path / "s"), np.random.default_rng(1), 400
    trials = []
    luck = rng.random(questions)
    for setting in settings:
        chance = effects[dict(setting.values)["arm.lambda"]] if setting.values else 0.5
        for seed in range(seeds):
            stage = store.stage("evaluate", 1, {"s": setting.label, "seed": seed}, {})
            right = luck + rng.normal(0, noise, questions) < chance
            write_table(
                stage.part("p"),
                pd.DataFrame(
                    {"question_id": [f"q{i}" for i in range(questions)], "value": right.astype(float)}
                ),
            )
            stage.finish(["p"])
            trials.append(Trial(setting, seed, "finished", 1.0, {"kid": str(stage.directory)}))
    return summarise_sweep(e, settings, trials, ["mine.yaml", "train.epochs=1"])


def test_real_differences_are_named_chance_is_not_and_the_best_is_judged_by_other_questions(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    results = made(tmp_path, small_world, {0.0: 0.5, 0.25: 0.505, 0.5: 0.7, 1.0: 0.3})
    by_label = {r.setting.label: r for r in results.settings}
    assert by_label["lambda=0.5"].real
    assert by_label["lambda=1"].real
    assert not by_label["lambda=0"].real
    assert not by_label["lambda=0.25"].real
    assert results.best is not None
    assert results.best.setting.label == "lambda=0.5"
    assert results.best_against_baseline is not None
    assert results.best_against_baseline.questions == 200
    assert results.best_against_baseline.verdict.startswith("lambda=0.5 is better than strongest")
    assert (
        results.command == "tutelage run mine.yaml train.epochs=1 name=small-best seeds=3 arms.0.lambda=0.5"
    )
    lines = "\n".join(sweep_lines(results))
    assert "lambda=0.25" in lines
    assert "cannot be told from strongest" in lines
    page = render_sweep(results)
    assert page.count("<svg") == 1
    assert "arms.0.lambda=0.5" in page
    assert write_sweep(results, Place(str(tmp_path / "out"))).is_file()


def test_many_equal_settings_are_rarely_called_different(small_world: dict[str, Any], tmp_path: Path) -> None:
    results = made(tmp_path, small_world, {k / 20: 0.5 for k in range(20)}, seeds=1, noise=1.0)
    assert not any(r.real for r in results.settings)
    assert results.best is not None
    assert results.best_value is not None
    # the winner of twenty looks better to those that chose it
    assert results.best.choosing_value > 0.52 > results.best_value.value
    assert results.best_against_baseline is not None
    assert results.best_against_baseline.verdict.startswith("cannot tell")


def test_the_questions_that_choose_are_a_part_and_do_not_hang_on_the_order() -> None:
    ids = [f"q{i}" for i in range(100)]
    assert choosing(ids, 0.3) == choosing(ids[::-1], 0.3)
    assert len(choosing(ids, 0.3)) == 30
    assert len(choosing(["a", "b"], 0.99)) == 1


def test_holm_adds_nothing_to_one_and_keeps_order() -> None:
    assert holm([0.04]) == [0.04]
    adjusted = holm([0.2, 0.001, 0.04])
    assert adjusted == [0.2, 0.003, 0.08]
