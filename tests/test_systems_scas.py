"""Arms on a budget of tokens, and what a run publishes of its evaluations, in one small run."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cluster.storage import Place
from jobs.experiment.study import Study
from jobs.results.judged import Judged
from jobs.results.summary import summarise, verdict_lines, write_results
from jobs.results.trained import token_lines
from jobs.results.values import as_parquet, interval_of, pool_of, values_from
from jobs.stages.train import EXAMPLES
from jobs.study.comparisons import corrected
from jobs.study.parts import Cell
from jobs.study.published import compared_again, published
from jobs.study.running import Found
from jobs.study.summary import study_lines
from jobs.study.tables import part_tables, result_of
from tests.runs import run
from training.data import Examples
from training.settings import TrainSettings, identity_of, with_steps

BUDGET = 2_000
STUDY = {"name": "s", "experiment": {}, "parts": {"p": {"arms": [{"name": "r", "rule": "random"}]}}}


@pytest.mark.long
def test_arms_learn_from_equally_many_tokens_and_a_run_s_values_give_its_intervals_again(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """The teacher `cat` is wordy, and `ann` and `bob` are right about as often as each other."""
    single = [{"name": f"only {t}", "rule": "teacher", "teacher": t} for t in ("ann", "bob", "cat")]
    arms = [{"name": "strongest", "rule": "strongest"}, *single]
    changes = {"train": {"tokens": BUDGET, "batch_size": 4, "learning_rate": 1e-3}, "seeds": 2}
    done, outcome = run(small_world, tmp_path, arms=arms, evaluate={"metric": "loss"}, **changes)
    steps = {}
    for (path, number), own in outcome.rounds.items():
        stage = own.trained
        examples = Examples(outcome.rounds[path, number].examples.part(EXAMPLES))
        a_step = 4 * float(examples.loss_tokens.mean())
        counts = stage.manifest()["counts"]
        assert abs(counts["steps"] * a_step - BUDGET) <= a_step / 2
        assert counts["answer_tokens"] == pytest.approx(BUDGET, rel=0.25)
        steps[path.arm.name] = counts["steps"]
    assert steps["only cat"] < steps["only ann"]

    coarse = run(
        small_world | {"name": "coarse"},
        tmp_path,
        arms=arms[:3],
        train={"tokens": 300, "batch_size": 8, "learning_rate": 1e-3},
        evaluate={"metric": "loss"},
    )
    (line,) = token_lines(coarse[1])
    assert line.startswith("answer tokens that a training took in the mean, for train.tokens 300: ")
    took = {p.arm.name: own.trained.manifest()["counts"] for (p, _), own in coarse[1].rounds.items()}
    assert all(f"{arm} {c['answer_tokens']:,.0f}" in line for arm, c in took.items())

    results = summarise(done, outcome)
    assert results.strongest["teacher"].iloc[0] == "ann"
    twins = results.strongest["teacher"][results.strongest["is_strongest"]].tolist()
    assert "bob" in twins
    assert "cat" not in twins  # wrong for every third question
    assert {(arm, c.against) for _, arm, c in results.comparisons if arm == "only cat"} == {
        ("only cat", "strongest"),
        ("only cat", "only bob"),
    }
    assert any("not told from it by these questions: bob" in line for line in verdict_lines(results))

    write_results(published(results), Place(str(tmp_path)))
    of_file = compared_again(tmp_path / "questions.parquet")["comparisons"]
    assert len(of_file) == len(results.comparisons) > len(arms)
    for (student, arm, c), row in zip(results.comparisons, of_file.to_dict("records"), strict=True):
        assert (student, arm, c.against, c.verdict.partition(" (taken")[0]) == tuple(
            row[key] for key in ("student", "arm", "against", "verdict")
        )
        assert (c.difference.low, c.difference.high, c.p_value) == pytest.approx(
            (row["low"], row["high"], row["p"]), nan_ok=True
        )
    told = json.loads((tmp_path / "results.json").read_text())
    rows = pd.read_parquet(tmp_path / "questions.parquet")
    assert rows["round"].unique().tolist() == [0, 1]
    values = values_from(rows, "loss")
    pool = pool_of([values])
    assert pool.freedom == len(arms) - 1  # the strongest teacher is ann: two names of one training
    for arm in told["arms"]:
        if arm["arm"] != "in hindsight":
            again = interval_of(values, (arm["student"], arm["arm"]), pool)
            assert (again.value, again.low, again.high) == pytest.approx(
                tuple(arm["value"][key] for key in ("value", "low", "high"))
            )
    # a loss is per token of all references together, as the slow way adds them up
    own = rows[rows["arm"] == "only cat"]
    expected = (own["value"] * own["tokens"]).sum() / own["tokens"].sum()
    assert Judged(outcome).last.mean(("kid", "only cat")) == pytest.approx(expected)
    assert len(pd.read_parquet(io.BytesIO(as_parquet(results.values)))) == len(rows)

    cell = Cell("p", (), (), outcome.start.experiment)
    part = part_tables([result_of(cell, outcome, ["only ann"])])
    table = corrected(part.comparisons)
    assert table["against"].unique().tolist() == ["strongest", "only bob", "only ann"]
    of_run = {(arm, c.against): c.difference for _, arm, c in results.comparisons}
    for row in table[table["against"] != "only ann"].to_dict("records"):
        d = of_run[row["arm"], row["against"]]
        # two arms that took the same answers have no interval
        told = pytest.approx((d.value, d.low, d.high), nan_ok=True)
        assert (row["difference"], row["low"], row["high"]) == told
    assert part.strongest["is_strongest"].sum() == 2
    assert set(part.pairs["lineage"]) == {"ann", "bob", "cat"}
    lines = list(study_lines(Found(Study.model_validate(STUDY), {"p": replace(part, comparisons=table)})))
    assert any("not told from it: bob" in line for line in lines)


def test_a_budget_has_become_steps_before_a_training_has_an_identity() -> None:
    """So trainings of before keep theirs, and so many steps are one training however they were said."""
    settings = TrainSettings(tokens=1000, batch_size=8)
    assert identity_of(with_steps(settings, 25.0)) == identity_of(TrainSettings(steps=5, batch_size=8))
    assert "tokens" not in identity_of(TrainSettings())
    assert with_steps(settings, 1e6).steps == 1
    assert np.isclose(
        with_steps(TrainSettings(tokens=10**6, batch_size=1), 3.0).steps or 0, 10**6 / 3, atol=1
    )
