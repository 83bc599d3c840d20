"""The identity of a model by content: the commit of a hub model, or the fingerprint of a directory.

A copied or renamed directory is still the same model. A changed weight, or a changed line of the model's own
code, makes it another model.
"""

import hashlib
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, import_transformers
from cluster.storage import local_copy


def pinned(source: ModelSource) -> ModelSource:
    """A hub model pinned to the commit that its revision means now, so that every worker and the next run
    load the same. Other models are unchanged.

    Raises:
        BadInput: neither the hub nor this machine's cache of it knows the model.
    """
    return source if source.is_local else replace(source, revision=_commit(source.path, source.revision))


@lru_cache(maxsize=1024)
def _commit(hub_id: str, revision: str | None) -> str:
    """The commit that a revision of a hub model means. It is asked once per process."""
    import_transformers()
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        commit = extract_commit_hash(cached_file(hub_id, "config.json", revision=revision), None)
    except OSError as error:
        problem = " ".join(str(error).split())[:300]
        raise BadInput(
            "cannot find the model", hub_id, "a directory, or a hub id that can be reached", problem
        ) from error
    if commit is None:
        raise BadInput(
            "cannot tell which commit of the model this is", hub_id, "a commit", "name it with revision"
        )
    return str(commit)


def fingerprint(source: ModelSource) -> str:
    """Identify a model by its content: sha256 over its weights, configuration, tokenizer and code, or hub id
    and commit.

    A copied or renamed directory keeps its fingerprint. A changed weight, or a changed line of its own code,
    changes it.
    """
    if not source.is_local:
        return hashlib.sha256(f"{source.path}@{pinned(source).revision}".encode()).hexdigest()
    digests = _digests(Path(source.here))
    if source.adapter is not None:
        digests |= {
            f"adapter/{name}": digest for name, digest in _digests(local_copy(source.adapter)).items()
        }
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    """Hashes of a model directory's own files, and of code at any depth."""
    kept = (".safetensors", ".json", ".jinja", ".model", ".txt")
    files = [p for p in folder.iterdir() if p.is_file() and p.suffix in kept] + list(folder.rglob("*.py"))
    return {
        str(p.relative_to(folder)): _file_sha256(str(p), p.stat().st_size, p.stat().st_mtime_ns)
        for p in sorted(files)
    }


@lru_cache(maxsize=4096)
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:
    """Hash a file once per process as long as its size and time stay the same."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
