"""The answers that ended in a named failure instead of a verdict or a cost, and the command that looks at
each again.
"""

import shlex

import pandas as pd

from cluster.storage import Place
from jobs.experiment.schema import Experiment
from jobs.results.outcome import Outcome

FAILED_STATES = (
    "failed",
    "unreadable_reference",
    "timed_out",
    "checker_error",
    "quarantined",
    "unrenderable",
    "too_long",
)
EARLY = ("failed", "not_understood")  # before anything was checked


def quarantine(outcome: Outcome, run: str) -> pd.DataFrame:
    """Every row that ended in a named failure instead of a verdict or a cost, or that its system set aside,
    with its reason and the command that looks at it again.

    Args:
        run: what commands call the run.
    """
    wanted = [*FAILED_STATES, *EARLY]
    bad = pd.concat([answers[answers["state"].isin(wanted)] for answers in outcome.start.pool.each()])
    rows = [
        (
            str(r.answer_id),
            "generate" if r.state in EARLY else "verify",
            str(r.state),
            str(r.error) or str(r.extracted),
            1,
            replay_command(run, str(r.answer_id), 1),
        )
        for r in bad.itertuples()
    ]
    seen: set[str] = set()
    for _, number, stage, _ in outcome.choices():
        if stage.id not in seen:
            seen.add(stage.id)
            failed = pd.concat([s[s["state"].isin(FAILED_STATES)] for s in stage.each()])
            rows += [
                (
                    str(r.answer_id),
                    "score",
                    str(r.state),
                    str(r.reason),
                    number,
                    replay_command(run, str(r.answer_id), number),
                )
                for r in failed.itertuples()
            ]
    for (_, number), own in outcome.rounds.items():
        rows += [(one.row, one.stage, one.state, one.reason, number, one.look) for one in own.set_aside]
    table = pd.DataFrame(rows, columns=["answer", "stage", "state", "reason", "round", "replay"])
    return table.drop_duplicates(["answer", "stage", "state", "reason"], ignore_index=True)


def name_in_commands(experiment: Experiment, directory: Place) -> str:
    """What commands call a run: its name, or its directory where that is in another folder than usual."""
    return experiment.name if experiment.runs == "runs" else str(directory)


def replay_command(run: str, answer: str, number: int) -> str:
    """The command that runs one answer again, as in one round."""
    return shlex.join(["tutelage", "replay", run, answer, *(["--round", str(number)] if number > 1 else [])])
