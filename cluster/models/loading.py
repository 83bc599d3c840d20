"""Loading a model and its tokenizer from a local directory or a hub id, safely and in the same way for every
stage.

Only safetensors are read: a pickle can run code when it is opened. Code that travels with a model runs only
where the experiment names that model as trusted.
"""

import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import BadInput
from cluster.halving import breaks_device
from cluster.models.added_tokens import add_to_model, add_to_tokenizer
from cluster.models.directory import check_model_directory
from cluster.models.written import refuse_changed
from cluster.storage import is_uri, local_copy

if TYPE_CHECKING:
    from types import ModuleType

DType = Literal["float32", "bfloat16", "float16"]
ANY_TEXT = "What is 2 + 2?"


@contextmanager
def deepspeed_hidden() -> Iterator[None]:
    """Make DeepSpeed appear not installed during the block, unless it is already imported.

    With accelerate installed (peft needs it), transformers imports DeepSpeed wherever a model is used or
    saved: seconds of start-up in every process, and a crash where DeepSpeed does not fit the machine. Only
    train workers need DeepSpeed.
    """
    hidden = "deepspeed" not in sys.modules
    if hidden:
        sys.modules["deepspeed"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["deepspeed"]


@lru_cache(maxsize=1)
def import_transformers() -> "ModuleType":
    """Import transformers without its DeepSpeed integration, and without its progress bars."""
    with deepspeed_hidden():
        import transformers
        import transformers.integrations.deepspeed
        import transformers.modeling_utils
    transformers.utils.logging.disable_progress_bar()
    return transformers  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ModelSource:
    """The source of a model. `path` is a directory, local or by URI, or a hub id. `dtype` is the computing
    precision.

    `adapter` is the directory of a LoRA adapter that belongs on top of it. `added_tokens` are special tokens
    that the model gets when it is loaded (`cluster/models/added_tokens.py`).
    """

    path: str
    dtype: DType = "float32"
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    added_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # absolute, because a worker may run in another directory
        if not is_uri(self.path) and (path := Path(self.path).expanduser()).is_dir():
            object.__setattr__(self, "path", str(path.resolve()))

    @property
    def is_local(self) -> bool:
        return is_uri(self.path) or Path(self.path).is_dir()

    @property
    def here(self) -> str:
        """The directory on this machine, fetched if it is a URI, or the hub id."""
        return str(local_copy(self.path)) if is_uri(self.path) else self.path


def load_tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer of a model source.

    Raises:
        BadInput: the files are missing or broken, or make a tokenizer without a vocabulary, or one that does
            not take the added tokens.
    """
    if source.is_local and (Path(source.here) / "config.json").is_file():
        with _one_line(f"cannot read config.json of {source.path}", "", "one that fits the weights"):
            import_transformers().AutoConfig.from_pretrained(
                source.here, trust_remote_code=source.trust_remote_code, local_files_only=True
            )
    remedy = "copy the tokenizer files (tokenizer.json, tokenizer_config.json) beside the weights"
    with _one_line(f"cannot load the tokenizer of {source.path}", "", remedy):
        tokenizer = import_transformers().AutoTokenizer.from_pretrained(
            source.here,
            revision=source.revision,
            trust_remote_code=source.trust_remote_code,
            local_files_only=source.is_local,
        )
        ids = list(tokenizer(ANY_TEXT, add_special_tokens=False)["input_ids"])
    if not ids:  # transformers makes an empty tokenizer if there are no files
        raise BadInput(
            f"the tokenizer of {source.path} has no token for ordinary text",
            f"no token of {ANY_TEXT!r}",
            "",
            remedy,
        )
    if source.added_tokens:
        add_to_tokenizer(tokenizer, source.added_tokens)
    return tokenizer


def added_ids(source: ModelSource) -> list[int]:
    """The ids of a source's added tokens."""
    if not source.added_tokens:
        return []
    tokenizer = load_tokenizer(source)
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in source.added_tokens]


