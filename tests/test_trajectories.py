"""Answers of many turns: rendered behind what was generated before, scored on the assistant's tokens alone,
read from files as agents write them.
"""

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import tutelage as front
from cluster.errors import TutelageError, Unrenderable
from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.messages import Message, Prompt, ToolCall, write_calls
from cluster.models.reasoning import with_reasoning
from cluster.models.rendering import Rendered, Renderer
from selection.scoring import Scorer, Statistics
from tests.conftest import write_jsonl
from tests.in_process import InProcess
from tests.runs import tutelage
from tests.test_cluster_models_conversations import templates
from tests.test_cluster_models_loading import random_model
from tests.test_jobs_files_layouts import rows_of
from tests.test_selection_scoring import slow_statistics

SPECIAL = frozenset({0, 1})
ADD = [{"type": "function", "function": {"name": "add", "description": "adds two numbers", "parameters": {}}}]
ASKED = Prompt((Message("user", "What is 2+3, then 5+4?"),))
WITH_TOOL = Prompt(ASKED.turns, json.dumps(ADD))


def call(number: int) -> tuple[ToolCall, ...]:
    return (ToolCall("add", json.dumps({"a": number}), f"call_{number}"),)


def said(text: str, reasoning: str | None = None, calls: tuple[ToolCall, ...] = ()) -> Message:
    return Message("assistant", text, reasoning, calls)


def result(text: str, number: int) -> Message:
    return Message("tool", text, None, (), "add", f"call_{number}")


CASES = {
    "chat": (ASKED, (said("First 5."), Message("user", "And then?"), said("Then 9."))),
    "tools": (WITH_TOOL, (said("I add.", None, call(1)), result("5", 1), said("", None, call(2)),
                          result("9", 2), said("It is 9."))),
    "reasoned tools": (WITH_TOOL, (said("I add.", "two and three", call(1)), result("5", 1),
                                   said("It is 9.", "five and four"))),
}  # fmt: skip


def alone(renderer: Renderer, asked: Prompt, turns: tuple[Message, ...]) -> list[Rendered]:
    """Every turn of the assistant behind its own prompt."""
    found = []
    for k, turn in enumerate(turns):
        if turn.role == "assistant":
            prompt = Prompt((*asked.turns, *turns[:k]), asked.tools)
            text, calls = with_reasoning(turn.reasoning, turn.content), write_calls(turn.tool_calls)
            found.append(renderer.conversation(prompt, text, calls=calls))
    return found


@pytest.mark.skipif(not templates(), reason="trl is not installed")
def test_templates_of_the_field_give_what_each_turn_alone_gives_or_refuse_by_name(golden: Path) -> None:
    """Of 72 templates in TRL 1.16. Those that drop or invent think blocks in earlier turns are refused."""
    equal, refused = Counter[str](), Counter[str]()
    for file in templates():
        template = file.read_text()
        tokenizer = load_tokenizer(ModelSource(str(golden / "student")))
        marks = re.findall(r"<\|[^|<>\s]{2,40}\|>|<｜[^｜]{2,40}｜>|</?(?:start|end)_of_turn>", template)
        tokenizer.add_special_tokens({"extra_special_tokens": sorted(set(marks))})
        tokenizer.chat_template = template
        renderer = Renderer(tokenizer)
        try:
            renderer.prove()
        except TutelageError:
            continue
        for name, (asked, turns) in CASES.items():
            try:
                found = renderer.trajectory(asked, turns)
            except Unrenderable as error:
                refused[str(error.what)] += 1
                continue
            each = alone(renderer, asked, turns)
            assert len(found.spans) == len(each)
            for (start, end), own in zip(found.spans, each, strict=True):
                assert found.ids[:start] == own.ids[: own.prompt_length], (file.name, name)
                assert found.ids[start:end] == own.ids[own.prompt_length : own.answer_end], (file.name, name)
            equal[name] += 1
    assert equal["chat"] >= 35
    assert equal["tools"] >= 20
    assert equal["reasoned tools"] >= 15
    assert any("rewrites an earlier turn" in why for why in refused)
    assert any("no end of a turn" in why for why in refused)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BROKEN = "The file has 12 lines.\n\n  return x1 + 7  # naïve – 数\n"


