"""Loading a model and its tokenizer from a local directory or a hub id, safely and the same way for every
stage.

Only safetensors are read: a pickle can run code when it is opened. Code that travels with a model runs only
where the experiment names that model as trusted.
"""

import ctypes
import gc
import itertools
import math
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

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt options
POSITION_NAMES = ("pos", "wpe", "alibi")  # what tables of positions are named after
RESERVED_POSITIONS = 2  # rows that some families' position tables have beyond the positions that they declare
# families that make a table of positions, of the declared length, in every pass
MADE_AS_LONG_AS_DECLARED = ("mpt",)
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


def free_memory() -> None:
    """Give back what dropped tensors held."""
    torch = sys.modules.get("torch")
    gc.collect()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def context_length(model: Any) -> int | None:
    """The most tokens a model takes whose positions lie in a table; None where they are computed and only
    quality limits them.

    A table is an embedding or a tensor named after positions with as many rows as the configuration has
    positions, or the two or so more that some families reserve.
    """
    config = model.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
    declared = next((v for v in (getattr(config, name, None) for name in names) if isinstance(v, int)), None)
    if declared is None or config.model_type in MADE_AS_LONG_AS_DECLARED:
        return declared
    words = {id(m) for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    tables = [m for m in model.modules() if hasattr(m, "num_embeddings") and id(m) not in words]
    for table in tables:
        if 0 <= table.num_embeddings - declared <= RESERVED_POSITIONS:
            padding = getattr(table, "padding_idx", None)  # RoBERTa's positions begin behind it
            return declared if padding is None else min(declared, table.num_embeddings - padding - 1)
    named = itertools.chain(model.named_buffers(), model.named_parameters())
    rows = [
        t.shape[0]
        for name, t in named
        if t.dim() > 1 and any(p in name.rpartition(".")[2] for p in POSITION_NAMES)
    ]
    return declared if any(0 <= n - declared <= RESERVED_POSITIONS for n in rows) else None


def stretched_above(model: Any) -> float:
    """The length above which a model's RoPE frequencies depend on the longest row in the batch; infinite for
    most models.
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    flat = [rope, *(v for v in rope.values() if isinstance(v, dict))]
    limits = [
        r.get("original_max_position_embeddings") or config.max_position_embeddings
        for r in flat
        if r.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits, default=math.inf)


def steady_positions(model: Any) -> None:
    """Have a model forget the longest row it has seen: dynamic RoPE keeps its frequencies until a row is
    short again.
    """
    import torch

    for module in model.modules():
        if hasattr(module, "max_seq_len_cached") and hasattr(module, "rope_type"):
            nothing, first = (
                torch.zeros(1, 1, 1, device=model.device),
                torch.zeros(1, 1, dtype=torch.long, device=model.device),
            )
            for kind in module.rope_type if isinstance(module.rope_type, dict) else [None]:
                module(nothing, first, **({} if kind is None else {"layer_type": kind}))


def keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next ones instead of returning each to the system.

    A forward pass on a CPU allocates and frees the same blocks in every layer, and fresh pages are cleared
    one by one: on a 135M-parameter shape keeping them raised the rate by 8 to 20 %. Does nothing outside
    glibc.
    """
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "mallopt"):
        for option, value in ((M_MMAP_THRESHOLD, 2**31 - 1), (M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(option, value)


def pick_device(num_gpus: float) -> str:
    """The device of a worker that was given `num_gpus` GPUs: Ray shows it only those."""
    return "cuda" if num_gpus > 0 else "cpu"