# transformers swaps functions of its classes while it loads, so two threads that load at once leave weights
# untied, in this process for good.
_LOADING = threading.Lock()

# What a config may ask every forward pass for. Nothing here reads it, some attentions refuse it, and a model
# that asks for it cannot be saved.
NEUTRAL = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}


def load_model(source: ModelSource, device: str = "cpu") -> Any:
    """Load a causal language model in evaluation mode on `device`, in `source.dtype`.

    Raises:
        BadInput: pickle weights, a missing file, a model type transformers does not know, or weights that do
            not fit the configuration.
    """
    import torch

    check_model_directory(source.path)
    refuse_changed(source.path)
    remedy = "try it with transformers' from_pretrained"
    with _LOADING, _one_line(f"cannot load the model {source.path}", "a causal language model", remedy):
        model, told = import_transformers().AutoModelForCausalLM.from_pretrained(
            source.here,
            revision=source.revision,
            dtype=getattr(torch, source.dtype),
            trust_remote_code=source.trust_remote_code,
            local_files_only=source.is_local,
            use_safetensors=True,
            output_loading_info=True,
        )
    for name, value in NEUTRAL.items():
        setattr(model.config, name, value)
    _refuse_misfit(source.path, model, told)
    if source.added_tokens:
        add_to_model(model, added_ids(source), source.added_tokens)
    if source.adapter is not None:
        wrapped = add_adapter(model, source.adapter)
        # In half precision merging would round most of a small update away, so the adapter stays beside its
        # base.
        model = wrapped.merge_and_unload() if source.dtype == "float32" else wrapped.get_base_model()
    return model.to(device).eval()


@contextmanager
def _one_line(what: str, expected: str, remedy: str) -> Iterator[None]:
    """Report a library's error about a user's files in one line. Errors of the machine, such as missing
    memory, are raised unchanged.
    """
    try:
        yield
    except Exception as error:
        if breaks_device(error) or isinstance(error, MemoryError | BadInput) or "out of memory" in str(error):
            raise
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if "ignore_mismatched_sizes" in told:  # transformers' advice would fill them at random
            told = "its config.json does not fit its weights, which have other shapes"
        raise BadInput(what, told, expected, remedy) from error


def _refuse_misfit(path: str, model: Any, told: Mapping[str, Any]) -> None:
    """Refuse a model if part of it was initialised at random, or left out, because its configuration does not
    fit its weights.

    Raises:
        BadInput: some tensors do not fit. Names the first.
    """
    own = {_anywhere(name) for name in model.state_dict()}
    lacking = sorted(told.get("missing_keys", ()))
    # Other tensors, such as heads of other tasks, may be in the files too. Only tensors of repeated layers
    # count.
    unused = sorted(name for name in told.get("unexpected_keys", ()) if _anywhere(name) in own)
    for names, problem in ((lacking, "not among the weights"), (unused, "of layers that it does not have")):
        if names:
            more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
            raise BadInput(
                f"the config.json of {path} does not fit its weights",
                f"{', '.join(names[:2])}{more} {problem}",
                "the configuration that the weights were saved with",
                "copy config.json and all weights of one model again",
            )


def _anywhere(name: str) -> str:
    """The name of a tensor without the number of its layer."""
    return re.sub(r"\d+", "N", name)


def add_adapter(model: Any, adapter: str, trainable: bool = False) -> Any:
    """A peft model: this model under a LoRA adapter from a directory or URI.

    Raises:
        BadInput: there is no adapter, or one of another model.
    """
    import_transformers()
    with deepspeed_hidden():
        from peft import PeftModel

    refuse_changed(adapter)
    try:
        return PeftModel.from_pretrained(model, local_copy(adapter), is_trainable=trainable)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(
            "cannot load the adapter", adapter, "a directory written by peft", str(error)[:200]
        ) from error


def pick_device(num_gpus: float) -> str:
    """The device of a worker with `num_gpus` GPUs. Ray only shows it its own."""
    return "cuda" if num_gpus > 0 else "cpu"