def tokenizers_of_kinds() -> dict[str, Any]:
    """Tokenizers that treat spaces, and what stands behind a special token, in different ways."""
    corpus = [BROKEN * 3, "user assistant the quick brown fox"]
    trained = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|im_start|>", "<|im_end|>"])
    kinds: dict[str, tuple[Any, Any, Any]] = {
        "bytes": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
        "bytes, space before": (None, pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()),
        "space always": (None, pre_tokenizers.Metaspace(prepend_scheme="always"), decoders.Metaspace()),
        "space first": (None, pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()),
        "space never": (None, pre_tokenizers.Metaspace(prepend_scheme="never"), decoders.Metaspace()),
        "no pieces": (
            normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            None,
            decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        ),
    }
    found = {}
    for name, (normalizer, pieces, decoder) in kinds.items():
        tokenizer = Tokenizer(models.BPE())
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        if pieces is not None:
            tokenizer.pre_tokenizer = pieces
        tokenizer.decoder = decoder
        tokenizer.train_from_iterator(corpus, trained)
        found[name] = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=CHATML
        )
    return found


def test_turns_encoded_from_a_special_token_on_are_what_the_whole_gives() -> None:
    """Each turn was encoded with all before it, three times: 30 turns took 38 times as long as their text."""
    rng, with_seams = random.Random(0), Counter[bool]()
    for name, tokenizer in tokenizers_of_kinds().items():
        fast, slow = Renderer(tokenizer), Renderer(tokenizer)
        slow.__dict__["seams"] = {}
        with_seams[bool(fast.seams)] += 1
        for _ in range(30):
            texts = [BROKEN[rng.randrange(9) : rng.randrange(20, 60)] * rng.randrange(1, 4) for _ in range(9)]
            turns = [Message("user" if k % 2 else "assistant", text) for k, text in enumerate(texts)]
            try:
                expected = slow.trajectory(ASKED, turns)
            except Unrenderable as error:
                with pytest.raises(Unrenderable, match=re.escape(str(error.what))):
                    fast.trajectory(ASKED, turns)
            else:
                assert fast.trajectory(ASKED, turns) == expected, name
    assert with_seams[True] >= 4


def test_a_trajectory_encodes_its_text_about_once(golden: Path) -> None:
    renderer = Renderer(load_tokenizer(ModelSource(str(golden / "student"))))
    turns = [Message("user" if k % 2 else "assistant", f"{k} plus 7 ") for k in range(61)]
    assert renderer.seams
    with mock.patch.object(renderer, "_encode", wraps=renderer._encode) as encode:
        found = renderer.trajectory(ASKED, turns)
    assert sum(len(each.args[0]) for each in encode.call_args_list) < 3 * len(
        renderer.tokenizer.decode(found.ids)
    )


def test_the_reference_program_knows_no_trajectories(golden: Path) -> None:
    renderer = Renderer(load_tokenizer(ModelSource(str(golden / "student"))), compat="reference")
    with pytest.raises(Unrenderable, match="authors' program"):
        renderer.trajectory(*CASES["chat"])


def draw_spans(seed: int) -> Rendered:
    """A row with some spans, and one special token in each half."""
    import torch

    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 60, (40,), generator=rng).tolist()
    ids[12], ids[25] = 0, 1
    return Rendered(tuple(ids), 5 + seed, 38, ((5 + seed, 14), (20, 21), (24 + seed, 38)))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "deepseek_v3"])
