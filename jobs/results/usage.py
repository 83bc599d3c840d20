"""What a run took of the cluster: what it had made itself, and what all that it used cost when made."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from jobs.run.run import Run
from jobs.run.tables import VIEW
from jobs.run.usage import Usage, total, usage_in
from jobs.run.views import View, manifest_of

# what evaluation asks, checks and scores is told as evaluation
TOLD_AS = {"answers of": "evaluate", "verdicts on": "evaluate", "losses of": "evaluate"}
COLUMNS = [
    "stage",
    "CPU-seconds, this run",
    "CPU-seconds, when made",
    "GPU-seconds, this run",
    "GPU-seconds, when made",
    "USD, this run",
    "USD, when made",
    "seconds waiting for endpoints, this run",
    "seconds waiting for endpoints, when made",
]


def usage_table(run: Run) -> pd.DataFrame:
    """One row for each kind of stage and one for all: what was reserved, times how long, and money.

    A part of a table counts whole, however few of its rows are used, and once, however often it is used.
    "This run" is every attempt of it, those that were stopped too.
    """
    by_kind: dict[str, dict[str, Usage]] = {}
    for kind, name, took in _all_took(run):
        known = any(name in others for others in by_kind.values())
        if not known:
            by_kind.setdefault(kind, {})[name] = took
    rows = [_row(kind, list(own.values()), run.registration.id) for kind, own in by_kind.items()]
    rows.append(_row("all", [t for own in by_kind.values() for t in own.values()], run.registration.id))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(kind: str, own: list[Usage], run_id: str) -> list[Any]:
    here, ever = total(t for t in own if t.run == run_id), total(own)
    cells: list[Any] = [kind]
    for name in ("cpu_seconds", "gpu_seconds", "usd", "waited_s"):
        cells += [getattr(here, name), getattr(ever, name)]
    return cells


def _all_took(run: Run) -> Iterator[tuple[str, str, Usage]]:
    """Kind, name and cost of every part and stage that this run used."""
    for (kind, _), stage in run.stages.items():
        told = TOLD_AS.get(kind, kind)
        manifest = stage.manifest()
        if isinstance(stage, View):
            yield from _parts(told, manifest)
            continue
        if manifest.get("took"):  # stages that take no time tell nothing
            yield told, stage.path, usage_in(manifest["took"])
        for path in manifest.get("uses", ()):
            place = run.store.root / path / VIEW
            if place.is_file():
                yield from _parts(told, manifest_of(run.store.root / path))


def _parts(kind: str, view: Mapping[str, Any]) -> Iterator[tuple[str, str, Usage]]:
    owner = view["owner"]["id"]
    for name, about in view["parts"].items():
        yield kind, f"{owner}/{name}", usage_in(about)
