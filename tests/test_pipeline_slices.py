"""A run in many slices comes to what the same run in one slice comes to: states, choices of every rule,
ledger, examples, tables of the report.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import harvest_of, look
from jobs.report.export import export_run
from jobs.report.replay import replay_answer
from jobs.results.ledger import drop_bias, nothing_to_choose, run_ledger
from jobs.results.lineage import lineage_of
from jobs.results.outcome import Outcome, Start
from jobs.results.quarantine import quarantine
from jobs.results.tables import chosen_table, cost_table, teacher_table
from jobs.run.run import Run
from jobs.stages import measures
from jobs.stages.answer_files import TakeFile
from jobs.stages.select import OF_TEACHERS
from jobs.stages.teachers import build_pool
from jobs.systems.paths import paths_of
from jobs.systems.select.algorithm import choose
from tests.conftest import write_jsonl
from tests.counting import ASKED, CHECKED, SCORED, since
from tests.runs import open_here, tutelage, write_experiment
from tests.test_pipeline_rows import rewrite

ARMS: list[dict[str, Any]] = [
    {"name": "groups", "rule": "groups", "cost": "scas", "groups": 2},
    {"name": "top", "rule": "top_k", "cost": "lark", "k": 2, "weights": "margin"},
    {"name": "below", "rule": "minimum", "cost": "scas", "threshold_quantile": 0.4},
    {"name": "capped", "rule": "minimum", "cost": "scas", "cap": 0.5},
    {"name": "turns", "rule": "round_robin"},
    {"name": "few", "rule": "random", "most_questions": 5},
    {"name": "strongest", "rule": "strongest"},
    {"name": "local", "rule": "minimum", "cost": "local_naturalness", "window": 1},
    {"name": "ifd", "rule": "minimum", "cost": "ifd"},
    {"name": "drop", "rule": "minimum", "cost": "aslec_drop"},
    {"name": "casl", "rule": "minimum", "cost": "aslec_casl"},
    {"name": "gradient", "rule": "minimum", "cost": "gradient_norm"},
    {"name": "car", "rule": "minimum", "cost": "car", "beta": 3},
    {
        "name": "learned",
        "rule": "minimum",
        "cost": "learned",
        "coefficients": {"mean_loss": -2, "max_loss": 1},
    },
    {"name": "grace", "rule": "minimum", "cost": "grace", "cap": 0.5},
]


@pytest.fixture(autouse=True)
def few_questions_for_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few that there are slices without any of them."""
    monkeypatch.setattr(measures, "GRACE_QUESTIONS", 5)


def awkward(small_world: dict[str, Any], tiny_model: Path) -> dict[str, Any]:
    """The small world with everything that has to find its slice: two ids of one question, answers to
    questions that nobody asked, rows that cannot be read, methods by question, samples, a teacher that is
    told something, and one that is asked again.
    """

    def questions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        twin = rows[3] | {"id": "twin"}
        odd = {"id": "odd", "messages": [{"role": "user", "content": [{"type": "image"}]}]}
        return [*(row | {"check": "none" if n % 7 == 2 else ""} for n, row in enumerate(rows)), twin, odd]

    def answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        more = [row | {"teacher_output": row["teacher_output"] + " "} for row in rows[:5]]
        return [*rows, *more, rows[1], {"id": "elsewhere", "teacher_output": "A:1"}]

    rewrite(small_world["questions"]["train"], questions)
    rewrite(small_world["teachers"][0]["path"], answers)
    told = {"kind": "model", "path": str(tiny_model)}
    tree = small_world | {
        "questions": small_world["questions"] | {"train_fields": {"method": "check"}},
        "teachers": [
            *small_world["teachers"],
            told | {"name": "dan"},
            told | {"name": "eve", "ask_system": "Be brief."},
        ],
        "generate": {
            "temperature": 0.7,
            "max_new_tokens": 6,
            "shard_size": 7,
            "until_verified": 1,
            "max_samples": 2,
        },
        "arms": ARMS,
        "train": {"steps": 1},
        "evaluate": {"metric": "loss"},
        "limit": None,
    }
    return json.loads(json.dumps(tree))  # type: ignore[no-any-return]


def choices(tree: dict[str, Any], tmp_path: Path, on_ray: bool = False) -> tuple[Run, Outcome]:
    """A run up to its examples; nobody is trained."""
    e = parse_experiment(tree)
    with open_here(tree, tmp_path, on_ray) as here:
        looked = look(here, e)
        pool = build_pool(here, harvest_of(e), looked.hosted, looked.questions, looked.data.refused)
        start = Start(e, looked.questions, looked.held_out, pool, looked.students, {})
        outcome = Outcome(start, paths_of(e))
        choose(here, start, outcome, {p: looked.students[p.student] for p in outcome.paths}, 1)
        return here, outcome


