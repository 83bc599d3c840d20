"""How far alignment has moved a teacher: how likely it finds what it writes now, less how likely the teacher
as it was finds it. Of texts that are sampled at temperature 1 the mean estimates KL(aligned ‖ before).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from jobs.files.answers import Row
from jobs.results.outcome import Start, StudentPath
from jobs.run.run import Run
from jobs.run.views import View
from jobs.stages.ask import Hosted
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import read_slice
from jobs.stages.train import NothingToLearn
from jobs.systems.arte.align import Alignment
from jobs.systems.arte.harvest import Harvested
from jobs.systems.arte.paths import aligned_label, arm_of, elicit_of, is_aligned
from jobs.systems.arte.texts import key_of, logprobs_in, read_texts

MOST = 100  # texts of each aligned teacher: those with the smallest keys


def with_drift(
    run: Run,
    start: Start,
    teacher: Hosted,
    aligned: Mapping[str, Alignment],
    second: Mapping[str, Harvested | NothingToLearn],
    paths: Sequence[StudentPath],
) -> dict[str, Alignment]:
    """Read what aligned teachers wrote in the second harvest under themselves and under the teacher as it
    was. Returns the alignments with the drift among their figures, where it is known.

    Args:
        teacher: the teacher as it was.
        second: the harvests, by the label of each path's material.
    """
    e, system = start.experiment, elicit_of(start.experiment).plain
    texts: dict[str, list[Row]] = {}
    for path in paths:
        own = second.get(aligned_label(path)) if is_aligned(path) else None
        label = aligned_label(path, shares_material=True)
        if isinstance(own, Harvested) and arm_of(path).variant != "question_only" and label in aligned:
            texts.setdefault(label, some_of(own.plain, system))
    wanted = {f"{label}, aligned": (aligned[label].hosted, rows) for label, rows in texts.items()}
    wanted |= {f"{label}, before": (teacher, rows) for label, rows in texts.items()}
    views = read_texts(run, e, wanted, "read texts")
    found = dict(aligned)
    for label, rows in texts.items():
        figures = drift_in(rows, views[f"{label}, aligned"], views[f"{label}, before"])
        found[label] = replace(aligned[label], figures={**aligned[label].figures, **figures})
    return found


def some_of(pool: AnswerPool, system: str | None) -> list[Row]:
    """The first texts of a pool that came to their end, behind the prompts that they answer."""
    found: dict[str, Row] = {}
    for number in range(pool.count):
        questions, answers = read_slice(pool.questions, number), pool.read(number)
        ended = answers[(answers["finish"] == "stop") & (answers["text"].str.strip() != "")]
        for key, question, text in zip(ended["answer_key"], ended["question_id"], ended["text"], strict=True):
            found[str(key)] = Row("", "", "", questions[question].prompt.told(system), text)
        if len(found) >= MOST:
            break
    return [found[key] for key in sorted(found)[:MOST]]


def drift_in(rows: Sequence[Row], after: View, before: View) -> dict[str, float]:
    """The mean difference of the log-probabilities, in nats a text, with its standard error."""
    if not (after.is_finished and before.is_finished):
        return {}
    new, old = logprobs_in(after), logprobs_in(before)
    keys = {key_of(row) for row in rows}
    moved = np.array([new[key] - old[key] for key in sorted(keys) if key in new and key in old])
    if len(moved) < 2:
        return {}
    return {
        "drift (nats a text)": float(moved.mean()),
        "standard error of the drift": float(moved.std(ddof=1) / np.sqrt(len(moved))),
        "texts read for the drift": float(len(moved)),
    }
