"""Arms whose costs need more of a student than one forward pass, through a whole run: what is measured, what
a plan and the report say of it, and what is refused before anybody is asked.
"""

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.rendering import Rendered, Renderer
from jobs.experiment.parsing import parse_experiment
from jobs.plan import make_plan
from jobs.report.replay import replay_answer
from jobs.report.run import render_report
from jobs.results.quarantine import quarantine
from jobs.results.summary import summarise
from selection.gradients import Gradients
from tests.runs import open_here, run

ARMS: list[dict[str, Any]] = [
    {"name": "near", "rule": "minimum", "cost": "local_naturalness", "window": 1},
    {"name": "far", "rule": "minimum", "cost": "local_naturalness", "window": 4},
    {"name": "norm", "rule": "minimum", "cost": "gradient_norm"},
    {"name": "grace", "rule": "minimum", "cost": "grace"},
    {"name": "strongest", "rule": "strongest"},
]


@pytest.mark.long
def test_each_measure_is_taken_once_and_shown_by_its_own_name(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    tree = small_world | {"arms": ARMS}
    with open_here(tree, tmp_path, mode="plan") as planned:
        before = {row.stage for row in make_plan(planned, parse_experiment(tree))}
    named = ["gradient", "sentences behind 1", "sentences behind 4", "sketch"]
    assert {f"measure {name} in round 1" for name in named} <= before
    done, outcome = run(small_world, tmp_path, arms=ARMS)
    labels = [label.rsplit(" ", 2)[0] for kind, label in done.stages if kind == "measure"]
    assert sorted(labels) == named
    views = {done.stages[key].id for key in done.stages if key[0] == "measure"}
    assert len(views) == len(named)
    again, _ = run(small_world, tmp_path, arms=ARMS)
    assert again.cached == len(again.stages)
    assert "sketch" in render_report(summarise(done, outcome))


def test_an_answer_that_could_not_be_measured_is_in_the_ledger_and_replay_says_so(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, first = Gradients._score, {}

    def fail_for_the_first(self: Gradients, row: Rendered) -> Any:
        ids = first.setdefault("ids", row.ids)
        return ArithmeticError("no gradient") if row.ids == ids else plain(self, row)

    monkeypatch.setattr(Gradients, "_score", fail_for_the_first)
    _, outcome = run(small_world, tmp_path, arms=[ARMS[4], ARMS[2]])
    failed = quarantine(outcome, "small")
    assert "ArithmeticError: no gradient" in set(failed["reason"])
    answer = str(failed[failed["reason"] == "ArithmeticError: no gradient"]["answer"].iloc[0])
    lines = list(replay_answer(outcome, answer))
    assert any(
        "for gradient_norm (norm): recorded quarantined: ArithmeticError: no gradient" in line
        for line in lines
    )
    assert sum("recorded scored" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"arms": [ARMS[2]]}, "24 questions x 3 teachers x 1 answers"),
        ({"arms": [ARMS[3]]}, "24 questions x 3 teachers x 1 answers"),
        (
            {
                "arms": [ARMS[2]],
                "generate": {"temperature": 0.5, "until_verified": 1, "max_samples": 4},
                "score": {"most_gradients": 200},
            },
            "24 questions x 3 teachers x 4 answers",
        ),
    ],
)
def test_more_gradients_than_allowed_are_refused_before_anybody_is_asked(
    small_world: dict[str, Any], tmp_path: Path, more: dict[str, Any], names: str
) -> None:
    tree = small_world | {"score": {"most_gradients": 71}} | more
    with pytest.raises(BadInput, match=names), open_here(tree, tmp_path, mode="plan") as planned:
        make_plan(planned, parse_experiment(tree))


@pytest.mark.long
def test_students_may_differ_in_their_best_teacher(small_world: dict[str, Any], tmp_path: Path) -> None:
    single = [{"name": f"only-{t}", "rule": "teacher", "teacher": t} for t in ("ann", "bob", "cat")]
    arms = [{"name": "strongest", "rule": "strongest"}, *single]
    twins = [small_world["students"][0] | {"name": name} for name in ("kid", "lad")]
    done, outcome = run(small_world, tmp_path, arms=arms, students=twins)
    results = summarise(done, outcome)
    assert [arm.student for arm in results.arms if arm.arm == "in hindsight"] == ["kid", "lad"]
    assert "in hindsight" in render_report(results)
    one, outcome = run(small_world, tmp_path, arms=arms[:3], limit=1)
    assert not [arm for arm in summarise(one, outcome).arms if arm.arm == "in hindsight"]


def test_before_an_answer_stands_what_the_template_writes(tiny_model: Path) -> None:
    renderer = Renderer(load_tokenizer(ModelSource(str(tiny_model))))
    head = renderer.header_ids
    rendered = renderer.conversation("2 + 2?", "4")
    assert head
    assert rendered.ids[rendered.prompt_length - len(head) : rendered.prompt_length] == head