def everything(done: Run, outcome: Outcome) -> dict[str, Any]:
    """What a run came to, in an order that does not hang on slices."""
    start = outcome.start
    found: dict[str, Any] = {
        "pool": in_order(start.pool.answers, "answer_id"),
        "states": start.pool.by_state,
        "accuracy": start.pool.accuracy,
        "nothing to choose": nothing_to_choose(start),
        "costs": in_order(cost_table(outcome), "answer_id"),
        "ledger table": in_order(run_ledger(outcome), "path", "kind", "state"),
        "drop bias": in_order(drop_bias(start), "teacher", "task"),
        "quarantine": in_order(quarantine(outcome, "small"), "answer", "stage"),
        "teachers": teacher_table(start),
        "chosen table": chosen_table(start.experiment, outcome),
    }
    for path, _, _, chosen in outcome.choices():
        found[f"chosen {path.label}"] = chosen.whole("chosen")
        found[f"ledger {path.label}"] = in_order(chosen.whole("ledger"), "kind", "id")
    for (kind, label), stage in done.stages.items():
        if kind == "examples":
            found[f"examples {label}"] = {n: p["sha256"] for n, p in stage.manifest()["parts"].items()}
    return found


def in_order(table: pd.DataFrame, *by: str) -> pd.DataFrame:
    return table.sort_values(list(by), ignore_index=True)


def refuse_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, other[name], obj=name)
        else:
            assert value == other[name], name


@pytest.mark.slow
def test_many_slices_come_to_what_one_comes_to(
    small_world: dict[str, Any],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: Counter[str],
) -> None:
    tree = awkward(small_world, tiny_model)
    first, one = choices(tree, tmp_path)
    assert one.start.pool.count == 1
    assert min(made.values()) > 20
    held = everything(first, one)
    monkeypatch.setattr("jobs.run.slices.ROWS", 40)
    before = made.copy()
    second, many = choices(tree, tmp_path)
    assert many.start.pool.count > 2
    assert since(made, before) == {ASKED: 0, CHECKED: 0, SCORED: 0}  # whose rows lie in the same tables
    refuse_difference(held, everything(second, many))
    told = {t.id: t for t in lineage_of(one).questions}
    assert len(told) > 20
    assert {t.id: t for t in lineage_of(many).questions} == told
    of_car = next(c.stage for path, _, _, c in many.choices() if path.arm.name == "car")
    of_car.part(OF_TEACHERS).unlink()  # as an earlier version left it
    assert {t.id: t for t in lineage_of(many).questions} == told
    # and made by slice from the beginning, where numbers are equal up to rounding
    third, other = choices(tree | {"store": str(tmp_path / "other")}, tmp_path)
    assert since(made, before)[SCORED] > 20
    new = everything(third, other)
    names = [name for name in held if not name.startswith("examples")]
    refuse_difference({n: held[n] for n in names}, {n: new[n] for n in names})
    exported = [export_run(o, tmp_path / n, ["messages", "preference"]) for o, n in ((one, "a"), (many, "b"))]
    assert [p.name for p in exported[0]] == [p.name for p in exported[1]]
    for a, b in zip(exported[0][:-1], exported[1][:-1], strict=True):
        assert sorted(a.read_text().splitlines()) == sorted(b.read_text().splitlines())
    last = many.start.pool.told(many.start.pool.count - 1)["answer_id"].iloc[-1]
    assert list(replay_answer(one, last)) == list(replay_answer(many, last))


