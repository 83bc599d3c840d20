"""The whole line on a small world: from questions to a verdict."""

import html
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.session import Cluster
from jobs.experiment.parsing import parse_experiment
from jobs.files.layouts import read_teacher_files
from jobs.plan import make_plan
from jobs.report.export import export_run
from jobs.report.run import render_report
from jobs.results.summary import summarise, verdict_lines
from jobs.run.host import RayHost
from tests.architectures import tiny_model as tiny_architecture
from tests.patience import Patience
from tests.runs import choose, open_here, run

ROOT = Path(__file__).resolve().parents[1]


def test_a_run_goes_from_questions_to_a_verdict_and_a_second_one_makes_nothing(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    first_run, outcome = run(small_world, tmp_path, rounds=2, seeds=2)
    results = summarise(first_run, outcome)
    assert first_run.cached == 0
    pool = outcome.start.pool.answers
    assert dict(pool["state"].value_counts()) == {"verified": 63, "wrong": 8, "unparsed": 1}
    assert outcome.start.pool.accuracy == pytest.approx({"ann": 1.0, "bob": 23 / 24, "cat": 16 / 24})
    for path, _, _, stage in outcome.choices():
        chosen = stage.whole("chosen")
        assert len(chosen) == 24
        if path.arm.name == "strongest":
            assert set(chosen["teacher"]) == {"ann"}
    scas = next(p for p in outcome.paths if p.label == "kid scas seed 0")
    totals = results.ledger.groupby(["path", "round", "kind"])["count"].sum().unstack()
    assert set(totals["question"]) == {24}
    assert set(totals["answer"]) == {72}
    first, second = (outcome.rounds[scas, r].scores for r in (1, 2))
    assert first.id != second.id  # round 2 was scored with the updated student
    files = {p.relative_to(tmp_path / "out").as_posix(): p for p in export_run(outcome, tmp_path / "out")}
    pooled = Counter(row.teacher for row in read_teacher_files(str(tmp_path / "out" / "answers")).rows)
    assert pooled == {"ann": 24, "bob": 23, "cat": 16}
    exported = [
        json.loads(line) for line in files["chosen/kid-scas-seed-0-round-2.jsonl"].read_text().splitlines()
    ]
    stored = outcome.rounds[scas, 2].chosen.whole("chosen")
    assert [(r["id"], r["teacher"], r["cost"]) for r in exported] == list(
        zip(stored["question_id"], stored["teacher"], stored["cost"], strict=True)
    )
    assert not first.read()["answer_loss"].equals(second.read()["answer_loss"])
    assert len(results.arms) == 4
    assert any("strongest" in line for line in verdict_lines(results))

    longer = small_world | {"rounds": 2, "seeds": 2}
    with open_here(longer, tmp_path, mode="plan") as planned:
        plan = {
            row.stage: (row.cached, row.remaining) for row in make_plan(planned, parse_experiment(longer))
        }
    assert plan["train, all rounds"] == ("8 of 8", "")
    assert plan["evaluate"] == ("9 of 9", "")
    assert {plan[stage] for stage in plan if stage.startswith("score kid ")} == {("yes", "")}
    again, _ = run(small_world, tmp_path, on_ray=True, rounds=2, seeds=2)
    assert again.cached == len(again.stages)
    assert isinstance(again.host, RayHost)
    assert not again.host.is_started  # nothing to do: Ray was not even started


def test_arms_share_what_they_have_in_common_and_a_new_arm_reuses_the_scores(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    narrow, _ = run(small_world, tmp_path)
    arms = [*small_world["arms"], {"name": "lambda0", "rule": "minimum", "cost": "scas", "lambda": 0.0}]
    wider, _ = run(small_world, tmp_path, arms=arms)
    new = [
        label
        for label, stage in wider.stages.items()
        if stage.id not in {s.id for s in narrow.stages.values()}
    ]
    assert all("lambda0" in label for _, label in new), new
    made = {"select", "examples", "train", "answers of", "verdicts on", "evaluate"}
    assert {kind for kind, _ in new} == made


@pytest.mark.long
def test_results_do_not_depend_on_workers_or_on_deaths(
    ray_cluster: Cluster, small_world: dict[str, Any], tmp_path: Path
) -> None:
    """Score in this process, then on Ray with two workers of which one is killed: the parts are the same
    bytes.
    """
    small_world["score"] = {"shard_size": 3}
    killed: list[int] = []
    bytes_of = []
    for k, on_ray in enumerate((False, True)):
        tree = small_world | {"store": str(tmp_path / f"s{k}"), "placement": {"score_workers": 2}}
        killer = threading.Thread(target=_kill_one_host, args=(tmp_path / f"s{k}", killed))
        if on_ray:
            killer.start()
        _, scores = choose(tree, tmp_path, on_ray)
        if on_ray:
            killer.join()
        bytes_of.append({p.name: p.read_bytes() for p in scores.view.table.directory.glob("*.parquet")})
    assert killed, "nothing was killed: the test proved nothing"
    assert len(bytes_of[0]) >= 15
    assert bytes_of[0] == bytes_of[1]


def _kill_one_host(store: Path, killed: list[int]) -> None:
    """SIGKILL a hosting actor as soon as the first scored part is there."""
    patience = Patience(120)
    while not patience.is_over and not list(store.glob("views/statistics/*/view.json")):
        if list(store.glob("tables/statistics/*/*.parquet")):
            for process in psutil.Process().children(recursive=True):
                if "ray::Host" in _command(process):
                    process.kill()
                    killed.append(process.pid)
                    return
        time.sleep(0.005)  # polls a condition with a deadline


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_gsm8k_answers_run_on_real_input_with_a_limit(gsm8k: Path, golden: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "experiments" / "gsm8k_answers.yaml").read_text())
    tree |= {"store": str(tmp_path / "store"), "limit": 40}
    tree["train"] |= {"steps": 6}
    text = (
        json.dumps(tree)
        .replace("../shared/data/gsm8k", str(gsm8k))
        .replace("../shared/golden/scas", str(golden))
    )
    results = summarise(*run(json.loads(text), tmp_path))
    assert results.metric == "loss"
    before = results.before[0].value.value
    after = {a.arm: a.value.value for a in results.arms}
    # a fine-tune on right answers lowers the loss on worked ones
    assert all(value > before for value in after.values())
    assert any("nats per answer token" in line for line in verdict_lines(results))


def test_a_student_that_allows_few_shortcuts_is_trained_and_judged_and_the_page_says_what_fell_back(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bloom builds its positions from a mask: prompts are not shared, and examples are not packed."""
    tokenizer = load_tokenizer(ModelSource(str(tiny_model)))
    student = tmp_path / "bloom"
    tiny_architecture("bloom", vocab_size=len(tokenizer)).save_pretrained(student)
    tokenizer.save_pretrained(student)
    small_world["students"][0]["path"] = str(student)
    done, outcome = run(small_world, tmp_path, evaluate={"metric": "loss"})
    results = summarise(done, outcome)
    said = capsys.readouterr().out
    assert len(results.fallbacks)
    for shortcut, line in zip(
        results.fallbacks["shortcut"], results.fallbacks["what was done instead, and why"], strict=True
    ):
        assert line in said, shortcut
        assert line.partition(";")[0] in html.unescape(render_report(results))
    assert {"sharing prompts", "packing"} & set(results.fallbacks["shortcut"])
    assert any(s.view.manifest()["fallbacks"] for _, _, s, _ in outcome.choices())
    before, after = results.before[0].value.value, results.arms[0].value.value
    assert after > before


def test_arms_that_chose_the_same_answers_say_so_and_the_best_single_teacher_is_shown(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    single = [{"name": f"only-{t}", "rule": "teacher", "teacher": t} for t in ("ann", "cat")]
    arms = [{"name": "strongest", "rule": "strongest"}, *single]
    done, outcome = run(small_world, tmp_path, arms=arms)
    results = summarise(done, outcome)
    told = "only-ann chose the same answers as strongest in every round, and came to the same"
    assert any(told in line for line in verdict_lines(results))
    best = next(arm for arm in results.arms if arm.arm == "in hindsight")
    values = {arm.arm: arm.value.value for arm in results.arms}
    verdict = next(c.verdict for _, arm, c in results.comparisons if arm == "in hindsight")
    taken = verdict.removesuffix(")").split("(taken: ")[1].split(" and ")
    assert set(taken) <= {"only-ann", "only-cat"}
    if len(taken) == 1:
        assert best.value.value == pytest.approx(values[taken[0]])
    assert verdict in html.unescape(render_report(results))
