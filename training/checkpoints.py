"""Checkpoints that are known to be whole, and export to a directory that `from_pretrained` loads.

A checkpoint counts only if it holds a COMPLETE marker and every file the marker lists, at its size. Ray merges the
directories of all workers into one; the marker is written last, by rank 0, after every rank has saved.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COMPLETE = "COMPLETE.json"


@dataclass(frozen=True)
class Marker:
    """What a whole checkpoint says of itself: the job it belongs to, its step, the worker count, its files with sizes."""

    job_id: str
    step: int
    workers: int
    files: dict[str, int]


def list_files(directory: Path) -> dict[str, int]:
    """Relative names and sizes in bytes of all files under a directory."""
    return {str(p.relative_to(directory)): p.stat().st_size for p in sorted(directory.rglob("*")) if p.is_file()}


def write_marker(directory: Path, marker: Marker) -> None:
    (directory / COMPLETE).write_text(json.dumps(asdict(marker)), encoding="utf-8")


def read_marker(directory: Path) -> Marker | None:
    """The marker of a whole checkpoint; None if it is missing, unreadable or a listed file is missing or short."""
    try:
        marker = Marker(**json.loads((directory / COMPLETE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    present = list_files(directory)
    return marker if all(present.get(name) == size for name, size in marker.files.items()) else None


def export_model(model: Any, tokenizer: Any, state: Mapping[str, Any], directory: Path, adapter_base: Any = None) -> None:
    """Write a Hugging Face directory with safetensors weights; it appears under its name only when it is whole.

    Args:
        model: the trained module; for LoRA a peft model, whose adapter is kept beside the merged weights.
        tokenizer: saved with its chat template.
        state: the gathered full state dict, on the CPU.
        directory: replaced if it exists.
        adapter_base: for LoRA, the base model on the CPU that the adapter is merged into; it is used up.
    """
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if adapter_base is None:
        model.save_pretrained(partial, state_dict=dict(state))
    else:
        from peft import PeftModel

        model.save_pretrained(partial / "adapter", state_dict=dict(state))
        PeftModel.from_pretrained(adapter_base, partial / "adapter").merge_and_unload().save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)
