"""Provenance for manifests: versions of packages and the commit of this checkout."""

import os
import subprocess
import tomllib
from functools import lru_cache
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "deepspeed",
    "pandas",
    "pyarrow",
    "math-verify",
    "peft",
    "tutelage",
)


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@lru_cache(maxsize=1)
def git_commit() -> str:
    """The commit of this checkout, followed by `+` if it has uncommitted changes. Empty outside a
    checkout.
    """
    return commit_of(Path(__file__).resolve())


def project_of(root: Path) -> str:
    """The name of the project that a folder's pyproject.toml describes; empty where there is none."""
    try:
        told = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    project = told.get("project")
    return str(project.get("name", "")) if isinstance(project, dict) else ""


def commit_of(file: Path) -> str:
    """The commit of the checkout that a file of ours belongs to. A checkout counts only if its project is
    tutelage, and if it has our folders at its top and tracks the file. A wheel may be installed inside
    another repository, whose commit would be wrong.
    """
    root = file.parents[2]
    if project_of(root) != "tutelage":
        return ""

    def git(*arguments: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return ""
        git("ls-files", "--error-unmatch", str(file))
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
