"""Loading a model and its tokenizer from a local directory or a hub id, safely and the same way for every
stage.

Only safetensors are read: a pickle can run code when it is opened. Code that travels with a model runs only
where the experiment names that model as trusted.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.errors import BadInput
from cluster.storage import is_uri, local_copy

if TYPE_CHECKING:
    from types import ModuleType

DType = Literal["float32", "bfloat16", "float16"]


@contextmanager
def deepspeed_hidden() -> Iterator[None]:
    """Make DeepSpeed look not installed while the block runs, unless it is already imported.

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
    """What is needed to load one model: `path` is a directory, local or by URI, or a hub id; `dtype` the
    computing precision.

    `adapter` is the directory of a LoRA adapter that belongs on top of it.
    """

    path: str
    dtype: DType = "float32"
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: str | None = None

    def __post_init__(self) -> None:
        # absolute, because a worker may run in another directory
        if not is_uri(self.path) and Path(self.path).is_dir():
            object.__setattr__(self, "path", str(Path(self.path).resolve()))

    @property
    def is_local(self) -> bool:
        return is_uri(self.path) or Path(self.path).is_dir()

    @property
    def here(self) -> str:
        """The directory on this machine, fetched if it is a URI, or the hub id."""
        return str(local_copy(self.path)) if is_uri(self.path) else self.path


def check_model_directory(path: str) -> None:
    """Refuse a directory that cannot be loaded safely, before any worker is started.

    Raises:
        BadInput: no such directory (and the name cannot be a hub id), no config, or weights only as pickles.
    """
    folder = local_copy(path)
    if not folder.exists():
        if path.startswith((".", "/", "~")) or path.count("/") > 1:
            raise BadInput(
                "no model there",
                path,
                "a directory written by save_pretrained, or a hub id",
                "check the path",
            )
        return
    if not (folder / "config.json").is_file():
        raise BadInput(
            "not a model directory",
            path,
            "a config.json inside it",
            "point at the directory that holds config.json",
        )
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if pickles:
        raise BadInput(
            f"{path} holds its weights as pickles only, and a pickle can run code",
            ", ".join(pickles),
            "*.safetensors",
            "convert it once where you trust it: model.save_pretrained(path, safe_serialization=True)",
        )
    raise BadInput(
        "a model directory without weights", path, "*.safetensors", "copy the weights beside config.json"
    )


def load_tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer of a model source.

    Raises:
        BadInput: the files are missing or broken.
    """
    try:
        return import_transformers().AutoTokenizer.from_pretrained(
            source.here,
            revision=source.revision,
            trust_remote_code=source.trust_remote_code,
            local_files_only=source.is_local,
        )
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot load the tokenizer of {source.path}",
            error,
            "",
            "copy the tokenizer files beside the weights",
        ) from error


def load_model(source: ModelSource, device: str = "cpu") -> Any:
    """Load a causal language model in evaluation mode on `device`, in `source.dtype`.

    Raises:
        BadInput: pickle weights, a missing file, or a model type transformers does not know.
    """
    import torch

    check_model_directory(source.path)
    try:
        model = import_transformers().AutoModelForCausalLM.from_pretrained(
            source.here,
            revision=source.revision,
            dtype=getattr(torch, source.dtype),
            trust_remote_code=source.trust_remote_code,
            local_files_only=source.is_local,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot load the model {source.path}",
            error,
            "a causal language model",
            "try it with transformers' from_pretrained",
        ) from error
    if source.adapter is not None:
        wrapped = add_adapter(model, source.adapter)
        # In half precision a merged weight would round most of a small update away; there the adapter stays
        # beside its base.
        model = wrapped.merge_and_unload() if source.dtype == "float32" else wrapped.get_base_model()
    return model.to(device).eval()


def add_adapter(model: Any, adapter: str, trainable: bool = False) -> Any:
    """A peft model: this model under a LoRA adapter from a directory or URI.

    Raises:
        BadInput: no adapter there, or one of another model.
    """
    import_transformers()
    with deepspeed_hidden():
        from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, local_copy(adapter), is_trainable=trainable)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(
            "cannot load the adapter", adapter, "a directory written by peft", str(error)[:200]
        ) from error


def pick_device(num_gpus: float) -> str:
    """The device of a worker that was given `num_gpus` GPUs: Ray shows it only those."""
    return "cuda" if num_gpus > 0 else "cpu"
