"""What students are asked for as rollouts, how it is judged, and what their teacher is shown of it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cluster.errors import BadInput
from cluster.models.messages import plain
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.rollouts import Rollouts
from jobs.experiment.students import Student
from jobs.pipeline import load_questions
from jobs.stages.rollouts import states_of
from jobs.stages.states import first_state
from jobs.systems.ogls_sd import steer as steering
from jobs.systems.ogls_sd.algorithm import rollout_seed
from jobs.systems.paths import paths_of
from tests.own_rollouts import ROLLOUTS, arms
from tests.runs import run, tutelage, write_experiment
from tests.test_pipeline_rows import rewrite


def test_rollouts_are_drawn_anew_in_every_round_and_under_every_seed_but_alike_for_all_arms(
    own_world: dict[str, Any],
) -> None:
    e = parse_experiment(own_world | {"arms": arms("ogls", "opsd"), "rounds": 3, "seeds": 3})
    seeds = {(p, n): rollout_seed(e, p, n) for p in paths_of(e) for n in (1, 2, 3)}
    assert len({seed for (_, n), seed in seeds.items() if n == 1}) == 1
    assert len({seed for (_, n), seed in seeds.items() if n > 1}) == 2 * 3
    for n in (2, 3):
        for k in range(3):
            assert len({seed for (p, m), seed in seeds.items() if (m, p.seed) == (n, k)}) == 1


def test_rollouts_of_the_same_questions_differ_from_round_to_round(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    """With few questions every round asks the same ones; a student that hardly moved said the same again."""
    about = {"limit": 8, "train": {"batch_size": 8, "learning_rate": 1e-9}}
    run(own_world, tmp_path, arms=arms("lambda_zero"), **about)
    files = (tmp_path / "store" / "tables" / "answers").rglob("*.parquet")
    texts = pd.concat(pd.read_parquet(file, columns=["text"]) for file in files)
    assert len(texts) >= 2 * 8 * 3
    assert texts["text"].nunique() > 1.5 * 8 * 3


def test_what_was_cut_off_or_says_nothing_is_wrong_and_what_nobody_checked_is_neither() -> None:
    rows = [
        ("correct", "stop", "A:1", "right"),
        ("correct", "length", "A:1", "wrong"),
        ("wrong", "stop", "A:2", "wrong"),
        ("unparsed", "length", "one", "wrong"),
        ("", "stop", "", "wrong"),
        ("", "length", " ", "wrong"),
        ("", "failed", "", "failed"),
        ("checker_error", "stop", "A:1", "checker_error"),
        ("timed_out", "length", "A:1", "timed_out"),
    ]
    told = [(text, finish, state, "") for state, finish, text, _ in rows]
    answers = pd.DataFrame(told, columns=["text", "finish", "state", "extracted"])
    assert states_of(answers) == [expected for *_, expected in rows]


def test_worked_solutions_that_end_in_another_result_are_counted_and_shown_to_nobody(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    def slipped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [r | {"solution": "A:none of it"} if k < 5 else r for k, r in enumerate(rows)]

    rewrite(own_world["questions"]["train"], slipped)
    said: list[str] = []
    e = parse_experiment(own_world | {"arms": arms("ogls")})
    questions, _, _ = load_questions(e, said.append)
    assert sum(not q.solution for q in questions.values()) == 5
    assert any(line.startswith("5 of 24 worked solutions do not end in") for line in said), said
    rewrite(own_world["questions"]["train"], lambda rows: [r | {"solution": "A:none"} for r in rows])
    with pytest.raises(BadInput, match="no worked solution ends in its question's reference"):
        load_questions(e)


def test_wrong_attempts_may_be_told_to_be_wrong(own_world: dict[str, Any], tiny_model: Path) -> None:
    drawn = Rollouts(template="{question} like {solution}", wrong_template="{question} unlike {solution}")
    state = first_state(Student(name="kid", path=str(tiny_model)))
    item = steering.ToRead(plain("1 + 1"), (5, 6), "s", ("r",), ("w",))
    words = state.renderer().tokenizer
    for honest, word in ((False, "like"), (True, "unlike")):
        reading, lost = steering.SteerHandler(state, drawn, honest, ("h0",), 0)._reading(item)
        assert lost == 0
        assert "1 + 1 like s" in words.decode(reading.reference)
        assert ["1 + 1 like r" in words.decode(ids) for ids in reading.right] == [True]
        assert [f"1 + 1 {word} w" in words.decode(ids) for ids in reading.wrong] == [True]
        assert "like" not in words.decode(reading.prompt)


def test_whether_students_can_read_is_said_to_be_left_out(own_world: dict[str, Any], tmp_path: Path) -> None:
    tree = own_world | {
        "arms": arms("ogls"),
        "rollouts": ROLLOUTS | {"check_questions": 4, "least_kl": 0},
        "evaluate": {"metric": "loss"},
        "rounds": 1,
    }
    done = tutelage("run", write_experiment(tree, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "(check_questions) is skipped: students are judged by loss" in done.stdout
