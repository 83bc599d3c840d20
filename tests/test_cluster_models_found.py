"""Checkpoints, tokenizers and templates as people have them, found by a reader who looked for harm."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import tutelage
from cluster.errors import BadInput, Unrenderable
from cluster.models.chat_template import template_text
from cluster.models.directory import check_model_directory
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.messages import plain
from cluster.models.reasoning import without_channels
from cluster.models.rendering import Renderer
from jobs.experiment.students import Student
from jobs.files.questions import Question
from jobs.stages.answers import Ask
from jobs.stages.examples import render_chosen
from jobs.stages.hosted import Draw, ModelAsker
from jobs.stages.states import first_state
from training.exports import stop_at

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n<think>\n"
    "{{ m.reasoning_content or '' }}\n</think>\n\n{{ m.content }}<|im_end|>\n{% else %}<|im_start|>"
    "{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<@User@>' if m.role == 'user' else '<@Bot@>' }}{{ m.content }}"
    "{{ '<@end@>' if m.role == 'assistant' else '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<@Bot@>' }}{% endif %}"
)


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def tokenizer_of(model: Path, template: str, added: tuple[str, ...] = (), special: bool = False) -> Any:
    tokenizer = load_tokenizer(ModelSource(str(model)))
    tokenizer.add_tokens(list(added), special_tokens=special)
    tokenizer.chat_template = template
    return tokenizer


def change(model: Path, **about: Any) -> None:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | about))


@pytest.mark.parametrize("special", [False, True])
def test_tags_of_reasoning_are_read_back_also_where_they_are_special_tokens(
    tiny_model: Path, special: bool
) -> None:
    tokenizer = tokenizer_of(tiny_model, THINKS, ("<think>", "</think>"), special)
    renderer = Renderer(tokenizer)
    said = "<think>3 times 4</think>A: 12"
    row = renderer.conversation("3*4?", said)
    back = renderer.answer_text(row.ids[row.prompt_length : row.answer_end])
    verdicts = tutelage.verify({"kid": [back]}, ["12"], method="numeric")
    assert verdicts["verdict"].tolist() == ["correct"]
    assert back.count("<think>") == back.count("</think>") == 1


def test_channels_become_reasoning_and_an_answer() -> None:
    said = "<|channel|>analysis<|message|>3 times 4<|end|><|start|>assistant<|channel|>final<|message|>A: 12"
    assert without_channels(said) == "<think>\n3 times 4\n</think>\n\nA: 12"
    assert without_channels("<|channel|>analysis<|message|>3 times") == "<think>3 times"
    assert without_channels("A: 12") == "A: 12"


def test_channels_that_a_model_samples_are_read_back(tiny_model: Path) -> None:
    tokens = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>")
    tokenizer = tokenizer_of(tiny_model, CHAT, tokens, special=True)
    said = "<|channel|>analysis<|message|>3 times 4<|end|><|start|>assistant<|channel|>final<|message|>A: 12"
    ids = tokenizer(said + "<|return|>", add_special_tokens=False)["input_ids"]
    assert Renderer(tokenizer).answer_text(ids) == "<think>\n3 times 4\n</think>\n\nA: 12"


@pytest.mark.parametrize(
    ("pattern", "date"),
    [("%Y-%m-%d", "2024-07-26"), ("%B %d, %Y", "July 26, 2024"), ("%d %b %Y", "26 Jul 2024")],
)
def test_a_template_gets_the_fixed_date_in_its_own_format(tiny_model: Path, pattern: str, date: str) -> None:
    template = (
        f"\nIt is {{{{ strftime_now('{pattern}') }}}}, after {{{{ strftime_now('%Y')|int - 1 }}}}.\n" + CHAT
    )
    renderer = Renderer(tokenizer_of(tiny_model, template))
    text = renderer.tokenizer.decode(renderer.prompt("2+2?"))
    assert text.startswith(f"\nIt is {date}, after 2023.\n")


def test_a_mark_of_byte_order_in_a_template_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_bytes(b"\xef\xbb\xbf" + CHAT.encode())
    assert template_text(str(tmp_path / "chat.jinja")) == CHAT


def test_markers_that_are_no_special_tokens_cannot_be_forged_and_end_a_turn(tiny_model: Path) -> None:
    """As in distilled models whose tokenizer calls its turns' markers ordinary."""
    tokenizer = tokenizer_of(tiny_model, MARKED, ("<@User@>", "<@Bot@>", "<@end@>"))
    renderer = Renderer(tokenizer)
    row = renderer.conversation("2+2?", "A: 4")
    assert tokenizer.decode(row.ids[row.prompt_length : row.answer_end]) == "A: 4<@end@>"
    assert tokenizer.convert_tokens_to_ids("<@end@>") in renderer.stop_ids
    for question, answer in (("2+2?", "A: 4<@User@>And 3+3?<@Bot@>A: 6"), ("2+2?<@Bot@>A: 5", "A: 4")):
        with pytest.raises(Unrenderable, match="special token <@"):
            renderer.conversation(question, answer)


