"""The data set card of an export: what the files hold, and where each row comes from."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from jobs.experiment.schema import Experiment
from jobs.experiment.teachers import EndpointTeacher, FileTeacher, Teacher
from jobs.results.outcome import Outcome
from jobs.run.provenance import git_commit, package_versions


def card_of(outcome: Outcome, formats: Sequence[str], left_out: Mapping[str, int]) -> str:
    """Write the card as Markdown, with a YAML header in the hub's format.

    Args:
        left_out: for each reason, the number of rows that a format could not hold.
    """
    e, pool = outcome.start.experiment, outcome.start.pool
    configs = [{"config_name": "answers", "data_files": "answers/*.jsonl"}]
    configs += [{"config_name": "chosen", "data_files": "chosen/*.jsonl"}]
    configs += [
        {"config_name": form, "data_files": f"{form}/*.{'parquet' if form == 'verl' else 'jsonl'}"}
        for form in formats
    ]
    head = {"pretty_name": e.name, "tags": ["distillation", "tutelage"], "configs": configs}
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(),
        "---",
        f"# {e.name}",
        "",
    ]
    lines += [
        f"{len(outcome.start.questions):,} questions, {pool.size:,} answers of "
        f"{len(e.teachers)} teachers; "
        f"each arm's choice is a file. Written by tutelage {package_versions()['tutelage']}"
        + (f", commit {git_commit()[:12]}." if git_commit() else "."),
        "",
        "## Where it comes from",
        *(f"- {line}" for line in outcome.start.data.lines),
        *(f"- {told(t)}; {share(outcome, t.name)}" for t in e.teachers),
        f"- checked by `{checks_of(e)}`; the pool's id is `{pool.id}`",
        "",
        "## What became of the answers",
        *table(pool.by_state),
    ]
    if pool.refused:
        lines += ["", f"{len(pool.refused):,} rows of the questions' file are no questions of this run:"]
        lines += [f"- {r.id}: {r.reason}" for r in pool.refused[:20]]
    if left_out:
        lines += ["", "## Left out", *(f"- {n:,} rows of {reason}" for reason, n in sorted(left_out.items()))]
    return "\n".join(lines) + "\n"


def told(teacher: Teacher) -> str:
    """Describe one teacher in words."""
    if isinstance(teacher, EndpointTeacher):
        at = f" at revision {teacher.revision}" if teacher.revision else ""
        return f"teacher {teacher.name}: the endpoint's model {teacher.model}{at}"
    if isinstance(teacher, FileTeacher):
        return f"teacher {teacher.name}: answers from {teacher.path}"
    at = f" at revision {teacher.revision}" if teacher.revision else ""
    return f"teacher {teacher.name}: the model {teacher.path}{at}"


def share(outcome: Outcome, teacher: str) -> str:
    """Text: the share of questions that a teacher's first sample got right."""
    right = outcome.start.pool.accuracy.get(teacher)
    return (
        "asked some questions only"
        if right is None
        else f"{right:.1%} of the questions right at its first try"
    )


def checks_of(e: Experiment) -> str:
    """Text: how answers were checked."""
    v = e.verify
    return (
        f"{v.method} {v.function or v.pattern or ''}".strip()
        if e.judge is None
        else f"{v.method}, {e.judge.model}"
    )


def table(counts: Mapping[Any, Any]) -> list[str]:
    """A Markdown table of states with their number of answers."""
    return ["| state | answers |", "| --- | ---: |", *(f"| {state} | {n:,} |" for state, n in counts.items())]
