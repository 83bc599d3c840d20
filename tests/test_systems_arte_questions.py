"""Questions that a teacher writes: what is found in its texts, and what happens to everything else."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadInput
from cluster.models.messages import plain
from jobs.experiment.elicit import PATTERN, Elicit
from jobs.files.answers import Row
from jobs.files.overlap import text_of
from jobs.files.questions import Question
from jobs.systems.arte.preferring import shown_before
from jobs.systems.arte.questions import (
    CUT_OFF,
    DUPLICATE,
    KEPT,
    KNOWN,
    SPARE,
    UNPARSED,
    UNTAGGED,
    _Searching,
    prompt_for,
    shown_in,
    split_tasks,
)

TASKS = {"sums": "Write a sum.", "words": "Write a word problem."}
STYLES = {"short": "Be short.", "long": "Explain."}


def elicit(**about: Any) -> Elicit:
    given = {"teacher": "t", "tasks": TASKS, "styles": STYLES, "seeds": 3, "validation": 4, "items": 2}
    return Elicit.model_validate(given | about)


def questions(task: str, count: int) -> dict[str, Question]:
    made = (Question(f"{task}-{k}", plain(f"{task} {k} + {k}?"), (str(2 * k),), task) for k in range(count))
    return {q.id: q for q in made}


def tagged(question: str, answer: str | None = "4") -> str:
    return f"<question>{question}</question>" + ("" if answer is None else f"\n<answer>{answer}</answer>")


def search(e: Elicit, *texts: str, known: tuple[str, ...] = ()) -> _Searching:
    found = _Searching(e, frozenset(text_of(plain(k)) for k in known), None, dict.fromkeys(e.tasks, 0))
    for text in texts:
        found.take("sums", text, "stop")
    return found


def test_every_text_and_every_question_found_in_it_has_one_state() -> None:
    text = "\n".join(
        [
            "Sure! Here are some:",
            tagged("2 + 2?"),
            tagged("What  is 2 + 2?"),
            tagged(" what is 2 + 2? ", "four"),  # by case and white space alone another
            tagged("No result?", None),
            tagged("   "),
            tagged("A seed?"),
        ]
    )
    found = search(elicit(), text, "I cannot do that.", "<question>cut off", known=("a SEED?",))
    assert found.states["sums"] == Counter({KEPT: 2, DUPLICATE: 1, UNTAGGED: 1, KNOWN: 1, UNPARSED: 2})
    written = found.written()
    assert [q.text for q in written.questions.values()] == ["2 + 2?", "What  is 2 + 2?"]
    assert set(written.tagged.values()) == {"4"}
    assert all(q.family == "sums" for q in written.questions.values())


def test_what_a_cut_off_text_ends_with_is_not_kept() -> None:
    found = _Searching(elicit(), frozenset(), None, dict.fromkeys(TASKS, 0))
    found.take("sums", tagged("2 + 2?") + tagged("3 + 3?"), "length")
    found.take("sums", tagged("4 + 4?") + " and so", "length")
    assert found.states["sums"] == Counter({KEPT: 2, CUT_OFF: 1})
    assert [q.text for q in found.written().questions.values()] == ["2 + 2?", "4 + 4?"]


def test_a_pattern_with_a_group_that_takes_no_part_finds_nothing_there() -> None:
    e = elicit(pattern=r"Q: (?P<question>.+)|A: (?P<answer>.+)", truth="majority", example="Q: {question}")
    found = search(e, "Q: 2 + 2?\nA: 4")
    assert found.states["sums"] == Counter({KEPT: 1})


def test_no_more_than_wanted_are_kept() -> None:
    found = search(elicit(questions=4), "\n".join(tagged(f"{k} + 1?") for k in range(7)))
    assert found.states["sums"] == Counter({KEPT: 4, SPARE: 3})


def test_a_question_without_a_result_is_kept_if_rationales_vote() -> None:
    found = search(elicit(truth="majority"), tagged("2 + 2?", None))
    assert found.states["sums"] == Counter({KEPT: 1})


@given(st.lists(st.text(max_size=40), max_size=6))
def test_any_text_is_searched_and_counted(texts: list[str]) -> None:
    found = search(
        elicit(truth="majority", example="{question}", pattern=r"(?s)\A(?P<question>.+)\Z"), *texts
    )
    assert sum(found.states.get("sums", Counter()).values()) == len(texts)
    assert len(found.written().questions) == found.states.get("sums", Counter())[KEPT]


def test_tasks_are_divided_by_content_and_nothing_is_in_two_parts() -> None:
    e, every = elicit(), questions("sums", 12) | questions("words", 9)
    found = split_tasks(e, every, seed=0)
    assert {t: (len(s.seeds), len(s.validation)) for t, s in found.items()} == dict.fromkeys(TASKS, (3, 4))
    for own in found.values():
        assert not {q.id for q in own.seeds} & {q.id for q in own.validation}
    others = [replace(q, id=f"x{k}") for k, q in enumerate(every.values())]
    again = split_tasks(e, {q.id: q for q in reversed(others)}, seed=0)
    for task, own in found.items():
        assert [q.text for q in own.seeds] == [q.text for q in again[task].seeds]


def test_too_few_or_equal_questions_of_a_task_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"task words has too few.*families there: sums"):
        split_tasks(elicit(), questions("sums", 9), seed=0)
    twins = questions("sums", 7) | questions("words", 6)
    twins["words-twin"] = Question("words-twin", plain("WORDS 3  + 3?"), ("6",), "words")
    with pytest.raises(BadInput, match=r"same text.*(words-3|words-twin) and (words-3|words-twin)"):
        split_tasks(elicit(), twins, seed=0)


def test_prompts_follow_from_the_seed_and_fill_no_slot_inside_a_question() -> None:
    e = elicit()
    texts = [f"what is {{count}} of {k}?" for k in range(5)]
    odd = [Question(f"q{k}", plain(text), ("{description}",), "sums") for k, text in enumerate(texts)]
    one, other = (shown_in(e, odd, 0, "sums", call) for call in (0, 1))
    assert one == shown_in(e, odd, 0, "sums", 0)
    assert len(one) == e.shown
    assert one != other
    text = prompt_for(e, "sums", one, 5)
    assert text.startswith("Write a sum.")
    assert text.count("what is {count} of") == 3
    assert "Write 5 new," in text


def test_a_demonstration_keeps_braces_in_texts() -> None:
    draft = Row("a", "q", "short", plain("f{item} = {rationale}?"), "{question} is {item}")
    shown = shown_before(elicit(), draft, "2 + 2?")
    assert shown == "f{item} = {rationale}?\n{question} is {item}\n\n2 + 2?"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"items": 5}, "items are some of validation"),
        ({"shown": 4}, "shown are some of seeds"),
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "(?P<answer>x)"}, r"needs a group \(\?P<question>"),
        ({"pattern": "<question>(?P<question>.*?)</question>"}, "truth tagged needs a group"),
        ({"truth": "best"}, "truth is tagged, majority"),
        ({"prompt": "no slot"}, "needs {description}"),
        ({"prompt": "{description} {seeds}"}, "knows"),
        ({"example": '{"q": "{question}", "a": "{answer}"}'}, "knows"),
        ({"demonstration": "{question} {rationale}"}, "needs"),
        ({"styles": {"plain": "x", "y": "z"}}, "the naive prompt"),
        ({"temperature": 0.0, "shown": 0}, "gives one text"),
        ({"align": {"beta": 0}}, "beta is out of range"),
        ({"example": "{question}"}, "pattern must find the question in example"),
        ({"demonstration": "{item}\n{question} {rationale}"}, "the item comes after"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any], told: str) -> None:
    assert elicit().pattern == PATTERN
    with pytest.raises(ValueError, match=told):
        elicit(**given)