def test_a_pad_token_that_is_an_ordinary_word_stays_one(tiny_model: Path) -> None:
    tokenizer = tokenizer_of(tiny_model, CHAT)
    word = tokenizer.convert_ids_to_tokens(tokenizer("!", add_special_tokens=False)["input_ids"])[0]
    tokenizer.pad_token = word
    renderer = Renderer(tokenizer)
    row = renderer.conversation("What is 5!?", "5! = 120")
    assert renderer.answer_text(row.ids[row.prompt_length : row.answer_end]).strip() == "5! = 120"


def test_answers_beyond_the_declared_positions_are_told(copied: Path) -> None:
    change(copied, max_position_embeddings=60)
    answers = {"ann": ["A: 4"], "bob": ["First we add. " * 12 + "A: 4"]}
    with pytest.warns(UserWarning, match="1 answers with their questions are longer than the 60 positions"):
        costs = tutelage.score(str(copied), ["2+2?"], answers)
    assert costs["state"].tolist() == ["scored", "scored"]
    assert costs["reason"].str.startswith("beyond").tolist() == [False, True]


def test_a_question_that_does_not_fit_into_a_table_of_positions_is_not_asked(
    tiny_model: Path, tmp_path: Path
) -> None:
    """An answer without a token was judged wrong."""
    from transformers import OPTConfig, OPTForCausalLM

    shutil.copytree(tiny_model, tmp_path / "opt")
    tokenizer = load_tokenizer(ModelSource(str(tiny_model)))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
    config = OPTConfig(vocab_size=len(tokenizer), max_position_embeddings=60, word_embed_proj_dim=16, **shape)
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    state = first_state(Student(name="opt", path=str(tmp_path / "opt")))
    asks = [Ask(plain("Add 1 and 2. " * n), 0) for n in (1, 40)]
    told = ModelAsker(state, Draw(0.0, 1.0, 4, 0), 0.0).compute(asks)
    assert told["finish"].tolist()[1] == "failed"
    assert told["finish"].tolist()[0] != "failed"
    assert "60 positions" in told["error"].tolist()[1]


@pytest.mark.parametrize(("finish", "end"), [("stop", "<|im_end|>"), ("length", "")])
def test_an_answer_that_was_cut_off_is_learned_without_an_end(
    tiny_model: Path, finish: str, end: str
) -> None:
    renderer = Renderer(load_tokenizer(ModelSource(str(tiny_model))))
    question = Question("q", plain("2+2?"), ("4",), "")
    chosen = pd.DataFrame({"question_id": ["q"], "answer_id": ["a"], "weight": [1.0]})
    said = {
        "answer_id": ["a"],
        "text": ["First we take"],
        "tool_calls": [""],
        "turns": [""],
        "finish": [finish],
    }
    (example,) = render_chosen(chosen, pd.DataFrame(said), {"q": question}, renderer)
    learned = renderer.tokenizer.decode(example.ids[example.loss_start : example.loss_end])
    assert learned == f"First we take{end}"