def test_statistics_are_of_the_assistants_tokens_alone_whoever_shares_a_batch(kind: str) -> None:
    rows = [draw_spans(seed) for seed in range(4)]
    one_turn = Rendered(rows[0].ids, rows[0].prompt_length, 30)
    model = random_model(kind)
    scorer = Scorer(model, SPECIAL)
    together = scorer.score([*rows, one_turn])
    for row, found in zip([*rows, one_turn], together, strict=True):
        assert isinstance(found, Statistics)
        (by_itself,) = scorer.score([row])
        slow = slow_statistics(random_model(kind), row, SPECIAL, scorer.layer.name)
        for name, value in slow.items():
            assert getattr(found, name) == pytest.approx(value, rel=2e-4, abs=1e-4), name
            assert getattr(by_itself, name) == pytest.approx(value, rel=2e-4, abs=1e-4), name


def test_a_trajectory_without_a_countable_token_of_the_assistant_is_empty() -> None:
    row = Rendered((5, 6, 7, 0, 8, 9, 1, 9), 3, 7, ((3, 4), (6, 7)))
    (found,) = Scorer(random_model("llama"), SPECIAL).score([row])
    assert isinstance(found, Exception)
    assert "no token besides special ones" in str(found)


MESSAGES = [
    {"role": "user", "content": "2+3, then 5+4?"},
    {"role": "assistant", "content": "I add."},
    {"role": "user", "content": "go on"},
    {"role": "assistant", "content": "A: 9"},
]


def test_turns_are_scored_together_or_each_alone_and_the_last_one_as_before(golden: Path) -> None:
    student = str(golden / "student")
    rows = [{"id": "q", "teacher": t, "messages": MESSAGES} for t in ("ann", "bob")]
    whole = front.score(student, answers=rows, turns="all")
    each = front.score(student, answers=rows, turns="each")
    last = front.score(student, answers=rows)
    assert [len(found) for found in (whole, each, last)] == [2, 4, 2]
    assert set(whole["state"]) | set(each["state"]) | set(last["state"]) == {"scored"}
    own = each[each["teacher"] == "ann"]
    assert own["answer_id"].tolist() == ["ann/q/0/turn 1", "ann/q/0/turn 2"]
    for name in ("n_answer", "answer_loss", "clipped_rank", "brier", "entropy"):
        assert whole[name].iloc[0] == pytest.approx(own[name].sum(), rel=1e-5), name
    assert whole["max_loss"].iloc[0] == pytest.approx(own["max_loss"].max(), rel=1e-5)
    assert last["answer_loss"].iloc[0] == pytest.approx(own["answer_loss"].iloc[1], rel=1e-6)
    assert set(whole["question"]) == {"2+3, then 5+4?"}


def trace(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "q", "messages": [{"role": "user", "content": "2+3?"}, *turns], **more}


def calling(name: str = "add", identity: str = "c1") -> dict[str, Any]:
    function = {"name": name, "arguments": "{}"}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": identity, "type": "function", "function": function}],
    }


TOLD = {"role": "tool", "content": "5", "tool_call_id": "c1"}
DONE = {"role": "assistant", "content": "A: 5"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (trace(calling(), TOLD), "a trajectory that ends with a turn of the tool"),
        (trace(calling(), DONE), "a turn of the assistant where a user or a tool should"),
        (trace(calling(), {"role": "user", "content": "?"}, DONE), "a call of add without a result"),
        (trace(calling(), TOLD, TOLD, DONE), "two results of tools for one call"),
        (
            trace(calling(), TOLD, {"role": "tool", "content": "6"}, DONE),
            "more results of tools than calls",
        ),
        (trace(calling(), TOLD, DONE, DONE), "a turn of the assistant where a user or a tool should"),
        (trace(calling(), {**TOLD, "tool_call_id": "c9"}, DONE), "a tool's result for the call c9"),
        (
            trace(DONE, {"role": "user", "content": "more"}, TOLD, DONE),
            "a tool's result after a turn of the user",
        ),
        (
            trace(calling(), TOLD, {**DONE, "weight": 0}, {"role": "user", "content": "more"}, DONE),
            "a mark that a turn between others is not to be learnt",
        ),
        (trace(calling(), TOLD, DONE, tools=[*ADD, *ADD]), "two tools of the name add"),
    ],
)
def test_a_broken_trajectory_is_refused_by_name_and_costs_its_row_alone(
    row: dict[str, Any], why: str, golden: Path
) -> None:
    good = trace(DONE, {"role": "user", "content": "sure?"}, DONE) | {"id": "good", "teacher": "ann"}
    with pytest.warns(UserWarning, match="no cost"):
        found = front.score(str(golden / "student"), answers=[row | {"teacher": "ann"}, good], turns="all")
    assert any(why in reason for reason in found["reason"]), found["reason"].tolist()
    assert found.set_index("question_id")["state"]["good"] == "scored"


