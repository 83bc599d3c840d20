"""What is exported is what was trained: adapters on weights of their own, logits compared."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.plain_way import plain_logits, probe_texts
from cluster.models.written import DIGESTS
from cluster.storage import Place
from tests.architectures import tiny_model as build
from training.adapters import with_lora
from training.exports import ADAPTER, NotWhatWasTrained, Probe, export_model, probe_of
from training.settings import LoraSettings


def saved(folder: Path, kind: str, tied: bool) -> Path:
    build(kind, tie_word_embeddings=tied).save_pretrained(folder)
    return folder


def moved(wrapped: Any) -> Any:
    """A peft model whose adapter does something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return wrapped.eval()


def trained_state(model: Any) -> dict[str, Any]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def asked(model: Any) -> Probe:
    return probe_of(lambda text: plain_logits(model, text), probe_texts(model), model.dtype)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2", "opt"])
@pytest.mark.parametrize("where", ["head", "embedding", "both", "regular expression"])
def test_an_adapter_on_a_head_that_is_the_embedding_is_refused_by_name(kind: str, where: str) -> None:
    model = build(kind, tie_word_embeddings=True)
    names = {id(module): name for name, module in model.named_modules()}
    head, embedding = (
        names[id(module)] for module in (model.get_output_embeddings(), model.get_input_embeddings())
    )
    given: dict[str, str | tuple[str, ...]] = {
        "head": (head,),
        "embedding": (embedding,),
        "both": (embedding, head),
        "regular expression": f".*{head}",
    }
    named = embedding if where == "embedding" else head
    with pytest.raises(BadInput, match=rf"adapter on .*{named}|adapter on .*{embedding}"):
        with_lora(model, LoraSettings(r=2, target_modules=given[where]))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_all_linear_layers_take_adapters_whether_or_not_the_head_is_the_embedding(
    kind: str, tied: bool
) -> None:
    wrapped = with_lora(build(kind, tie_word_embeddings=tied), LoraSettings(r=2))
    assert any("lora_" in name for name, _ in wrapped.named_parameters())


@pytest.mark.parametrize("targets", [("nope",), "no_such.*", ("model",)])
def test_target_modules_that_name_no_layer_are_refused_in_one_line(targets: Any) -> None:
    with pytest.raises(BadInput, match=r"train\.lora does not fit"):
        with_lora(build("llama"), LoraSettings(r=2, target_modules=targets))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "tied", "targets"),
    [
        ("llama", False, "all-linear"),
        ("qwen2", True, ("q_proj", "down_proj")),
        ("llama", False, ("q_proj", "lm_head")),
        ("llama", False, ("embed_tokens",)),
    ],
)
def test_an_adapter_merged_and_saved_is_the_model_that_was_trained(
    tmp_path: Path, tiny_model: Path, dtype: Any, kind: str, tied: bool, targets: Any
) -> None:
    source = ModelSource(str(saved(tmp_path / "base", kind, tied)), dtype)
    wrapped = moved(with_lora(load_model(source), LoraSettings(r=2, target_modules=targets)))
    tokenizer = load_tokenizer(ModelSource(str(tiny_model)))
    place = Place(str(tmp_path / "out"))
    export_model(wrapped, tokenizer, trained_state(wrapped), place, source, asked(wrapped))
    merged = load_model(ModelSource(str(place)))
    asked(wrapped).compare(merged, "read by another")
    plain = load_model(ModelSource(source.path))
    with pytest.raises(NotWhatWasTrained):
        asked(wrapped).compare(plain, "the base")
    own = tmp_path / "out" / ADAPTER / "adapter_model.safetensors"
    for file, reads in (
        (own, lambda: load_model(replace(source, adapter=str(own.parent)))),
        (tmp_path / "out" / "model.safetensors", lambda: load_model(ModelSource(str(place)))),
    ):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(bytes(content))
        with pytest.raises(BadInput, match="not those that a training wrote"):
            reads()
    (tmp_path / "out" / DIGESTS).unlink()  # a change of the user's own
    load_model(ModelSource(str(place)))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_merge_that_gives_another_model_leaves_nothing_under_the_exports_name(
    tmp_path: Path, tiny_model: Path, target: str
) -> None:
    """Peft merges an adapter of a head that is the embedding into both: what was exported was 3.76 of a
    movement of 3.85 away from what was trained.
    """
    from peft import LoraConfig, get_peft_model

    source = ModelSource(str(saved(tmp_path / "base", "qwen2", True)))
    wrapped = moved(get_peft_model(load_model(source), LoraConfig(r=2, target_modules=[target])))
    tokenizer = load_tokenizer(ModelSource(str(tiny_model)))
    with pytest.raises(NotWhatWasTrained, match="another model"):
        export_model(
            wrapped,
            tokenizer,
            trained_state(wrapped),
            Place(str(tmp_path / "out")),
            source,
            asked(wrapped),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_state_that_is_not_the_students_is_refused(
    tmp_path: Path, tiny_model: Path, tied: bool
) -> None:
    source = ModelSource(str(saved(tmp_path / "base", "llama", tied)))
    model, tokenizer = load_model(source), load_tokenizer(ModelSource(str(tiny_model)))
    state, place = dict(model.state_dict()), Place(str(tmp_path / "out"))
    export_model(model, tokenizer, state, place, source, asked(model))
    name = next(name for name in state if "down_proj" in name)
    another = {**state, name: state[name] + 0.5}
    with pytest.raises(NotWhatWasTrained, match="the export is another model"):
        export_model(model, tokenizer, another, place, source, asked(model))
    asked(model).compare(load_model(ModelSource(str(place))), "what was there before")


def test_weights_that_are_not_finite_are_not_exported(tiny_model: Path) -> None:
    model = load_model(ModelSource(str(tiny_model)))
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        asked(model)
