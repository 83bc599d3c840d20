"""Verdicts: what a checker says of an answer against a reference. They belong to the checker's settings,
whoever answered: a text that was checked once is not checked again.
"""

import hashlib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.metrics import Tally
from cluster.placement import Needs
from jobs.run.keys import row_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.slices import ROWS, without_collecting
from jobs.run.tables import KEY, Owner, Request, SlicedRequest, unusual
from jobs.run.views import View
from selection.checking import process_verifier
from selection.verification import Case, Verdict, VerifySettings, load_function

VERSION = 4
SHARD_SIZE = 2000
LARGE_SHARD_SIZE = ROWS  # of a request that is read by slice, where a check takes microseconds
QUICK = ("exact", "numeric", "choice")
MOST_CHECKERS = 1000  # as many as there are shards, where there is room
VERDICT_COLUMNS = ["state", "extracted"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a checker is given, under the question that it belongs to."""

    question: bytes
    case: Case

    @property
    def key(self) -> bytes:
        """Of the verdict: all that the checker is given."""
        refs, row = self.case.references, self.case.row
        reference = refs[0] if len(refs) == 1 else list(refs)
        return row_key(self.question, self.case.text, reference, *([row] if row else []))


class VerifyHandler:
    """Handler in an actor: keeps one checking process, which ends what runs too long and survives what
    dies.
    """

    def __init__(self, settings: VerifySettings) -> None:
        self.verifier = process_verifier(settings)
        self.fallbacks: dict[str, str] = {}

    def give_up(self, answer: Checked, reason: str) -> pd.DataFrame:
        return pd.DataFrame([("checker_error", reason)], columns=VERDICT_COLUMNS)

    def compute(self, answers: Sequence[Checked]) -> pd.DataFrame:
        with without_collecting():
            verdicts = self.verifier.check_all(a.case for a in answers)
        told = {"state": [v.state for v in verdicts], "extracted": [v.extracted for v in verdicts]}
        return pd.DataFrame(told, columns=VERDICT_COLUMNS)

    def tally(self, table: pd.DataFrame) -> Tally:
        return Tally(len(table), quarantined=int(table["state"].isin(["timed_out", "checker_error"]).sum()))


def settings_config(settings: VerifySettings) -> dict[str, Any]:
    """The identity of a checker that is a program."""
    config = unusual(asdict(settings), asdict(VerifySettings()))
    if settings.function:
        source = inspect.getsourcefile(load_function(settings.function))
        config["source"] = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
    return config


def owner_of(settings: VerifySettings) -> Owner:
    """Whose verdicts these are: the checker's, under its settings."""
    about = {"name": "the checker", **asdict(settings)}
    return Owner("verdicts", VERSION, settings_config(settings), about)


def verdicts_on(run: Run, kind: str, label: str, settings: VerifySettings, given: Iterable[Checked]) -> View:
    """Have answers checked that nobody has checked yet; see `verdicts_requested`."""
    return verdicts_requested(run, kind, label, settings, Request({c.key: c for c in given}))


def verdicts_requested(
    run: Run, kind: str, label: str, settings: VerifySettings, request: Request | SlicedRequest
) -> View:
    """Have answers checked that nobody has checked yet.

    Args:
        kind: what it is for: verify, or evaluate.
    """
    view = run.view(owner_of(settings), request)
    is_large = isinstance(request, SlicedRequest) and settings.method in QUICK
    want = Want(
        kind,
        label,
        view,
        partial(VerifyHandler, settings),
        LARGE_SHARD_SIZE if is_large else SHARD_SIZE,
        MOST_CHECKERS,
        Needs(1.0),
        VERDICT_COLUMNS,
        count_verdicts,
        place="one actor a part",
        estimate=lambda left: f"{len(left):,} answers",
    )
    make_rows(run, [want], "answers")
    return view


def count_verdicts(verdicts: pd.DataFrame) -> dict[str, int]:
    """What a view says of verdicts: how many, and how many of each state."""
    return {
        "answers": len(verdicts),
        **{str(k): int(v) for k, v in verdicts["state"].value_counts().items()},
    }


def read_verdicts(view: View, given: Sequence[Checked]) -> list[Verdict]:
    """What a finished view says of each of these."""
    by_key = said_by_program(view.read())
    return [by_key[checked.key] for checked in given]


def said_by_program(rows: pd.DataFrame) -> dict[bytes, Verdict]:
    """Verdicts by key."""
    if rows.empty:
        return {}
    told = (rows[c].tolist() for c in (KEY, "state", "extracted"))
    return {k: Verdict(s, e) for k, s, e in zip(*told, strict=True)}
