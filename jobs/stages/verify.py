"""Verdicts: a checker's result for an answer and a reference. They belong to the checker's settings and do
not depend on the teacher. A text that was checked once is not checked again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd

from cluster.metrics import Tally
from cluster.own_modules import source_of
from cluster.placement import Needs
from jobs.run.keys import row_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.slices import ROWS, without_collecting
from jobs.run.tables import KEY, Owner, Request, SlicedRequest, unusual
from jobs.run.views import View
from selection.checking import process_verifier
from selection.verification import Case, Verdict, VerifySettings, load_function

VERSION = 7
SHARD_SIZE = 2000
LARGE_SHARD_SIZE = ROWS  # for a request that is read by slice, because a check takes microseconds
QUICK = ("exact", "numeric", "choice")
MOST_CHECKERS = 1000  # so in effect one for each shard, if the cluster has room
VERDICT_COLUMNS = ["state", "extracted"]


@dataclass(frozen=True, slots=True)
class Checked:
    """A checker's input, with the key of its question."""

    question: bytes
    case: Case

    @property
    def key(self) -> bytes:
        """The key of the verdict. It follows from all of the checker's input."""
        refs, row = self.case.references, self.case.row
        reference = refs[0] if len(refs) == 1 else list(refs)
        return row_key(self.question, self.case.text, reference, *([row] if row else []))


class VerifyHandler:
    """Handler in an actor: keeps one checking process. A check that runs too long is ended, and a check that
    crashes does not end the actor.
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
        config["source"] = source_of(settings.function, load_function(settings.function))
    return config


def owner_of(settings: VerifySettings) -> Owner:
    """The owner of these verdicts: the checker under its settings."""
    about = {"name": "the checker", **asdict(settings)}
    return Owner("verdicts", VERSION, settings_config(settings), about)


def verdicts_on(run: Run, kind: str, label: str, settings: VerifySettings, given: Iterable[Checked]) -> View:
    """Check those answers that have not been checked yet; see `verdicts_requested`."""
    return verdicts_requested(run, kind, label, settings, Request({c.key: c for c in given}))


def verdicts_requested(
    run: Run, kind: str, label: str, settings: VerifySettings, request: Request | SlicedRequest
) -> View:
    """Check those answers that have not been checked yet.

    Args:
        kind: the work as users see it, such as verify or `verdicts on`.
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
        place="one actor per part",
        estimate=lambda left: f"{len(left):,} answers",
    )
    make_rows(run, [want], "answers")
    return view


def count_verdicts(verdicts: pd.DataFrame) -> dict[str, int]:
    """The counts of verdicts that a view records: how many, and how many of each state."""
    return {
        "answers": len(verdicts),
        **{str(k): int(v) for k, v in verdicts["state"].value_counts().items()},
    }


def read_verdicts(view: View, given: Sequence[Checked]) -> list[Verdict]:
    """Read the verdict on each of these from a finished view."""
    by_key = said_by_program(view.read())
    return [by_key[checked.key] for checked in given]


def said_by_program(rows: pd.DataFrame) -> dict[bytes, Verdict]:
    """Verdicts by key."""
    if rows.empty:
        return {}
    told = (rows[c].tolist() for c in (KEY, "state", "extracted"))
    return {k: Verdict(s, e) for k, s, e in zip(*told, strict=True)}