@pytest.mark.long
def test_a_plan_of_many_slices_says_what_it_can(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = awkward(small_world, tiny_model)
    file = write_experiment(tree, tmp_path)
    monkeypatch.setattr("jobs.run.slices.ROWS", 40)
    said = tutelage("plan", file)
    assert said.returncode == 0, said.stderr
    assert "a file to read" in said.stdout
    assert "answer tokens" in said.stdout  # whoever is asked is planned to the token
    assert not (tmp_path / "store" / "take").exists()
    choices(tree, tmp_path)
    said = tutelage("plan", file)
    assert "a file to read" not in said.stdout


def test_an_answer_to_another_text_under_a_questions_id_is_left_out_alone_in_slices_too(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_world["teachers"][0]["path"]
    rewrite(path, lambda rows: [rows[0] | {"instruction": "Something else?"}, *rows[1:]])
    whole = everything(*choices(small_world, tmp_path))["states"]
    monkeypatch.setattr("jobs.run.slices.ROWS", 10)
    sliced = everything(*choices(small_world | {"store": str(tmp_path / "other")}, tmp_path))["states"]
    assert sliced == whole
    assert [state for state in sliced if "not_understood" in str(state)]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_on_ray_come_to_the_same(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = small_world | {
        "arms": [arm for arm in ARMS if arm["name"] in ("groups", "below", "capped", "turns")]
    }
    first, one = choices(tree, tmp_path)
    held = everything(first, one)
    monkeypatch.setattr("jobs.run.slices.ROWS", 10)
    second, many = choices(tree | {"store": str(tmp_path / "other")}, tmp_path, on_ray=True)
    assert many.start.pool.count > 2
    new = everything(second, many)
    assert new["states"] == held["states"]
    pd.testing.assert_frame_equal(held["ledger table"], new["ledger table"])
    for arm in ("groups", "below", "capped", "turns"):
        pd.testing.assert_frame_equal(held[f"chosen kid {arm} seed 0"], new[f"chosen kid {arm} seed 0"])


def test_files_of_nothing_and_of_whole_chunks_are_taken(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jobs.stages.answer_files.CHUNK", 8
    )  # 24 answers fill three chunks, and nothing is left
    monkeypatch.setattr("jobs.run.slices.ROWS", 10)
    Path(small_world["teachers"][2]["path"]).write_text("")
    _, outcome = choices(small_world, tmp_path)
    pool = outcome.start.pool
    assert pool.answers["teacher"].value_counts().to_dict() == {"ann": 24, "bob": 24}
    chunks = {len(list(p.parent.glob("*.parquet"))) for p in Path(small_world["store"]).glob("take/*/0*")}
    assert chunks == {1, 3}


@pytest.mark.parametrize("rows", [10, 1000])
def test_teachers_in_one_file_are_read_in_one_pass_and_give_what_files_of_their_own_give(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("jobs.run.slices.ROWS", rows)
    apart = choices(small_world, tmp_path)[1].start.pool.answers
    together, passes = [], []
    for teacher in small_world["teachers"]:
        lines = Path(teacher["path"]).read_text().splitlines()
        together += [json.loads(line) | {"teacher": teacher["name"]} for line in lines]
    together.sort(key=lambda row: row["id"])  # rows of one question together, as such files have them
    file = write_jsonl(tmp_path / "all.jsonl", together)
    teachers = [t | {"path": str(file), "rows_of": t["name"]} for t in small_world["teachers"]]
    read = TakeFile.__call__

    def counting(self: TakeFile) -> None:
        passes.append(sorted(map(str, self.stages)))
        read(self)

    monkeypatch.setattr(TakeFile, "__call__", counting)
    one = choices(small_world | {"teachers": teachers}, tmp_path)[1].start.pool.answers
    assert passes == [["ann", "bob", "cat"]]
    pd.testing.assert_frame_equal(apart, one)
    choices(small_world | {"teachers": teachers[:1]}, tmp_path)
    assert len(passes) == 1  # known by its content: nobody reads it again
    with pytest.raises(BadInput, match=r"has no row of dan; got ann, bob, cat"):
        choices(
            small_world | {"teachers": [*teachers, teachers[0] | {"name": "dan", "rows_of": "dan"}]}, tmp_path
        )


def test_a_question_that_nobody_answered_is_in_the_ledger_of_a_store_that_knew_the_others(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    choices(small_world, tmp_path)
    rewrite(
        small_world["questions"]["train"],
        lambda rows: [*rows, rows[0] | {"id": "new", "question": "What did nobody answer?"}],
    )
    _, outcome = choices(small_world, tmp_path)
    assert run_ledger(outcome)["count"].sum() > 0  # it adds up, or this raises
    for *_, chosen in outcome.choices():
        assert chosen.whole("ledger").set_index("id")["state"]["new"] == "no_answer"


@pytest.mark.parametrize("rows", [10, 1000])
def test_halves_of_characters_stop_no_run(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("jobs.run.slices.ROWS", rows)
    half = "\ud83d"

    def odd_questions(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[0] |= {"family": f"f{half}"}
        rows[1] |= {"question": f"{rows[1]['question']} {half}", "system": half}
        return [*rows, rows[2] | {"id": f"q{half}", "question": "Another?"}]

    def odd_answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[1] |= {"instruction": f"{rows[1]['instruction']} {half}"}
        rows[3] |= {"tool_calls": f"[{half}"}
        return [*rows, {"id": f"x{half}", "teacher_output": "A:1"}]

    rewrite(small_world["questions"]["train"], odd_questions)
    for teacher in small_world["teachers"]:
        rewrite(teacher["path"], odd_answers)
    _, outcome = choices(small_world, tmp_path)
    ledger = next(outcome.choices())[3].whole("ledger").set_index("id")
    assert ledger["state"]["ann/x\ufffd/0"] == "unknown_question"
    assert ledger["state"]["q\ufffd"] == "no_answer"
    calls = ledger[ledger["reason"].str.contains("a tool call that is not known")]
    assert calls["state"].tolist() == ["not_understood"] * 3
