"""A trained student as a directory that `from_pretrained` loads, compared with what was trained.

Libraries do not always write what they were given: weights may be tied, an adapter merged, a buffer not
saved. So every export is loaded again. It gets its name only if its logits on a probe are those of the
student. The probe's texts are short, so it does not find a difference that only shows in long texts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cluster.errors import TutelageError
from cluster.memory import free_memory
from cluster.models.loading import DType, ModelSource, add_adapter, load_model
from cluster.models.plain_way import TOLERANCE, difference, plain_logits
from cluster.models.written import write_digests
from cluster.storage import Place

GENERATION = "generation_config.json"
ADAPTER = "adapter"  # the adapter's folder, inside the directory of the merged weights


class NotWhatWasTrained(TutelageError):
    """An export is not the model that was trained."""


@dataclass(frozen=True)
class Probe:
    """The student's logits of some texts.

    Attributes:
        logits: [T, V] of each text, in float32 on the CPU.
        dtype: the precision in which the student computed them.
    """

    texts: Sequence[list[int]]
    logits: Sequence[torch.Tensor]
    dtype: torch.dtype

    @property
    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(logits).all()) for logits in self.logits)

    def compare(self, model: Any, what: str) -> None:
        """Compare a model with the student, in the student's precision.

        Raises:
            NotWhatWasTrained: they differ by more than rounding.
        """
        largest = 0.0
        for text, expected in zip(self.texts, self.logits, strict=True):
            got = plain_logits(model, text).cpu()
            largest = max(largest, difference(got.to(self.dtype), expected.to(self.dtype)))
        if largest > TOLERANCE[self.dtype]:
            raise NotWhatWasTrained(
                f"{what} is another model than the one that was trained",
                f"logits that differ by {largest:.2g}",
                f"at most {TOLERANCE[self.dtype]:g}, which is rounding",
                "nothing is exported; train other layers, or without lora",
            )


def export_model(
    model: Any,
    tokenizer: Any,
    state: Mapping[str, Any],
    directory: Place,
    source: ModelSource,
    probe: Probe,
    stop_ids: Sequence[int] = (),
) -> None:
    """Write a Hugging Face directory with safetensors weights. Locally it gets its name only when it is whole
    and has been compared.

    Args:
        model: the trained module. A peft model's adapter is kept beside the merged weights.
        tokenizer: saved with its chat template.
        state: the gathered full state dict, on the CPU; for LoRA the adapter's.
        directory: replaced if it exists.
        source: the base that an adapter is merged into, on the CPU in float32: merged in bfloat16, most of a
            small update would be rounded away. Code that travels with it is trusted as it is there.
        stop_ids: the tokens at which a turn of the student ends. `generate` stops at them too.

    Raises:
        NotWhatWasTrained: the export, or the base under the saved adapter, is another model.
    """
    partial = directory.scratch()
    if hasattr(model, "peft_config"):
        model.save_pretrained(partial / ADAPTER, state_dict=dict(state))
        _merge(partial, source, probe)
        dtype: DType = "float32"
    else:
        model.save_pretrained(partial, state_dict=dict(state))
        dtype = _name_of(probe.dtype)
    tokenizer.save_pretrained(partial)
    stop_at(partial, stop_ids)
    exported = ModelSource(str(partial), dtype, trust_remote_code=source.trust_remote_code)
    probe.compare(load_model(exported), "the export")
    free_memory()
    for folder in (partial, partial / ADAPTER):
        if folder.is_dir():
            write_digests(folder)
    directory.take(partial)


def stop_at(directory: Path, stop_ids: Sequence[int]) -> None:
    """Add tokens to those at which a saved model's `generate` stops. A model that was made from a base often
    ends a text with another token than the template ends a turn with.
    """
    file = directory / GENERATION
    config = json.loads((directory / "config.json").read_text())
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    own = {name: config[name] for name in names if config.get(name) is not None}
    about = json.loads(file.read_text()) if file.is_file() else own
    known = about.get("eos_token_id")
    ends = known if isinstance(known, list) else [] if known is None else [known]
    further = [int(i) for i in stop_ids if i not in ends]
    if further:
        file.write_text(json.dumps(about | {"eos_token_id": [*ends, *further]}, indent=2) + "\n")


def _merge(partial: Path, source: ModelSource, probe: Probe) -> None:
    """Write the base with the adapter merged into it."""
    base = load_model(replace(source, adapter=None, dtype="float32"))
    wrapped = add_adapter(base, str(partial / ADAPTER)).eval()
    probe.compare(wrapped, "the base under the adapter that was saved")
    wrapped.merge_and_unload().save_pretrained(partial)
    del base, wrapped
    free_memory()


def _name_of(dtype: torch.dtype) -> DType:
    names: dict[torch.dtype, DType] = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    return names.get(dtype, "float32")


def probe_of(
    ask: Callable[[list[int]], torch.Tensor], texts: Sequence[list[int]], dtype: torch.dtype
) -> Probe:
    """Ask a student for its logits.

    Raises:
        FloatingPointError: they are not finite, so there is nothing to export.
    """
    probe = Probe(texts, [ask(text).cpu() for text in texts], dtype)
    if not probe.is_finite:
        raise FloatingPointError(
            "the trained weights give logits that are not finite; lower the learning rate"
        )
    return probe
