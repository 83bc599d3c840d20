"""Answers of many turns through a whole run: chosen by all their turns, learned without what others say, and
exported whole.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BadInput
from cluster.models.messages import Message, Prompt
from jobs.report.export import export_run
from jobs.report.replay import replay_answer
from jobs.report.run import render_report
from jobs.results.summary import summarise
from jobs.stages.examples import EXAMPLES
from tests.conftest import write_jsonl
from tests.runs import run
from tests.test_jobs_files_layouts import rows_of
from tests.test_pipeline_slices import choices, everything, refuse_difference
from training.data import Examples

GO_ON = "Go on."


def traces(world: dict[str, Any]) -> dict[str, Any]:
    """The small world with every answer of two teachers in two turns of the assistant, one teacher's answers
    as they were, and a row that ends with the user.
    """
    for teacher in world["teachers"][:2]:
        path = Path(teacher["path"])
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        made = []
        for number, row in enumerate(rows):
            first, _, last = row["teacher_output"].rpartition("A:")
            turns = [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": first or "I think."},
                {"role": "user", "content": GO_ON},
                {"role": "assistant", "content": f"A:{last}"},
            ]
            made.append({"id": row["id"], "messages": turns[:3] if number == 7 else turns})
        write_jsonl(path, made)
    teachers = [t | {"turns": "all"} for t in world["teachers"][:2]] + world["teachers"][2:]
    return world | {"teachers": teachers}


def test_a_trajectory_is_scored_chosen_learned_and_exported_whole(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    tree = traces(small_world) | {"arms": small_world["arms"][:1]}
    done, outcome = run(tree, tmp_path)
    pool = outcome.start.pool.answers
    many = pool[pool["turns"] != ""]
    assert set(many["teacher"]) == {"ann", "bob"}
    assert (many["state"] == "verified").mean() > 0.9, "the last turn is checked"
    (own,) = outcome.rounds.values()
    assert own.chosen is not None
    assert own.examples is not None
    chosen = own.chosen.whole("chosen")
    learned = Examples(own.examples.part(EXAMPLES))
    renderer = outcome.start.students["kid"].renderer()
    with_gaps = 0
    for example, row in zip(learned, chosen.to_dict("records"), strict=True):
        said = pool[pool["answer_id"] == row["answer_id"]].iloc[0]
        assert bool(example.gaps) == (said["turns"] != "")
        if not example.gaps:
            continue
        with_gaps += 1
        first, asked = json.loads(said["turns"])
        question = outcome.start.questions[row["question_id"]].prompt
        between = Message("assistant", first["content"]), Message("user", asked["content"])
        further = Prompt((*question.turns, *between))
        parts = [
            renderer.conversation(question, first["content"]),
            renderer.conversation(further, said["text"]),
        ]
        ((begin, end),) = example.gaps
        kept = [*example.ids[example.loss_start : begin], *example.ids[end : example.loss_end]]
        assert kept == [i for p in parts for i in p.ids[p.prompt_length : p.answer_end]]
        assert GO_ON in renderer.tokenizer.decode(list(example.ids[begin:end]))
    assert with_gaps > 3
    scored = own.scores.read().set_index("answer_id")["n_answer"]  # type: ignore[union-attr]
    ends = [i in renderer.special_ids for e in learned for i in (e.ids[e.loss_end - 1],)]
    assert all(ends)
    expected = [scored[i] + (2 if e.gaps else 1) for i, e in zip(chosen["answer_id"], learned, strict=True)]
    assert learned.loss_tokens.tolist() == expected, "what is scored is learned, and ends of turns"
    assert own.trained is not None

    broken = json.loads(Path(tree["teachers"][0]["path"]).read_text().splitlines()[7])["id"]
    refused = pool[(pool["question_id"] == broken) & (pool["teacher"] != "cat")]
    assert set(refused["state"]) == {"not_understood"}
    assert set(refused["error"]) == {"a trajectory that ends with a turn of the user"}

    files = export_run(outcome, tmp_path / "out", ["messages", "trl", "verl"])
    exported = [row for file in files if file.parent.name == "messages" for row in rows_of(file)]
    assert {len(row["messages"]) for row in exported} == {2, 4}
    for row in rows_of(tmp_path / "out" / "answers" / "ann.jsonl"):
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant", "user", "assistant"]
    assert f"<h1>{outcome.start.experiment.name}</h1>" in render_report(summarise(done, outcome))
    answer = str(chosen["answer_id"][[bool(e.gaps) for e in learned]].iloc[0])
    assert any("recorded scored" in line for line in replay_answer(outcome, answer))
    again, _ = run(tree, tmp_path)
    assert again.cached == len(again.stages)


def test_slices_change_nothing(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With slices that have trajectories and slices that have none."""
    tree = traces(small_world) | {"arms": small_world["arms"][:1]}
    rows = [json.loads(line) for line in Path(tree["teachers"][1]["path"]).read_text().splitlines()]
    write_jsonl(Path(tree["teachers"][1]["path"]), [*rows[:3], {"id": rows[4]["id"], "response": "A:1"}])
    write_jsonl(Path(tree["teachers"][0]["path"]), [{"id": rows[4]["id"], "response": "A:2"}, rows[5]])
    held = everything(*choices(tree, tmp_path))
    monkeypatch.setattr("jobs.run.slices.ROWS", 6)
    done, many = choices(tree, tmp_path)
    assert many.start.pool.count > 2
    assert set(many.start.pool.answers["turns"] != "") == {True, False}
    refuse_difference(held, everything(done, many))