def test_the_prompt_of_a_row_that_divides_it_is_the_question_whole(golden: Path) -> None:
    """Few-shot examples in a prompt are no answers of the teacher."""
    shots = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "A: 2"}]
    rows = [
        {"teacher": "ann", "prompt": [*shots, {"role": "user", "content": f"{k}+1?"}], "completion": said}
        for k, said in enumerate(([DONE], [DONE, {"role": "user", "content": "sure?"}, DONE]))
    ]
    whole = front.score(str(golden / "student"), answers=rows, turns="all")
    last = front.score(str(golden / "student"), answers=rows)
    assert whole["question"].tolist() == ["0+1?", "1+1?"]
    assert whole["n_answer"].iloc[0] == last["n_answer"].iloc[0]
    assert whole["n_answer"].iloc[1] == 2 * last["n_answer"].iloc[1]


def test_files_of_agents_are_ranked_by_all_their_turns(golden: Path, tmp_path: Path) -> None:
    """A ShareGPT row with calls in turns of their own, one with calls in the text, and messages."""
    share = [
        {"from": "human", "value": "2+3?"},
        {"from": "gpt", "value": 'Action: add {"a": 2}'},
        {"from": "observation", "value": "5"},
        {"from": "gpt", "value": "A: 5"},
    ]
    plain = trace(DONE, {"role": "user", "content": "sure?"}, {"role": "assistant", "content": "Yes. A: 5"})
    write_jsonl(tmp_path / "in" / "ann.jsonl", [{"id": "q", "conversations": share}])
    write_jsonl(tmp_path / "in" / "bob.jsonl", [plain])
    options = ("--student", golden / "student", "--answers", tmp_path / "in")
    done = tutelage("rank", *options, "--out", tmp_path / "out", "--turns", "all", "--cost", "longest")
    assert done.returncode == 0, done.stderr
    order = pd.read_csv(tmp_path / "out" / "order.csv")
    assert order[order["cost"] == "longest"]["teacher"].tolist()[0] == "ann"
    scored = tutelage("score", *options, "--out", tmp_path / "scores", "--turns", "all")
    assert scored.returncode == 0, scored.stderr
    (row,) = rows_of(tmp_path / "scores" / "ann_scas_scores.jsonl")
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    bad = tutelage("score", *options, "--out", tmp_path / "scores", "--turns", "first")
    assert bad.returncode == 2
    assert "--turns; got first; expected last, all, each" in bad.stderr


def test_each_turn_is_ranked_and_the_last_one_alone_is_checked(golden: Path) -> None:
    first = {"role": "assistant", "content": "I add."}
    rows = [
        trace(first, {"role": "user", "content": "go on"}, {"role": "assistant", "content": f"A: {said}"})
        | {"id": str(k), "teacher": teacher, "reference": "5"}
        for k in range(3)
        for teacher, said in (("ann", 5), ("bob", 6))
    ]
    for turns in ("all", "each"):
        found = front.rank(str(golden / "student"), answers=rows, turns=turns, method="numeric")
        assert found.teachers.set_index("teacher")["right"].to_dict() == {"ann": 1.0, "bob": 0.0}, turns
        assert found.questions == 3
        assert (found.teachers["tokens"] > 5).all(), "of whole answers"
    tokens = [
        front.rank(str(golden / "student"), answers=rows, turns=t).teachers["tokens"].tolist()
        for t in ("all", "each")
    ]
    assert tokens[0] == tokens[1]


