"""A model as judge: verdicts, rationale, price, agreement; and a method for each question."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import BadInput
from cluster.models.messages import Message, Prompt, plain
from jobs.experiment.judge import RUBRIC
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import harvest_of, load_questions, look
from jobs.plan import make_plan
from jobs.results.usage import usage_table
from jobs.run.views import View
from jobs.stages.judge import JudgeCase, asked_of, read_verdict
from jobs.stages.pool import AnswerPool
from jobs.stages.teachers import build_pool
from tests.conftest import write_jsonl
from tests.fault_proxy import FaultProxy
from tests.runs import open_here


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setenv("TEST_KEY", "sk-test")
    server = FaultProxy("http://127.0.0.1:9", [], after="right")
    yield server
    server.close()


def judged_by(tree: dict[str, Any], proxy: FaultProxy, **options: Any) -> dict[str, Any]:
    judge = {
        "name": "judge",
        "base_url": proxy.url,
        "model": "j",
        "api_key_env": "TEST_KEY",
        "concurrency": 1,
        "usd_per_million_output_tokens": 1e6,
    }
    return tree | {"judge": judge | options, "verify": {"method": "judge"}}


def pool_in(tree: dict[str, Any], tmp_path: Path) -> tuple[AnswerPool, list[str], float]:
    """The pool, the judge's rationales, and what this run spent."""
    e = parse_experiment(tree)
    with open_here(tree, tmp_path) as here:
        questions, _, data = load_questions(e)
        pool = build_pool(here, harvest_of(e), {}, questions, data.refused)
        views = [v for (kind, _), v in here.stages.items() if kind == "judge" and isinstance(v, View)]
        spent = usage_table(here).set_index("stage")
        usd = float(spent.loc["judge", "USD, this run"]) if "judge" in spent.index else 0.0
        return pool, sorted(text for view in views for text in view.read()["text"]), usd


