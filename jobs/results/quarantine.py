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


def quarantine(outcome: Outcome) -> pd.DataFrame:
    """Every answer that ended in a named failure instead of a verdict or a cost, with its reason."""
    wanted = [*FAILED_STATES, *EARLY]
    bad = pd.concat([answers[answers["state"].isin(wanted)] for answers in outcome.start.pool.each()])
    rows = [
        (
            str(r.answer_id),
            "generate" if r.state in EARLY else "verify",
            str(r.state),
            str(r.error) or str(r.extracted),
            1,
        )
        for r in bad.itertuples()
    ]
    seen: set[str] = set()
    for (_, number), stage in outcome.scores.items():
        if stage.id not in seen:
            seen.add(stage.id)
            failed = pd.concat([s[s["state"].isin(FAILED_STATES)] for s in stage.each()])
            rows += [
                (str(r.answer_id), "score", str(r.state), str(r.reason), number) for r in failed.itertuples()
            ]
    for (path, number), lost in outcome.lost.items():
        names = ((f"{path.label} round {number}: {i}", *told) for i, told in lost.items())
        rows += [(name, "steer", state, reason, number) for name, state, reason in names]
    table = pd.DataFrame(rows, columns=["answer", "stage", "state", "reason", "round"])
    return table.drop_duplicates(["answer", "stage", "state", "reason"], ignore_index=True)


def with_commands(experiment: Experiment, directory: Place, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in quarantine with the command that runs each again."""
    run = experiment.name if experiment.runs == "runs" else str(directory)
    told = zip(rows["answer"], rows["stage"], rows["round"], strict=True)
    commands = ["" if stage == "steer" else replay_command(run, answer, n) for answer, stage, n in told]
    return rows.assign(replay=commands)


def replay_command(run: str, answer: str, number: int) -> str:
    """The command that runs one answer again, as in one round."""
    return shlex.join(["tutelage", "replay", run, answer, *(["--round", str(number)] if number > 1 else [])])