def test_a_clusters_actors_score_whole_trajectories_and_keep_them_apart_from_last_turns(
    golden: Path, tmp_path: Path
) -> None:
    turns = [DONE, {"role": "user", "content": "sure?"}, {"role": "assistant", "content": "Yes. A: 5"}]
    rows = [trace(*turns) | {"id": str(k), "teacher": t} for k in range(3) for t in ("ann", "bob")]
    write_jsonl(tmp_path / "in" / "all.jsonl", rows)
    options = ("--student", golden / "student", "--answers", tmp_path / "in", "--store", tmp_path / "store")
    orders = {}
    with mock.patch("jobs.standalone.cluster.RayHost", side_effect=lambda *rest: InProcess()):
        for name, more in (
            ("here", ("--turns", "all")),
            ("there", ("--turns", "all", "--address", "auto")),
            ("last", ("--address", "auto")),
        ):
            done = tutelage("rank", *options, "--out", tmp_path / name, *more)
            assert done.returncode == 0, done.stderr
            orders[name] = pd.read_csv(tmp_path / name / "order.csv")
    pd.testing.assert_frame_equal(orders["here"], orders["there"], rtol=1e-4)
    longest = {name: -own.loc[own["cost"] == "longest", "mean"].iloc[0] for name, own in orders.items()}
    assert longest["there"] > longest["last"] > 0, "the store keeps them apart"


def test_a_trajectory_longer_than_the_limit_is_told_of(golden: Path) -> None:
    turns = [turn for _ in range(1000) for turn in (DONE, {"role": "user", "content": "again"})]
    rows = [trace(*turns, DONE) | {"teacher": "ann"}, trace(DONE) | {"id": "short", "teacher": "ann"}]
    with pytest.warns(UserWarning, match="1 too_long"):
        found = front.score(str(golden / "student"), answers=rows, turns="all", max_length=100)
    assert sorted(found["state"]) == ["scored", "too_long"]


def test_a_trajectory_longer_than_the_limit_is_cut_at_a_turn_if_one_asks_for_it(golden: Path) -> None:
    """What is left has the statistics of a trajectory that ends there, and the row says what was cut."""
    long, short = trace(DONE, {"role": "user", "content": "sure?"}, DONE), trace(DONE)
    student = str(golden / "student")
    whole = front.score(student, answers=[long], turns="all").iloc[0]
    ended = front.score(student, answers=[short], turns="all").iloc[0]
    limit = int(whole["conversation_tokens"]) - 1
    cut = front.score(student, answers=[long], turns="all", max_length=limit, cut=True).iloc[0]
    assert (cut["state"], cut["reason"]) == ("scored", "cut after turn 1 of the assistant's 2")
    assert cut["conversation_tokens"] == ended["conversation_tokens"] < whole["conversation_tokens"]
    assert cut["cost"] == pytest.approx(ended["cost"], abs=1e-9)
    same = front.score(student, answers=[long], turns="all", max_length=limit + 1, cut=True).iloc[0]
    assert (same["reason"], same["cost"]) == ("", whole["cost"])
    with pytest.warns(UserWarning, match="no cost"):
        lost = front.score(student, answers=[long], turns="all", max_length=8, cut=True).iloc[0]
    assert lost["state"] == "too_long", "not even the first turn fits"
    with pytest.raises(TutelageError, match="only answers of many turns are cut"):
        front.score(student, answers=[long], cut=True)
