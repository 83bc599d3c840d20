"""Data as people have it, through a whole run: nothing is cut, dropped or joined without a word."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadInput
from cluster.models.messages import Message, Prompt, plain
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.questions import Fields
from jobs.files.overlap import WORD, WORDS, overlaps
from jobs.files.questions import Question, read_questions
from jobs.pipeline import load_questions
from jobs.run.progress import Terminal
from jobs.stages.train import EXAMPLES
from selection.verification import VerifySettings, judge
from tests.conftest import write_jsonl
from tests.runs import open_here, run
from training.data import Examples


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def as_talk(tree: dict[str, Any]) -> dict[str, Any]:
    """The small world with an earlier exchange before each question, and answers as messages."""
    said = {}
    before = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "A:1"}]
    for name in ("train", "evaluate"):
        rows = rows_of(tree["questions"][name])
        for row in rows:
            said[row["id"]] = [*before, {"role": "user", "content": row.pop("question")}]
        write_jsonl(Path(tree["questions"][name]), [r | {"messages": said[r["id"]]} for r in rows])
    for teacher in tree["teachers"]:
        rows = rows_of(teacher["path"])
        turns = [[*said[r["id"]], {"role": "assistant", "content": r["teacher_output"]}] for r in rows]
        write_jsonl(Path(teacher["path"]), [{"messages": talk} for talk in turns])
    return tree


def test_conversations_go_whole_from_the_file_to_the_examples(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    tree = as_talk(small_world) | {"arms": [{"name": "random", "rule": "random"}]}
    # answers have no ids here: they find their questions by their turns
    done, outcome = run(tree, tmp_path)
    told = "24 questions (24 as messages), 24 of them with several turns or tools"
    assert outcome.start.data.lines[0].endswith(told)
    path = outcome.paths[0]
    table = outcome.rounds[path, 1].chosen.whole("chosen")
    assert len(table) == 24
    student = outcome.start.students["kid"]
    decode = student.renderer().tokenizer.decode
    examples = next(s for (kind, _), s in done.stages.items() if kind == "examples")
    for example in Examples(examples.part(EXAMPLES)):
        text = decode(list(example.ids))
        assert text.count("<|im_start|>user") == 2
        assert "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nA:1<|im_end|>" in text
        assert "hello" not in decode(list(example.ids)[example.loss_start :])


def test_what_is_not_understood_is_refused_row_by_row_with_its_reason_in_the_ledger(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    train, ann = Path(small_world["questions"]["train"]), Path(small_world["teachers"][0]["path"])
    picture = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}], "answer": "3"}
    write_jsonl(train, [*rows_of(train), picture | {"id": "seen"}, picture])
    bad = {"id": rows_of(train)[0]["id"], "messages": [{"role": "critic", "content": "x"}]}
    write_jsonl(ann, [bad, *rows_of(ann)[1:]])
    said: list[str] = []
    e = parse_experiment(small_world)
    load_questions(e, said.append)
    told = "24 questions (24 as columns); 2 refused: 2 with a part of the content of type image_url"
    assert said[0].endswith(told)
    done, outcome = run(small_world, tmp_path, arms=[{"name": "random", "rule": "random"}])
    ledger = outcome.rounds[outcome.paths[0], 1].chosen.whole("ledger")
    lost = ledger[ledger["state"] == "not_understood"].set_index("id")
    assert dict(lost["reason"]) == {
        "line 25: seen (row)": "a part of the content of type image_url",
        "line 26 (row)": "a part of the content of type image_url",
        f"ann/{bad['id']}/0": "a turn of the unknown speaker critic",
    }
    assert len(ledger[ledger["kind"] == "question"]) == 26
    assert done.stages


def test_what_a_teacher_is_told_is_asked_and_never_trained_on(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    hosted = {"kind": "model", "name": "dan", "path": str(tiny_model)}
    tree = small_world | {
        "teachers": [hosted, hosted | {"name": "eve", "ask_system": "Think step by step."}],
        "verify": {"method": "none"},
        "evaluate": {"metric": "loss"},
        "generate": {"max_new_tokens": 6},
        "arms": [{"name": "eve", "rule": "teacher", "teacher": "eve"}],
    }
    done, outcome = run(tree, tmp_path)
    views = {n: v for (kind, n), v in done.stages.items() if kind == "generate"}
    dan, eve = (set(views[name].request.items) for name in ("dan", "eve"))
    assert not dan & eve
    assert {a.prompt.system for a in views["eve"].request.items.values()} == {"Think step by step."}
    examples = next(s for (kind, _), s in done.stages.items() if kind == "examples")
    decode = outcome.start.students["kid"].renderer().tokenizer.decode
    texts = [decode(list(x.ids)) for x in Examples(examples.part(EXAMPLES))]
    assert texts
    assert not any("step by step" in text for text in texts)


def test_references_may_be_lists_and_functions_get_the_whole_row(
    small_world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Path(small_world["questions"]["train"])
    rows = rows_of(train)
    write_jsonl(train, [row | {"reference": ["no such", row["reference"]]} for row in rows])
    _, one = run(small_world, tmp_path, arms=[{"name": "random", "rule": "random"}])
    assert (one.start.pool.answers["state"] == "verified").sum() == 63
    (tmp_path / "rowcheck.py").write_text(
        "def check(answer, reference, row):\n"
        "    assert row['messages'][-1]['role'] == 'user' and isinstance(reference, list)\n"
        "    return row['extra'] == 1 and row['id'] != ''\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    both = [row | {"reference": ["a", "b"], "extra": i % 2} for i, row in enumerate(rows)]
    write_jsonl(train, both)
    write_jsonl(Path(small_world["questions"]["evaluate"]), [{"question": "unlike any", "extra": 1}])
    verify = {"method": "function", "function": "rowcheck:check"}
    _, two = run(small_world, tmp_path, verify=verify, arms=[{"name": "random", "rule": "random"}])
    states = two.start.pool.answers.groupby("question_id")["state"].first()
    assert {q["id"] for q in both if q["extra"]} == set(states[states == "verified"].index)


def test_nearly_the_same_question_on_both_sides_is_refused_or_counted_by_name(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    evaluate = Path(small_world["questions"]["evaluate"])
    long = "Nine farmers bring six carts of hay each to a market that opens at dawn on Friday"
    train = Path(small_world["questions"]["train"])
    write_jsonl(train, [*rows_of(train), {"id": "x", "question": f"{long}. How many?", "answer": "54"}])
    loud = {"id": "y", "question": f"Say: {long.upper()}!", "answer": "54"}
    write_jsonl(evaluate, [*rows_of(evaluate), loud])
    e = parse_experiment(small_world)
    with pytest.raises(BadInput, match=r"1 of 13, such as y beside x.*questions\.allow_overlap"):
        load_questions(e)
    allowed = small_world | {"questions": small_world["questions"] | {"allow_overlap": True}}
    questions, held_out, data = load_questions(parse_experiment(allowed))
    assert (len(questions), len(held_out), data.overlap) == (25, 13, 1)


words = st.sampled_from(["one", "two", "Three", "4", "five-six"])
texts = st.lists(words, min_size=1, max_size=30).map(" ".join)


def slowly(train: list[str], held: list[str]) -> set[int]:
    """By comparing every run of words with every other."""

    def runs(text: str) -> set[tuple[str, ...]]:
        found = WORD.findall(text.casefold())
        return {tuple(found[i : i + WORDS]) for i in range(len(found) - WORDS + 1)}

    def words_of(text: str) -> list[str]:
        return WORD.findall(text.casefold())

    often = Counter(run for text in held for run in runs(text))
    found = set()
    for i, h in enumerate(held):
        words = words_of(h)
        own = set(range(len(words)))
        for start in range(len(words) - WORDS + 1):
            if often[tuple(words[start : start + WORDS])] > 2:
                own -= set(range(start, start + WORDS))
        starts = [s for s in range(len(words) - WORDS + 1) if set(range(s, s + WORDS)) <= own]
        mine = {tuple(words[s : s + WORDS]) for s in starts}
        if any(h.casefold() == t.casefold() or mine & runs(t) for t in train):
            found.add(i)
    return found


@given(st.lists(texts, max_size=6), st.lists(texts, min_size=1, max_size=6))
def test_overlaps_are_those_of_a_plain_comparison(train: list[str], held: list[str]) -> None:
    asked = [Question(f"t{i}", plain(t)) for i, t in enumerate(train)]
    kept = [Question(str(i), plain(t)) for i, t in enumerate(held)]
    assert {int(found.held_out) for found in overlaps(asked, kept)} == slowly(train, held)


def test_formulas_and_conversations_are_compared_by_what_they_say() -> None:
    formulas = [Question("a", plain("2+2?")), Question("b", plain("2-2?"))]
    assert not overlaps(formulas[:1], formulas[1:])
    assert overlaps(formulas[:1], formulas[:1])
    signs = [Question(str(i), plain("".join(map(chr, range(0x4E00 + i, 0x4E14 + i))))) for i in (0, 3, 40)]
    assert [found.held_out for found in overlaps(signs[:1], signs[1:])] == ["3"]
    told = "Solve the following math problem step by step and put the last line of your answer in a box: "
    asked = [Question(str(i), plain(f"{told}{i % 4} and {i} apples")) for i in range(8)]
    assert not overlaps(asked[:4], asked[4:]), "what all held-out questions share is their instruction"
    assert [found.held_out for found in overlaps([*asked[:4], asked[6]], asked[4:])] == ["6"]
    talk = Prompt((Message("user", "hi"), Message("assistant", "yes"), Message("user", "2+2?")))
    assert not overlaps(formulas, [Question("c", talk)])
    assert overlaps([Question("d", talk.told("be brief"))], [Question("c", talk)])


def test_a_terminal_is_told_what_was_detected(
    small_world: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    with open_here(small_world, tmp_path, terminal=Terminal()) as here:
        load_questions(parse_experiment(small_world), here.terminal.say)
    assert "24 questions (24 as columns)" in capsys.readouterr().out


def test_questions_that_differ_in_their_system_text_keep_their_own_answers(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    rows = [{"question": "hello?", "system": s, "reference": "r"} for s in ("in French", "in German")]
    write_jsonl(Path(small_world["questions"]["train"]), rows)
    for teacher in small_world["teachers"]:
        said = [{k: r[k] for k in ("question", "system")} | {"answer": f"A: {r['system']}"} for r in rows]
        write_jsonl(Path(teacher["path"]), said)
    about = {"verify": {"method": "none"}, "evaluate": {"metric": "loss"}}
    _, outcome = run(small_world, tmp_path, arms=[{"name": "r", "rule": "random"}], **about)
    questions = outcome.start.questions
    assert len(questions) == 2
    for answer in outcome.start.pool.answers.itertuples():
        assert answer.text == f"A: {questions[str(answer.question_id)].prompt.system}"
    write_jsonl(Path(small_world["teachers"][0]["path"]), [{"question": "hello?", "answer": "A: ?"}])
    with pytest.raises(BadInput, match="may belong to several questions"):
        run(small_world, tmp_path / "again", store=str(tmp_path / "other"), **about)


def test_two_rows_that_are_not_understood_may_have_one_id(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    train = Path(small_world["questions"]["train"])
    picture = {"id": 7, "question": "q", "images": ["x"], "answer": "3"}
    write_jsonl(train, [*rows_of(train), picture, picture])
    _, outcome = run(small_world, tmp_path, arms=[{"name": "random", "rule": "random"}])
    assert [r.id for r in outcome.start.pool.refused] == ["line 25: 7", "line 26: 7"]


def test_references_may_hold_reasoning_and_empty_ones_are_passed_over(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "6", "thinking": "5?"},
            ]
        },
        {"question": "p", "reference": "", "answer": "6"},
    ]
    found = read_questions(write_jsonl(tmp_path / "q.jsonl", rows), Fields()).questions
    for question in found:
        assert judge("A: 6", question.references, VerifySettings("exact")).state == "correct"
        assert judge("A: 5?", question.references, VerifySettings("exact")).state == "wrong"
