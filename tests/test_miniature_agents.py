"""The world of agents: calls that lead to the result, tools that answer, questions about single turns, and a
small build whose traces an experiment reads.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.experiment.questions import Fields
from jobs.files.answers import read_answers
from jobs.files.questions import read_questions
from jobs.miniature.pretrained import traces
from jobs.miniature.pretrained.agents import MANNERS, TOOLS, Task, call_in, draw_tasks, next_turn, trace
from jobs.miniature.pretrained.traces import Work
from jobs.miniature.pretrained.wordings import LOOK_UPS, wordings_of
from jobs.miniature.world import build_world, models_of
from jobs.run.progress import Terminal
from jobs.run.run import Run
from jobs.run.store import Store
from selection.verification import VerifySettings, judge
from tests.in_process import InProcess

CHECK = VerifySettings("exact", pattern=r"(?m)^(?:Call|Answer): (.+?)\s*$")


def say(task: Task, call: str) -> str:
    return task.answered(call)


@given(st.integers(0, 2**31), st.sampled_from(["train", "evaluate"]))
def test_the_calls_of_a_task_lead_to_its_result_in_every_manner(seed: int, part: str) -> None:
    for task in draw_tasks(2, seed, part):  # type: ignore[arg-type]
        assert say(task, task.calls[-1]) == str(task.result)
        assert not any(c.isdigit() for c in task.question.removeprefix(" ".join(task.problem.sentences[:-1])))
        for manner in MANNERS:
            work = Work(task)
            for turn in trace(task, manner):
                if turn.role == "assistant":
                    assert not work.is_done
                    work = work.told(turn.content, "stop")
            assert work.is_done
            assert list(work.turns) == trace(task, manner)
            assert work.row()["is_right"]
            for number in range(len(task.calls) + 1):
                prompt, reference = next_turn(task, manner, number)
                said = trace(task, manner)[2 * number].content
                assert judge(said, reference, CHECK).state == "correct"
                assert [m.role for m in prompt.turns[:2]] == ["system", "user"]
                assert reference == [*task.calls, str(task.result)][number]


def test_no_wording_of_an_end_is_shared() -> None:
    assert not set(wordings_of(LOOK_UPS, "train")) & set(wordings_of(LOOK_UPS, "evaluate"))


def test_tools_answer_what_they_do_not_understand() -> None:
    (task,) = draw_tasks(1, 0, "train")
    assert say(task, "calculate(7 / 2)") == "it does not come out even"
    assert say(task, "calculate(7 / 0)") == "it does not come out even"
    assert say(task, "calculate(7 - 9)") == "-2"
    assert say(task, "price(houses)") == "there is no price of houses"
    for unknown in ("calculate(1 + 2 + 3)", "buy(pies)", "calculate()"):
        assert "nothing else" in say(task, unknown)
    assert call_in("I think.\nCall: price(maps) ") == "price(maps)"
    assert call_in("Answer: 7") is None


def test_an_agent_that_never_ends_and_one_that_is_cut_off_come_to_an_end() -> None:
    (task,) = draw_tasks(1, 0, "train")
    work = Work(task)
    for _ in range(traces.MOST_TURNS):
        assert not work.is_done
        work = work.told("Call: calculate(1 + 1)", "stop")
    assert work.is_done
    assert work.turns[-1].role == "assistant"
    assert not work.row()["is_right"]
    cut = Work(task).told("Call: calculate(1 + 1)", "length")
    assert cut.is_done
    assert not cut.row()["is_right"]


@pytest.mark.long
def test_a_small_world_is_built_once_and_its_traces_are_read(
    stand_in: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an untrained model in place of the pretrained one."""
    monkeypatch.setattr(traces, "MOST_TOKENS", 8)
    settings = Miniature(world="agents", train_questions=8, evaluate_questions=8, scale=0.05)
    for _ in range(2):
        with Run(
            Store(str(tmp_path / "store")), Place(str(tmp_path / "run")), Terminal(), InProcess()
        ) as run:
            place = build_world(run, settings, Placement())
    assert stand_in == ["smollm2-135m"]
    files = models_of(place)["teacher"]
    assert set(files) == set(MANNERS)
    for path in files.values():
        found = read_answers(str(place / path), Fields())
        assert found.count == 8
    questions = read_questions(str(place / "evaluate.jsonl"), Fields())
    assert len(questions.questions) == 8
    rows = [json.loads(line) for line in (place / "evaluate.jsonl").read_text().splitlines()]
    assert {row["prompt"][0]["content"] for row in rows} == {TOOLS}
    assert {row["family"] for row in rows} == {f"after {manner}" for manner in MANNERS}
    assert not Path(f"{place}/agents/model").is_dir(), "no weights are kept that nobody needs"
