"""The student of a stage alone: a directory or a hub id, which is loaded here, or a model that a program has
loaded.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch

from cluster.errors import BadInput
from cluster.models.directory import check_model_directory
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.rendering import Renderer

DTYPES = ("float32", "bfloat16", "float16")
COMPATS = ("ours", "reference")
Student: TypeAlias = str | Path | tuple[Any, Any]


@contextmanager
def open_student(
    student: Student,
    chat_template: str | None = None,
    compat: str = "ours",
    dtype: str = "float32",
    device: str = "auto",
) -> Iterator[tuple[Any, Renderer]]:
    """A student's model in evaluation mode and its renderer, which has proved itself.

    Args:
        student: a directory, a hub id, or a loaded causal model of transformers and its tokenizer. A loaded
            one keeps its dtype and device, and is left as it was.

    Raises:
        BadInput: no such model, an unknown dtype or device, or no pair of model and tokenizer.
        Unrenderable: its chat template cannot be used for training.
    """
    if compat not in COMPATS or dtype not in DTYPES:
        expected = f"{' or '.join(COMPATS)}; {', '.join(DTYPES)}"
        raise BadInput("compat or dtype", f"{compat}, {dtype}", expected, "")
    if isinstance(student, str | Path):
        source = ModelSource(str(student), dtype)  # type: ignore[arg-type]
        check_model_directory(source.path)
        renderer = _renderer(load_tokenizer(source), chat_template, compat)
        yield load_model(source, device_of(device)), renderer
        return
    model, tokenizer = _pair(student)
    renderer = _renderer(tokenizer, chat_template, compat)
    with as_it_was(model):
        yield model.eval(), renderer


def _renderer(tokenizer: Any, chat_template: str | None, compat: str) -> Renderer:
    renderer = Renderer(tokenizer, chat_template, compat)  # type: ignore[arg-type]
    renderer.prove()
    return renderer


def _pair(student: Any) -> tuple[Any, Any]:
    """A loaded model and its tokenizer.

    Raises:
        BadInput: it is something else.
    """
    is_pair = isinstance(student, tuple | list) and len(student) == 2
    if not is_pair or not isinstance(student[0], torch.nn.Module) or not callable(student[1]):
        got = type(student).__name__
        if is_pair:
            got = ", ".join(type(one).__name__ for one in student)
        expected = "a path, a hub id, or (model, tokenizer)"
        raise BadInput("no student", got, expected, "load both with from_pretrained of transformers")
    model, tokenizer = student
    if isinstance(model, torch.nn.DataParallel):
        raise BadInput("no student", "a model in DataParallel", "the model itself", "pass model.module")
    if not hasattr(tokenizer, "all_special_ids"):
        got = type(tokenizer).__name__
        raise BadInput("no student", got, "a tokenizer beside the model", "pass processor.tokenizer")
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is None:
        got = type(model).__name__
        raise BadInput("no student", got, "a causal language model", "load it with AutoModelForCausalLM")
    return model, tokenizer


@contextmanager
def as_it_was(model: Any) -> Iterator[None]:
    """Leave a model's mode, its gradients and what of it is trained as they were."""
    modes = {module: module.training for module in model.modules()}
    kept = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, is_trained, gradient in kept:
            parameter.requires_grad_(is_trained)
            parameter.grad = gradient


def device_of(wanted: str) -> str:
    """cpu or cuda as asked for; `auto` is a GPU where there is one.

    Raises:
        BadInput: a GPU is asked for and none is here.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if re.fullmatch(r"cpu|cuda(?::\d+)?|mps", wanted) is None:
        raise BadInput("--device", wanted, "auto, cpu or cuda", "")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput("no GPU here", wanted, "cpu", "pass --device cpu")
    return wanted