def test_a_judge_gives_verdicts_with_its_rationale_and_is_paid_once(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = judged_by(small_world, proxy, check_method="exact", check_sample=1000)
    pool, rationales, usd = pool_in(tree, tmp_path)
    assert set(pool.answers["state"]) <= {"verified", "duplicate"}
    calls = len(proxy.seen)
    assert usd == 7.0 * calls
    assert set(rationales) == {"It is.\nVERDICT: right"}
    assert len(rationales) == calls
    # the small world has nine wrong answers, which this judge lets pass
    assert pool.agreement is not None
    assert pool.agreement.counts["judge only"] == 9
    assert pool.agreement.agreed == pool.agreement.total - 9
    again, _, usd = pool_in(tree, tmp_path)
    assert len(proxy.seen) == calls
    assert again.id == pool.id
    monkeypatch.setattr("jobs.run.slices.ROWS", 10)
    sliced, _, _ = pool_in(tree, tmp_path)
    assert sliced.count > 2
    assert len(proxy.seen) == calls  # its words lie in no slice's range, and are found
    assert sliced.by_state == pool.by_state
    assert sliced.agreement == pool.agreement
    harder = tree | {"judge": tree["judge"] | {"rubric": RUBRIC + " Be harsh."}}
    assert pool_in(harder, tmp_path)[0].by_state == pool.by_state
    assert len(proxy.seen) == 2 * calls


def test_a_judge_without_a_verdict_is_a_checkers_error(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    proxy.after = "undecided"
    pool, _, _ = pool_in(judged_by(small_world, proxy, check_method="exact"), tmp_path)
    assert pool.agreement is not None
    assert pool.agreement.total == 0  # there is nothing to compare it with
    assert set(pool.answers["state"]) == {"checker_error"}
    assert pool.answers["extracted"].str.contains("gave no verdict: Hard to say").all()


@pytest.mark.parametrize(
    ("text", "finish", "state"),
    [
        ("VERDICT: right", "stop", "correct"),
        ("**VERDICT: Wrong.**\n", "stop", "wrong"),
        ("VERDICT: right\nno, wait\nVERDICT: wrong", "stop", "wrong"),
        ("<think>VERDICT: wrong</think>VERDICT: right", "stop", "correct"),
        ("the verdict: right now unclear", "stop", "checker_error"),
        ("VERDICT: right or wrong", "stop", "checker_error"),
        ("", "length", "checker_error"),
        ("they would say\nVERDICT: right", "length", "checker_error"),
        ("VERDICT: right\nis what they want", "stop", "checker_error"),
        ("", "failed", "checker_error"),
    ],
)
def test_verdicts_are_read_at_the_end_of_what_a_judge_says(text: str, finish: str, state: str) -> None:
    assert read_verdict(text, finish, "down").state == state


def test_texts_that_look_like_places_stay_as_they_are() -> None:
    ask = asked_of(
        parse_judge("Q: {question} A: {answer}"), JudgeCase(plain("what is {answer}?"), ("r",), "{question}")
    )
    assert ask.prompt.text.startswith("Q: what is {answer}? A: {question}")
    talk = Prompt((Message("user", "a"), Message("assistant", "b"), Message("user", "c")))
    told = asked_of(parse_judge("{question} {answer}"), JudgeCase(talk, (), "x")).prompt.text
    assert told.startswith("user: a\n\nassistant: b\n\nuser: c x")


def parse_judge(rubric: str) -> Any:
    from jobs.experiment.judge import Judge

    return Judge(name="j", base_url="http://x", model="m", rubric=rubric)


def test_each_question_may_name_its_method(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy
) -> None:
    file = Path(small_world["questions"]["train"])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    methods = ["judge", "none", "exact"]
    write_jsonl(file, [row | {"how": methods[i % 3]} for i, row in enumerate(rows)])
    tree = judged_by(small_world, proxy) | {"verify": {"method": "exact"}}
    tree["questions"] = tree["questions"] | {"train_fields": {"method": "how"}}
    pool, rationales, _ = pool_in(tree, tmp_path)
    by_id = {row["id"]: methods[i % 3] for i, row in enumerate(rows)}
    how = pool.answers["question_id"].map(by_id)
    assert set(pool.answers.loc[how != "exact", "state"]) <= {"verified", "duplicate"}
    # every third answer of cat's is wrong: those that a judge was asked about
    assert (pool.answers.loc[how == "exact", "state"] == "verified").sum() == 23
    assert len(rationales) == len(pool.answers[how == "judge"].drop_duplicates(["question_id", "text"]))
    for change, message in (
        ({"how": "taste"}, "unknown method"),
        ({"how": "exact", "reference": None}, "no reference answer"),
        ({"how": "function"}, "needs a function"),
    ):
        write_jsonl(file, [rows[0] | change])
        with pytest.raises(BadInput, match=message):
            load_questions(parse_experiment(tree))


def test_a_judge_is_named_where_one_is_needed(small_world: dict[str, Any], proxy: FaultProxy) -> None:
    tree = judged_by(small_world, proxy)
    del tree["judge"]
    with pytest.raises(BadInput, match="needs a section judge"):
        parse_experiment(tree)
    wrongs: list[tuple[dict[str, str], str]] = [
        ({"rubric": "right?"}, "needs {answer}"),
        ({"check_method": "judge"}, "must be one of"),
    ]
    for wrong, message in wrongs:
        with pytest.raises(BadInput, match=message):
            parse_experiment(judged_by(small_world, proxy, **wrong))
    assert yaml.safe_dump(tree)


def test_a_judge_without_a_key_is_refused_before_anybody_is_asked_and_is_in_the_plan(
    small_world: dict[str, Any], tmp_path: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = judged_by(small_world, proxy)
    monkeypatch.delenv("TEST_KEY")
    with open_here(tree, tmp_path) as here, pytest.raises(BadInput, match="no key for teacher judge"):
        look(here, parse_experiment(tree))
    with open_here(tree, tmp_path, mode="plan") as here:
        plan = {row.stage: row for row in make_plan(here, parse_experiment(tree))}
    assert "answers, about" in plan["judge pool"].remaining
    assert "verify" not in plan
