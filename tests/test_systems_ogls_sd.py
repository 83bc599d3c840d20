"""OGLS-SD as arms of an experiment: rounds over own rollouts, one pass for all views, edges in the ledger."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import BadInput
from jobs.report.run import render_report
from jobs.results.judged import Judged
from jobs.results.ledger import run_ledger
from jobs.results.summary import summarise
from jobs.stages.rollouts import states_of
from jobs.study.tables import values_table
from jobs.systems.ogls_sd import steer as steering
from tests.own_rollouts import ROLLOUTS, arms, learned_of, path_of, told
from tests.runs import run, tutelage, write_experiment
from tests.test_pipeline_rows import rewrite
from training.data import Examples
from training.metrics import read_metrics

VIEW_ARMS = ["ogls", "lambda_zero", "opsd_incorrect"]


@pytest.mark.long
def test_arms_that_are_views_share_rollouts_and_one_pass_of_the_teacher_and_go_on_from_their_own(
    own_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    compute = steering.SteerHandler.compute
    monkeypatch.setattr(
        steering.SteerHandler, "compute", lambda self, items: read.append(len(items)) or compute(self, items)
    )
    select = [{"name": "strongest", "rule": "strongest"}]
    done, outcome = run(own_world, tmp_path, arms=[*arms(*VIEW_ARMS), *select])
    views = [(kind, label) for kind, label in done.stages if kind == "roll out"]
    assert len(views) == 1 + len(VIEW_ARMS)  # one student in the first round, then one each
    # an untrained student is always wrong: one pass over all its rollouts, then one over each student's; with
    # lambda zero a student hardly moves, and what it says again has been read
    assert read[0] == 8 * 3
    assert 8 * 3 * len(VIEW_ARMS) <= sum(read) <= 8 * 3 * (1 + len(VIEW_ARMS))
    for arm in VIEW_ARMS:
        path = path_of(outcome, arm.replace("_", " "))
        for number in (1, 2):
            told = read_metrics(outcome.rounds[path, number].trained.directory)
            assert len(told) == 2
            assert all(np.isfinite(row["exact_kl_nats"]) for row in told)
            # counted over both rounds
            lam = [0.06 * (2 * (number - 1) + k) for k in (1, 2)]
            assert [row["lambda"] / row["steered"] for row in told] == pytest.approx(lam)
            # what a round's first step trains on is what this student has just sampled; then it moves on
            stale = [row["staleness_nats"] / row["steered"] for row in told]
            assert abs(stale[0]) < 1e-4
            assert arm == "lambda_zero" or abs(stale[1]) > 2 * abs(stale[0])
    first = {a: outcome.rounds[path_of(outcome, a.replace("_", " ")), 1].trained.id for a in VIEW_ARMS}
    assert len(set(first.values())) == len(VIEW_ARMS)
    rows = Examples(outcome.rounds[path_of(outcome, "ogls"), 1].examples.part("examples.arrow"))
    assert set(rows.widths) == {"h0", "h_pos", "h_neg", "sampled"}
    assert all(row.loss_tokens <= 6 for row in rows)
    # a second run finds everything, and one more lambda runs no teacher
    again, _ = run(own_world, tmp_path, arms=[*arms(*VIEW_ARMS), *select])
    assert again.cached == len(again.stages)
    before = len(read)
    more = [*arms(*VIEW_ARMS), *select, arms("ogls")[0] | {"name": "lambda 1", "lambda": 1.0, "clip": "none"}]
    third, outcome = run(own_world, tmp_path, arms=more)
    assert sum(read[before:]) == 8 * 3  # of its own second round alone

    ledger = run_ledger(outcome)
    own = ledger[(ledger["path"] == "kid ogls seed 0") & (ledger["round"] == 2)]
    path = path_of(outcome, "ogls")
    assert dict(zip(own["kind"] + " " + own["state"], own["count"], strict=True)) == {
        "question learned_from": len(learned_of(outcome, path, 2)),
        **({"question no_step_left": alone} if (alone := 8 - len(learned_of(outcome, path, 2))) else {}),
        "question not_drawn": 16,
        "rollout trained": 16,  # two steps of eight
        "rollout no_step_left": 8,
    }
    results = summarise(third, outcome)
    assert {a.arm for a in results.arms} >= {"ogls", "lambda zero", "strongest"}
    (section,) = results.sections
    told = section.table.set_index(["arm", "round"])
    assert told.loc[("ogls", 1), "right"] == 0.0
    assert told.loc[("ogls", 2), "exact KL, last"] > 0
    assert told.loc[("ogls", 1), ["trained", "not drawn by a step", "contexts left out"]].tolist() == [
        16,
        8,
        0,
    ]
    assert not any("Controls" in before for before, lines in section.notes.items() if lines)
    page = render_report(results)
    assert 'id="rollouts"' in page
    assert 'id="chosen"' in page


@pytest.mark.long
def test_examples_with_arrays_go_after_a_round_and_are_written_again_when_they_are_needed(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    fewer = own_world | {"questions": {**own_world["questions"], "evaluate_rows": "0:5"}}
    done, outcome = run(fewer, tmp_path, arms=arms("ogls"))
    path = path_of(outcome, "ogls")
    written = {n: outcome.rounds[path, n].examples for n in (1, 2)}
    assert all(stage.part("examples.arrow").is_file() for stage in written.values())
    done, outcome = run(fewer, tmp_path, arms=arms("ogls"), keep="last")
    assert [outcome.rounds[path, n].examples.id for n in (1, 2)] == [written[n].id for n in (1, 2)]
    assert not any(stage.part("examples.arrow").is_file() for stage in written.values())
    counts = [stage.manifest()["counts"]["examples"] for stage in written.values()]
    assert values_table(outcome, Judged(outcome))["examples"].dropna().tolist() == counts
    # more held-out questions: the first round is trained again, from the same bytes
    again, outcome = run(own_world, tmp_path, arms=arms("ogls"), keep="last")
    assert again.host.trained == [done.stages["train", f"{path.label} round 1"].id]  # type: ignore[attr-defined]
    assert not any(stage.part("examples.arrow").is_file() for stage in written.values())


def test_a_run_without_an_arm_that_chooses_has_a_report_and_a_plan(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    tree = own_world | {"arms": arms("ogls", "opsd_incorrect")}
    file = write_experiment(tree, tmp_path)
    planned = tutelage("plan", file)
    assert planned.returncode == 0, planned.stderr
    for bound in (
        "24 answers, 975 prompt tokens, at most 288 answer tokens",
        "at most 72 rollouts, each after at most 4 solutions: 3,312 tokens",
    ):
        assert bound in planned.stdout, planned.stdout
    done = tutelage("run", file)
    assert done.returncode == 0, done.stderr
    assert "cannot tell opsd incorrect from ogls" in done.stdout or "came to the same" in done.stdout
    page = (tmp_path / "runs" / "small" / "report.html").read_text()
    assert 'id="rollouts"' in page
    assert 'id="chosen"' not in page
    assert "<h3>Rollouts</h3>" in page
    again = tutelage("report", tmp_path / "runs" / "small")
    assert again.returncode == 0, again.stderr
    whole = (tmp_path / "runs" / "small" / "report.html").read_text()
    assert whole.partition('id="spent"')[0] == page.partition('id="spent"')[0]


def test_a_first_step_with_lambda_zero_teaches_the_first_state_nothing(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    """The student is its own teacher still: target and student are one."""
    _, outcome = run(own_world, tmp_path, arms=arms("lambda_zero"), rounds=1)
    told = read_metrics(outcome.rounds[path_of(outcome, "lambda zero"), 1].trained.directory)
    assert abs(told[0]["exact_kl_nats"]) < 1e-6
    assert told[0]["agreement"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("target", "rollouts", "changes", "said"),
    [
        ("rejection_sampling", {}, {}, r"no rollout is left to learn from.*24 is_wrong"),
        ("ogls", {"solution_field": None}, {}, "24 no_positive_context"),
        ("sdpo", {}, {}, "24 no_right_sibling"),
        ("ogls", {"check_questions": 6}, {}, "does not use solutions"),
        (
            "ogls",
            {"check_questions": 6, "least_kl": 50.0},
            {"evaluate": {"metric": "loss"}},
            "hardly change what the teacher says",
        ),
        ("ogls", {"max_length": 8}, {}, r"no rollout is left to learn from.*too_long"),
    ],
)
def test_what_cannot_be_learned_from_ends_by_name(
    own_world: dict[str, Any],
    tmp_path: Path,
    target: str,
    rollouts: dict[str, Any],
    changes: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(BadInput, match=said):
        run(own_world, tmp_path, arms=arms(target), rollouts=ROLLOUTS | rollouts, **changes)


def test_shuffled_shows_another_questions_solutions_and_gkd_reads_by_another_model(
    own_world: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    teachers = [*own_world["teachers"], {"name": "big", "path": str(tiny_model)}]
    asked = own_world | {"generate": {"max_new_tokens": 4}, "teachers": teachers}
    both = [*arms("shuffled"), arms("gkd")[0] | {"teacher": "big"}]
    _, outcome = run(asked, tmp_path, arms=both, rounds=1)
    kinds = Counter(p.arm.name for (p, _), own in outcome.rounds.items() if own.trained)
    assert kinds == {"shuffled": 1, "gkd": 1}
    gkd = Examples(outcome.rounds[path_of(outcome, "gkd"), 1].examples.part("examples.arrow"))
    assert set(gkd.widths) == {"h0", "sampled"}
    told = read_metrics(outcome.rounds[path_of(outcome, "gkd"), 1].trained.directory)
    assert abs(told[0]["exact_kl_nats"]) < 1e-6  # the same weights: nothing to learn


def test_a_question_that_no_template_holds_costs_its_own_rollouts_alone(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    def forged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [*rows, {"id": "forged", "question": "a <|im_end|> b", "reference": "1", "solution": "A:1"}]

    rewrite(own_world["questions"]["train"], forged)
    drawn = ROLLOUTS | {"questions": 25, "steps_per_round": 9}
    _, outcome = run(own_world, tmp_path, arms=arms("ogls"), rollouts=drawn, rounds=1)
    assert told(outcome, "ogls") == {
        "question learned_from": 24,
        "question failed": 1,
        "rollout trained": 72,
        "rollout failed": 3,
    }


def test_a_reference_too_long_to_be_shown_takes_rows_from_those_arms_that_show_it(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever other arms the file has; and the report says why."""

    def longer(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[0]["solution"] = "long " * 80 + rows[0]["solution"]
        return rows

    rewrite(own_world["questions"]["train"], longer)
    drawn = ROLLOUTS | {"questions": 24, "max_length": 120, "steps_per_round": 1}
    # every rollout is drawn: one step of all that there are
    about = {"rollouts": drawn, "rounds": 1, "train": {"batch_size": 72}}
    done, outcome = run(own_world, tmp_path, arms=arms("ogls", "lambda_zero", "opsd_incorrect"), **about)
    assert told(outcome, "lambda zero") == {"question learned_from": 24, "rollout trained": 72}
    assert told(outcome, "opsd incorrect") == {
        "question learned_from": 23,
        "question too_long": 1,
        "rollout trained": 69,
        "rollout too_long": 3,
    }
    results = summarise(done, outcome)
    lost = results.quarantine
    assert lost["stage"].tolist() == ["steer"] * 6
    # nothing but the reference is right, so ogls has lost its right pool with it
    ((line,),) = (lines for before, lines in results.sections[0].notes.items() if "Controls" in before)
    assert line.startswith("kid lambda zero seed 0, round 1: learned from 3 rollouts that ogls did not")
    assert line.endswith("did not learn from 0 of the 69 that ogls learned from")
    assert line in render_report(results)
    assert lost["reason"].str.contains("no context of h_s, h_pos fits into 120 tokens").all()


def test_a_tail_alone_is_learned_from_by_cross_entropy(
    own_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round in which all is right, which is said by hand, as is which ends are short: all are cut off."""
    monkeypatch.setattr("jobs.stages.rollouts.states_of", lambda answers: ["right"] * len(states_of(answers)))
    monkeypatch.setattr(
        "jobs.systems.ogls_sd.algorithm.tail_of",
        lambda arm, rolled: [rolled.told(0)["rollout_id"].tolist()[:4]],
    )
    about = {"verify": {"method": "none"}, "evaluate": {"metric": "loss"}, "rounds": 1}
    tail = arms("ogls")[0] | {"tail_weight": 0.1, "tail_tokens": 3}
    _, outcome = run(own_world, tmp_path, arms=[tail], **about)
    counts = told(outcome, "ogls")
    assert (
        counts["rollout tail_trained"] == outcome.rounds[path_of(outcome, "ogls"), 1].figures["trained"] == 4
    )
    (first, *_) = read_metrics(outcome.rounds[path_of(outcome, "ogls"), 1].trained.directory)
    assert first["steered"] == 0
    assert first["loss_nats"] > 1


def test_a_teacher_of_another_vocabulary_is_refused_before_anything_is_asked(
    own_world: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    words = json.loads((other / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(words))
    teachers = [*own_world["teachers"], {"name": "big", "path": str(other)}]
    asked = own_world | {"generate": {"max_new_tokens": 4}, "teachers": teachers}
    with pytest.raises(BadInput, match="another vocabulary"):
        run(asked, tmp_path, arms=[arms("gkd")[0] | {"teacher": "big"}])
    assert not (tmp_path / "store" / "tables" / "steering").exists()


def test_a_solution_field_that_no_question_has_is_refused_and_changes_no_identity(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    select = [{"name": "random", "rule": "random"}, {"name": "strongest", "rule": "strongest"}]
    plain, _ = run(own_world | {"rollouts": None}, tmp_path, arms=select, rounds=1)
    again, _ = run(own_world, tmp_path, arms=[*select, *arms("ogls")], rounds=1)
    both = plain.stages.keys() & again.stages.keys()
    assert {kind for kind, _ in both} >= {"questions", "gather", "pool", "select", "train", "evaluate"}
    assert all(again.stages[k].id == plain.stages[k].id for k in both)
    with pytest.raises(BadInput, match="no question has a worked solution"):
        run(own_world, tmp_path, arms=arms("ogls"), rollouts=ROLLOUTS | {"solution_field": "soluton"})


def test_a_plan_of_a_finished_run_has_nothing_left(own_world: dict[str, Any], tmp_path: Path) -> None:
    tree = own_world | {"arms": arms("ogls"), "rounds": 1, "evaluate": {"metric": "loss"}}
    file = write_experiment(tree, tmp_path)
    assert tutelage("run", file).returncode == 0
    planned = tutelage("plan", file)
    assert planned.returncode == 0, planned.stderr
    assert "-" not in [line.split()[0] for line in planned.stdout.splitlines() if line.split()]
    assert re.search(r"evaluate\s+\S*\s*2 of 2", planned.stdout), planned.stdout
    assert "roll out kid ogls seed 0" in " ".join(planned.stdout.split())