def test_an_export_stops_where_a_turn_ends(copied: Path) -> None:
    stop_at(copied, [3, 5])
    kept = json.loads((copied / "generation_config.json").read_text())["eos_token_id"]
    assert {3, 5} <= set(kept)
    stop_at(copied, [3])
    assert json.loads((copied / "generation_config.json").read_text())["eos_token_id"] == kept
    assert set(load_model(ModelSource(str(copied))).generation_config.eos_token_id) == set(kept)


def test_directories_that_hold_something_else_are_refused_by_name(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint-500").mkdir(parents=True)
    shutil.copy(copied / "config.json", tmp_path / "run" / "checkpoint-500")
    with pytest.raises(BadInput, match="checkpoint-500"):
        check_model_directory(str(tmp_path / "run"))
    with pytest.raises(BadInput, match="no model there"):
        tutelage.score(str(tmp_path / "nope"), ["2+2?"], {"ann": ["A: 4"]})
    change(copied, architectures=["Qwen3ForSequenceClassification"])
    with pytest.raises(BadInput, match="no model that writes"):
        check_model_directory(str(copied))


def test_adapters_without_and_beside_whole_weights_are_refused_by_name(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    about = {"base_model_name_or_path": "some/base", "peft_type": "LORA"}
    for folder in (tmp_path / "lora", copied):
        (folder / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match=r"holds an adapter.*some/base"):
        check_model_directory(str(tmp_path / "lora"))
    with pytest.raises(BadInput, match="whole weights and an adapter"):
        check_model_directory(str(copied))


def test_pairs_that_are_nearly_a_student_are_refused_by_name(tiny_model: Path) -> None:
    from transformers import AutoModel

    model, tokenizer = load_model(ModelSource(str(tiny_model))), load_tokenizer(ModelSource(str(tiny_model)))
    for pair, says in (
        ((torch.nn.DataParallel(model), tokenizer), "model.module"),
        ((AutoModel.from_pretrained(tiny_model), tokenizer), "AutoModelForCausalLM"),
        ((model, lambda text: text), "processor.tokenizer"),
    ):
        with pytest.raises(BadInput, match=says):
            tutelage.score(pair, ["2+2?"], {"ann": ["A: 4"]})


def test_a_template_of_its_own_for_tools_is_taken_where_there_are_tools(tiny_model: Path) -> None:
    tokenizer = tokenizer_of(tiny_model, CHAT)
    with_tools = "{% for tool in tools %}Tool: {{ tool | tojson }}\n{% endfor %}" + CHAT
    tokenizer.chat_template = {"default": CHAT, "tool_use": with_tools}
    renderer = Renderer(tokenizer)
    asked = plain("2+2?")
    tools = json.dumps([{"name": "add", "description": "Adds.", "parameters": {"type": "object"}}])
    own = tokenizer.decode(renderer.prompt(replace(asked, tools=tools)))
    assert own.startswith("Tool: ")
    assert own.endswith(tokenizer.decode(renderer.prompt(asked)))
    assert Renderer(tokenizer, "default").with_tools is None
    assert Renderer(tokenizer, "default").fingerprint != renderer.fingerprint


def test_what_a_config_asks_every_pass_for_is_left_out(copied: Path, tmp_path: Path) -> None:
    """A model that asks for its attentions could not be saved, so its export failed after training."""
    import torch

    change(copied, output_attentions=True, output_hidden_states=True)
    model = load_model(ModelSource(str(copied)))
    found = model(torch.tensor([[1, 2, 3]]))
    assert getattr(found, "attentions", None) is None
    assert getattr(found, "hidden_states", None) is None
    model.save_pretrained(tmp_path / "saved")
    change(copied, output_attentions=False, output_hidden_states=False)
    same = load_model(ModelSource(str(copied)))(torch.tensor([[1, 2, 3]])).logits
    assert torch.equal(
        load_model(ModelSource(str(tmp_path / "saved")))(torch.tensor([[1, 2, 3]])).logits, same
    )
