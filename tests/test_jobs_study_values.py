"""What a study tells of one run's paths."""

from pathlib import Path
from typing import Any

from jobs.results.judged import Judged
from jobs.study.tables import values_table
from tests.runs import run


def test_weighted_answers_have_a_number_of_tokens_too(small_world: dict[str, Any], tmp_path: Path) -> None:
    """Weights by margin are no whole numbers. They ended a study after its last training."""
    arm = {"name": "kin", "rule": "top_k", "cost": "naturalness", "k": 2, "weights": "margin"}
    _, outcome = run(small_world, tmp_path, arms=[arm], evaluate={"metric": "loss"})
    table = values_table(outcome, Judged(outcome))
    (kin,) = table[table["arm"] == "kin"].to_dict("records")
    assert kin["answer_tokens"] == int(kin["answer_tokens"]) > kin["examples"] > 0
    ((path, number, _),) = outcome.evaluated()
    trained = outcome.trained(path, number)
    assert trained is not None
    exact = trained.manifest()["counts"]["answer_tokens"]
    assert exact != int(exact)
    assert abs(kin["answer_tokens"] - exact) <= 0.5