def test_a_trajectory_with_tools_that_the_question_does_not_offer_is_refused(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """The student would be shown none of them, and learn their calls."""
    tree = traces(small_world)
    path = Path(tree["teachers"][0]["path"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tool = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": {}}}
    write_jsonl(path, [rows[0] | {"tools": [tool]}, *rows[1:]])
    _, outcome = choices(tree | {"arms": tree["arms"][:1]}, tmp_path)
    pool = outcome.start.pool.answers
    refused = pool[(pool["question_id"] == rows[0]["id"]) & (pool["teacher"] == "ann")]
    assert refused["state"].tolist() == ["not_understood"]
    assert "tools that the question does not offer" in refused["error"].iloc[0]


def test_answers_of_many_turns_that_are_read_as_one_are_refused_with_the_remedy(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    tree = traces(small_world)
    last = tree | {"teachers": [t | {"turns": "last"} for t in tree["teachers"]]}
    with pytest.raises(BadInput, match="set the teacher's turns: all"):
        choices(last, tmp_path)


def test_what_is_cut_in_scoring_is_cut_in_training(small_world: dict[str, Any], tmp_path: Path) -> None:
    tree = traces(small_world) | {"arms": [{"name": "ann", "rule": "teacher", "teacher": "ann"}]}
    _, outcome = run(tree, tmp_path)
    lengths = outcome.scores(next(iter(outcome.rounds))[0], 1)
    assert lengths is not None
    every = lengths.read()
    longest = int(every["conversation_tokens"][every["teacher"] == "ann"].max())
    _, cut = run(tree, tmp_path, score={"max_length": longest - 1, "cut": True})
    ((path, number),) = cut.rounds
    own, scores = cut.rounds[path, number], cut.scores(path, number)
    assert own.chosen is not None
    assert own.examples is not None
    assert scores is not None
    told = scores.read().set_index("answer_id")
    told = told[told["teacher"] == "ann"]
    is_cut = told["reason"].str.startswith("cut after turn 1 of the assistant's 2")
    assert 1 <= is_cut.sum() < len(told)
    chosen = own.chosen.whole("chosen")["answer_id"].tolist()
    learned = list(Examples(own.examples.part(EXAMPLES)))
    assert [len(e.ids) for e in learned] == told.loc[chosen, "conversation_tokens"].tolist()
    for answer, example in zip(chosen, learned, strict=True):
        if is_cut[answer]:
            assert not example.gaps, "one turn is left"
    chosen_were_cut = [bool(is_cut[answer]) for answer in chosen]
    assert any(chosen_were_cut)
    export_run(cut, tmp_path / "out", ["messages"])
    (file,) = (tmp_path / "out" / "chosen").iterdir()
    exported = rows_of(file)
    assert [row.get("turns_cut", 0) for row in exported] == [2 * was for was in chosen_were_cut]
    (file,) = (tmp_path / "out" / "messages").iterdir()
    assert [len(row["messages"]) for row in rows_of(file)] == [4 - 2 * was for was in chosen_were_cut]
    whole = rows_of(tmp_path / "out" / "answers" / "ann.jsonl")
    assert {len(row["messages"]) for row in whole} == {4}, "the pool is whole"
