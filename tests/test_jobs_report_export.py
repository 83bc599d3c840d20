"""Exports are read by the programs that they are for."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.messages import Message, Prompt, ToolCall, plain
from cluster.models.rendering import Renderer
from jobs.files.layouts import read_teacher_files
from jobs.files.questions import Question
from jobs.files.turns import turns_of
from jobs.report.export import export_run
from jobs.report.formats import FORMATS, CannotHold, ChosenAnswer
from jobs.results.outcome import Outcome
from tests.runs import run

CALL = ToolCall("add", '{"a": 1}')
TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}]
)
ABOUT = {"cost": 1.0, "rank": 1, "candidates": 2, "weight": 1.0}


@pytest.fixture
def exported(small_world: dict[str, Any], tmp_path: Path) -> tuple[Outcome, Path]:
    _, outcome = run(small_world, tmp_path)
    export_run(outcome, tmp_path / "out", list(FORMATS))
    return outcome, tmp_path / "out"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_format_holds_the_choice_and_says_whose_it_is(exported: tuple[Outcome, Path]) -> None:
    outcome, out = exported
    path = next(p for p in outcome.paths if p.arm.name == "scas")
    name = f"{path.label.replace(' ', '-')}-round-1"
    chosen = outcome.rounds[path, 1].chosen.whole("chosen")
    pool = outcome.start.pool.answers.set_index("answer_id")
    said = [
        (outcome.start.questions[q].text, pool.loc[a, "text"])
        for q, a in zip(chosen["question_id"], chosen["answer_id"], strict=True)
    ]
    for form in ("messages", "trl", "llama-factory"):
        rows = rows_of(out / form / f"{name}.jsonl")
        turns = [turns_of(row) for row in rows]
        assert [(t.prompt.text, t.answer.content) for t in turns if t.prompt and t.answer] == said, form
        assert [r["teacher_id"] for r in rows] == list(chosen["teacher"])
        assert [r["cost"] for r in rows] == list(chosen["cost"])
    verl = pq.read_table(out / "verl" / f"{name}.parquet").to_pylist()
    assert [(r["prompt"][0]["content"], r["extra_info"]["answer"]) for r in verl] == said
    assert all(r["reward_model"]["ground_truth"] for r in verl)
    for row in rows_of(out / "preference" / f"{name}.jsonl"):
        right, wrong = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert right != wrong
        states = pool[pool["question_id"] == row["id"]].set_index("text")["state"]
        assert states[right] == "verified"
        assert states[wrong] == ("wrong" if row["rejected_because"] == "wrong" else "verified")
    info = json.loads((out / "llama-factory" / "dataset_info.json").read_text())
    assert info[name] == {
        "file_name": f"{name}.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
    }


def test_the_card_names_teachers_states_and_files(exported: tuple[Outcome, Path]) -> None:
    outcome, out = exported
    _, head, text = (out / "README.md").read_text().split("---\n", 2)
    for config in yaml.safe_load(head)["configs"]:
        assert list(out.glob(config["data_files"])), config
    assert "teacher ann: answers from" in text
    assert "24 questions (24 as columns)" in text
    assert f"| verified | {(outcome.start.pool.answers['state'] == 'verified').sum()} |" in text


def test_what_the_pool_exports_is_scored_as_it_was(exported: tuple[Outcome, Path]) -> None:
    outcome, out = exported
    answers = outcome.start.pool.answers
    own = answers[answers["state"] == "verified"]
    found = read_teacher_files(str(out / "answers"))
    assert sorted((r.question_id, r.teacher, r.answer) for r in found.rows) == sorted(
        zip(own["question_id"], own["teacher"], own["text"], strict=True)
    )


@pytest.mark.skipif(find_spec("datasets") is None, reason="datasets is not installed")
def test_the_loader_of_datasets_reads_every_format(
    exported: tuple[Outcome, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    _, out = exported
    for form in FORMATS:
        kind = "parquet" if form == "verl" else "json"
        files = sorted(str(p) for p in (out / form).glob("*scas*") if p.suffix in (".jsonl", ".parquet"))
        cache = str(tmp_path / "cache")
        loaded = datasets.load_dataset(kind, data_files=files, split="train", cache_dir=cache)
        assert len(loaded) >= 20, form


def of(prompt: Prompt, answer: Message) -> ChosenAnswer:
    return ChosenAnswer(Question("q", prompt, ("r",)), (answer,), "ann", ABOUT)


TOOL_TALK = Prompt(
    (Message("user", "add"), Message("assistant", "", tool_calls=(CALL,)), Message("tool", "3")), TOOLS
)


@pytest.mark.parametrize("form", ["messages", "trl", "llama-factory"])
@pytest.mark.parametrize(
    "chosen",
    [
        of(plain("q", "s"), Message("assistant", "a", "why")),
        of(TOOL_TALK, Message("assistant", "three")),
        of(Prompt((Message("user", "add"),), TOOLS), Message("assistant", "", tool_calls=(CALL,))),
    ],
)
def test_conversations_come_back_as_they_were(form: str, chosen: ChosenAnswer) -> None:
    found = turns_of(json.loads(json.dumps(FORMATS[form](chosen))))
    assert found.prompt == chosen.question.prompt
    (answer,) = chosen.said
    if form == "llama-factory" and answer.reasoning:
        answer = Message("assistant", f"<think>\n{answer.reasoning}\n</think>\n\n{answer.content}")
    assert found.answer == answer


@pytest.mark.parametrize(
    ("form", "chosen"),
    [
        ("llama-factory", of(plain("q"), Message("assistant", "I will", tool_calls=(CALL,)))),
        ("verl", of(TOOL_TALK, Message("assistant", "three"))),
        ("verl", ChosenAnswer(Question("q", plain("q")), (Message("assistant", "a"),), "ann", ABOUT)),
        ("preference", of(plain("q"), Message("assistant", "a"))),
    ],
)
def test_what_a_format_cannot_hold_is_refused(form: str, chosen: ChosenAnswer) -> None:
    with pytest.raises(CannotHold):
        FORMATS[form](chosen)


TRL_SFT = """
import json, sys
from trl import SFTConfig, SFTTrainer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
student, rows, out = sys.argv[1:]
config = SFTConfig(output_dir=out, use_cpu=True, report_to=[], bf16=False, completion_only_loss=True)
trainer = SFTTrainer(
    AutoModelForCausalLM.from_pretrained(student), config,
    train_dataset=Dataset.from_list(json.loads(rows)),
    processing_class=AutoTokenizer.from_pretrained(student),
)
rows = [dict(row) for row in trainer.train_dataset]
print("ROWS" + json.dumps([[row["input_ids"], [int(x != -100) for x in row["labels"]]] for row in rows]))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="TRL is not installed")
def test_trl_trains_on_the_same_tokens(golden: Path, tmp_path: Path) -> None:
    """TRL's own formatting and tokenisation of our export, in a process of its own, against ours."""
    talk = Prompt((Message("user", "a"), Message("assistant", "b"), Message("user", "c")))
    chosen = [
        of(plain("What is 2+2?", "Be brief."), Message("assistant", "It is 4.")),
        of(talk, Message("assistant", "d e")),
    ]
    rows = [{k: v for k, v in FORMATS["trl"](c).items() if k in ("prompt", "completion")} for c in chosen]
    command = [sys.executable, "-c", TRL_SFT, str(golden / "student"), json.dumps(rows), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.split("ROWS")[1])
    renderer = Renderer(load_tokenizer(ModelSource(str(golden / "student"))))
    for (ids, mask), c in zip(theirs, chosen, strict=True):
        ours = renderer.conversation(c.question.prompt, c.answer.content)
        assert ids[: ours.answer_end] == list(ours.ids)[: ours.answer_end]
        assert mask.index(1) == ours.prompt_length
