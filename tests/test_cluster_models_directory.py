"""A model's directory as people have it after a copy that broke off: one line that names the file."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BadInput
from cluster.models.directory import check_model_directory
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from tests.architectures import tiny_model as build

WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def cut(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])


@pytest.mark.parametrize("kept", [0.0, 1e-4, 0.01, 0.5, 0.9999])
def test_half_a_weights_file_is_named(copy: Path, kept: float) -> None:
    cut(copy / WEIGHTS, kept)
    with pytest.raises(BadInput, match=rf"{WEIGHTS} is damaged"):
        check_model_directory(str(copy))


@pytest.mark.parametrize("content", [b"x" * 5000, bytes(range(256)) * 40, b"{}", b"\0" * 100])
def test_weights_that_are_something_else_are_named(copy: Path, content: bytes) -> None:
    (copy / WEIGHTS).write_bytes(content)
    with pytest.raises(BadInput, match=rf"{WEIGHTS} is damaged"):
        check_model_directory(str(copy))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("[]", "names no shards"),
        ("null", "names no shards"),
        ("{}", "names no shards"),
        ('{"weight_map": {"a": 3}}', "names no shards"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}), "1 of 2 shards"),
    ],
)
def test_an_index_that_names_what_is_not_there_is_named(copy: Path, index: str, message: str) -> None:
    (copy / WEIGHTS).rename(copy / "one.safetensors")
    (copy / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BadInput, match=message):
        check_model_directory(str(copy))


@pytest.mark.parametrize("content", ["[]", "null", "3", "", "{", '"llama"'])
def test_a_configuration_that_is_no_object_is_named(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    with pytest.raises(BadInput, match=r"config\.json"):
        check_model_directory(str(copy))


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json", "chat_template.jinja", "notes"])
def test_a_pipe_among_the_files_is_refused_and_not_waited_for(copy: Path, name: str) -> None:
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    with pytest.raises(BadInput, match=r"is a pipe|config\.json"):
        check_model_directory(str(copy))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"hidden_size": 128}),
        ("llama", {"hidden_size": 10**9}),
        ("llama", {"hidden_size": "large"}),
        ("llama", {"vocab_size": 77}),
        ("llama", {"num_hidden_layers": 7}),
        ("llama", {"num_hidden_layers": 1}),
        ("llama", {"tie_word_embeddings": False}),
        ("gpt2", {"n_layer": 9}),
        ("gpt2", {"n_embd": -1}),
        ("llama", {"model_type": "bert"}),
        ("llama", {"model_type": "no such model"}),
        ("llama", {"model_type": None}),
    ],
)
def test_a_configuration_that_does_not_fit_its_weights_is_refused_and_nothing_is_drawn_at_random(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    """Transformers fills a layer that the weights lack with random numbers, and only warns."""
    build(kind, tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BadInput, match=str(tmp_path)):
        load_model(ModelSource(str(tmp_path / "model")))


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def write(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    "harm",
    [
        remove("tokenizer.json"),
        remove("tokenizer.json", "tokenizer_config.json"),
        write("tokenizer.json", "null"),
        write("tokenizer.json", "[]"),
        write("tokenizer.json", "{}"),
        write("tokenizer.json", ""),
        write("tokenizer_config.json", "[]"),
        write("tokenizer_config.json", "{"),
        lambda folder: cut(folder / "tokenizer.json", 0.5),
        lambda folder: (folder / "tokenizer_config.json").write_bytes(bytes(range(256))),
    ],
)
def test_a_tokenizer_that_is_not_whole_is_refused(copy: Path, harm: Callable[[Path], object]) -> None:
    """Without its files transformers makes a tokenizer that turns every text into nothing."""
    harm(copy)
    with pytest.raises(BadInput, match="tokenizer"):
        load_tokenizer(ModelSource(str(copy)))
