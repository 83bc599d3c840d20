"""Checks on a model's directory before any worker is started: the needed files exist and are whole.

Only headers are read, so finding a missing or half-copied shard costs nothing.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cluster.errors import BadInput
from cluster.storage import local_copy, refuse_special

INDEX, ADAPTER_CONFIG = "model.safetensors.index.json", "adapter_config.json"
OTHER_HEADS = (
    "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForRewardModel",
    "RewardModel", "ForMaskedLM",
)  # fmt: skip


def check_model_directory(path: str) -> None:
    """Refuse a directory that cannot be loaded safely, or whole.

    Raises:
        BadInput: there is no such directory (and the name cannot be a hub id), no config, only pickled
            weights, an incomplete file, a missing shard, or something that is no file.
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
        raise _no_model(path, folder)
    for entry in sorted(folder.iterdir()):
        refuse_special(entry)
    config = _read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise BadInput(
            f"{folder / 'config.json'} is not a JSON object", "", "a configuration", "copy it again"
        )
    _refuse_other_heads(path, config)
    if (folder / ADAPTER_CONFIG).is_file():
        has_weights = any(folder.glob("model*.safetensors"))
        raise _both(path) if has_weights else _no_model(path, folder)
    _refuse_pickles(path, folder)
    for file in _weights(folder):
        _refuse_half(file)


def _no_model(path: str, folder: Path) -> BadInput:
    """What a directory holds instead of a model."""
    if (folder / ADAPTER_CONFIG).is_file():
        about = _read_json(folder / ADAPTER_CONFIG)
        base = about.get("base_model_name_or_path") if isinstance(about, dict) else None
        return BadInput(
            f"{path} holds an adapter, and no model",
            f"its base is {base}",
            "whole weights",
            "merge it once: PeftModel.from_pretrained(base, path).merge_and_unload().save_pretrained(...)",
        )
    if folder.is_file():
        return BadInput("a model is a directory", path, "the directory that holds config.json", "")
    inside = sorted(p.parent.relative_to(folder) for p in folder.glob("*/config.json"))
    inside = inside or sorted(p.parent.relative_to(folder) for p in folder.glob("snapshots/*/config.json"))
    hint = f"such as {folder / inside[-1]}" if inside else "point at the directory that holds config.json"
    return BadInput("not a model directory", path, "a config.json inside it", hint)


def _both(path: str) -> BadInput:
    return BadInput(
        "whole weights and an adapter lie in one directory, and transformers would lay the adapter on top",
        path,
        "one of the two",
        "move adapter_config.json and adapter_model.safetensors away if the weights are merged already",
    )


def _refuse_other_heads(path: str, config: dict[str, Any]) -> None:
    """Refuse a model that was trained to do something else than to write, such as a reward model.

    Raises:
        BadInput: its configuration says so.
    """
    names = config.get("architectures")
    for name in names if isinstance(names, list) else ():
        if str(name).endswith(OTHER_HEADS):
            raise BadInput(
                f"{path} is no model that writes", name, "a causal language model", "check the path"
            )


def _refuse_pickles(path: str, folder: Path) -> None:
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


def _weights(folder: Path) -> list[Path]:
    """The files that hold the weights.

    Raises:
        BadInput: the index of shards cannot be read, or names a missing shard.
    """
    index = folder / INDEX
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    content = _read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise BadInput(f"{index} names no shards", "", "an object with a weight_map", "copy it again")
    names = sorted(set(shards.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(names)} shards of the weights are missing",
            folder / missing[0],
            f"every file that {INDEX} names",
            "copy it beside the others",
        )
    return [folder / name for name in names]


def _refuse_half(file: Path) -> None:
    """Compare a file's header with its size.

    Raises:
        BadInput: it is incomplete, or no safetensors file.
    """
    try:
        with safe_open(file, framework="numpy"):
            return
    except (SafetensorError, OSError) as error:
        told = " ".join(str(error).split())[:160]
        raise BadInput(f"{file} is damaged", told, "a whole safetensors file", "copy it again") from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file} is not JSON", str(error)[:160], "", "copy it again") from error
