"""Evaluates students under every budget, and beside controls: as many calls at other places. Tokens are the
likeliest or drawn, as `evaluate` says. Calls are drawn by their probability.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cluster.models.relay import Caller, Calls
from jobs.experiment.wheels import Wheels
from jobs.files.questions import Question
from jobs.results.outcome import ALONE, Outcome, Start, StudentPath
from jobs.run.run import Planned, Run
from jobs.run.store import Stage, digest
from jobs.run.usage import usage_in
from jobs.run.views import View
from jobs.stages.answers import ids_by_key
from jobs.stages.evaluate import (
    Judging,
    content_of,
    evaluate_students,
    finish_evaluation,
    judge_answers,
)
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from jobs.systems.paths import judging_of
from jobs.systems.training_wheels.paths import help_of, label_of, teacher_of, wheels_of
from jobs.systems.training_wheels.relays import PARTS, Relays, asking_of, needs_of, relays

VERSION = 1
CAPPED, LIKELY, RANDOM = "capped", "where a call is likeliest", "at random"
ENTROPY, ORACLE = "where unsure", "farthest from the teacher"
CONTROLS = (RANDOM, ENTROPY, ORACLE)
TEACHER = "teacher alone"


@dataclass(frozen=True)
class Condition:
    """One way in which a student answers the held-out questions.

    Attributes:
        name: as results show it.
        sentence: before the question.
        is_read: whether both models read the answers again.
    """

    name: str
    sentence: str
    calls: Calls
    is_read: bool = False


def by_budget(wheels: Wheels, help_id: int) -> list[Condition]:
    """Every budget as the sentence alone enforces it. For 0 calls are closed."""
    return [
        Condition(name_of(budget), wheels.told(budget), Calls("drawn" if budget else "never", help_id))
        for budget in wheels.budgets
    ]


def name_of(budget: int) -> str:
    return f"{budget} in 100" if budget else ALONE


def controls_of(
    wheels: Wheels, help_id: int, seen: Mapping[int, pd.DataFrame], limit: int
) -> list[Condition]:
    """For each budget: a hard limit on the student's calls; and calls at a share of the tokens that is the
    budget, where the student's help token is likeliest, at random, where the student is unsure, and where
    it is farthest from its teacher. In the last three the student is told that it may not ask.

    Args:
        seen: the student's answers to the same questions by budget, columns help, entropies and kl.
            Thresholds follow from these. No verdict is used.
        limit: of an answer, in tokens.
    """
    found, alone = [], seen[0]
    for budget in (b for b in wheels.budgets if b):
        share, told = budget / 100, wheels.told(budget)
        hard = Calls("drawn", help_id, most=math.ceil(budget * limit / 100), share=share)
        rules: list[tuple[str, Caller, str, float]] = [
            (LIKELY, "likely", told, threshold_of(seen[budget]["help"], share)),
            (RANDOM, "random", wheels.told(0), share),
            (ENTROPY, "entropy", wheels.told(0), threshold_of(alone["entropies"], share)),
            (ORACLE, "oracle", wheels.told(0), threshold_of(alone["kl"], share)),
        ]
        found.append(Condition(f"{name_of(budget)}, {CAPPED}", told, hard))
        found += [
            Condition(f"{name_of(budget)}, {name}", sentence, Calls(caller, help_id, threshold))
            for name, caller, sentence, threshold in rules
        ]
    return found


def threshold_of(values: Iterable[Sequence[float]], share: float) -> float:
    """The value that this share of all tokens' values lies above. Infinite if there are none."""
    every = np.concatenate([[], *(np.asarray(own) for own in values)])
    return float(np.quantile(every, 1 - share)) if len(every) else math.inf


def judge_by_budget(
    run: Run,
    start: Start,
    outcome: Outcome,
    states: Mapping[StudentPath, ModelState],
    number: int,
    wheels: Wheels,
) -> dict[StudentPath, Stage]:
    """Evaluate students after a round under every budget, and after the last one beside the controls.
    Returns the evaluations without calls. In a plan, paths whose evaluations do not exist yet are left out.
    """
    judging = judging_of(start.experiment)
    wanted: dict[StudentPath, list[Condition]] = {}
    for path, state in states.items():
        wanted[path] = by_budget(wheels, help_of(state, wheels))
    judged = judge(run, start, outcome, states, wanted, number, judging)
    if wheels.controls and number == start.experiment.rounds:
        given = {path: states[path] for path in judged}
        further = compare_with_teachers(run, start, outcome, given, wanted, number, wheels)
        judge(run, start, outcome, states, further, number, judging)
        judge_teachers(run, start, outcome, list(judged), number, judging)
    return judged


def compare_with_teachers(
    run: Run,
    start: Start,
    outcome: Outcome,
    states: Mapping[StudentPath, ModelState],
    wanted: Mapping[StudentPath, Sequence[Condition]],
    number: int,
    wheels: Wheels,
) -> dict[StudentPath, list[Condition]]:
    """Let students answer under every budget once more, and both models read the answers. Returns the
    controls of each path, whose thresholds follow from that.
    """
    e, judging = start.experiment, judging_of(start.experiment)
    read = {
        f"{label_of(path, number)}, {condition.name}": (path, condition)
        for path in states
        for condition in wanted[path]
    }
    asked = {
        label: wants_of(start, path, states[path], replace(condition, is_read=True), judging)
        for label, (path, condition) in read.items()
    }
    views = relays(run, "compare with the teacher", asked, judging.evaluate.shard_size, e.placement)
    found = {}
    for path in states:
        own = {read[label][1].name: view for label, view in views.items() if read[label][0] == path}
        if not all(view.is_finished for view in own.values()):
            continue
        for condition in wanted[path]:
            counts = own[condition.name].manifest()["counts"]
            outcome.round(path, number).figures |= compared_figures(condition, counts)
        seen = {b: own[name_of(b)].read() for b in wheels.budgets}
        found[path] = controls_of(
            wheels, help_of(states[path], wheels), seen, judging.evaluate.max_new_tokens
        )
    return found


def judge_teachers(
    run: Run, start: Start, outcome: Outcome, paths: Sequence[StudentPath], number: int, judging: Judging
) -> None:
    """Evaluate the teachers without a student, on the same questions."""
    teachers = {teacher_of(start, path).name: teacher_of(start, path) for path in paths}
    stages = evaluate_students(
        run, teachers, start.held_out, judging, start.experiment.placement, "evaluate teachers"
    )
    for path in paths:
        stage = stages[teacher_of(start, path).name]
        if stage.is_finished:
            outcome.round(path, number).evaluations[TEACHER] = stage


def wants_of(
    start: Start, path: StudentPath, state: ModelState, condition: Condition, judging: Judging
) -> Relays:
    """The answers of a student under a condition."""
    request = asking_of(start.held_out, condition.sentence, judging.evaluate.samples)
    e, teacher = start.experiment, teacher_of(start, path)
    needs, help_id = needs_of(e, teacher.name), help_of(state, wheels_of(e))
    return Relays(state, teacher, help_id, condition.calls, judging.draw, condition.is_read, request, needs)


def judge(
    run: Run,
    start: Start,
    outcome: Outcome,
    states: Mapping[StudentPath, ModelState],
    wanted: Mapping[StudentPath, Sequence[Condition]],
    number: int,
    judging: Judging,
) -> dict[StudentPath, Stage]:
    """Evaluate every student under its conditions. Returns the evaluations without calls that exist."""
    e, questions = start.experiment, start.held_out
    labels, asked, stages, told = {}, {}, {}, {}
    for path, conditions in wanted.items():
        for condition in conditions:
            label = f"{label_of(path, number)}, {condition.name}"
            asked[label] = wants_of(start, path, states[path], condition, judging)
            view = asked[label].view(run)
            stages[label] = stage_of(run, judging, states[path], questions, view)
            labels[label], told[label] = (path, condition), condition.sentence
            kind = "evaluate" if condition.name == ALONE else "evaluate with calls"
            run.note(kind, label, stages[label])
            if run.mode == "plan":
                left_over = None if stages[label].is_finished else len(view.missing())
                run.planned.append(Planned(kind, label, left_over, ""))
    left = {label: one for label, one in asked.items() if not stages[label].is_finished}
    if run.mode == "plan":
        bring_back(run, [asked[label].student for label in left], e.placement)
        left = {}
    views = relays(run, "answers of", left, judging.evaluate.shard_size, e.placement) if left else {}
    with run.claimed(stages[label] for label in left):
        for sentence in dict.fromkeys(told[label] for label in left) if run.mode == "make" else ():
            own = {label: view for label, view in views.items() if told[label] == sentence}
            found = judge_answers(run, own, ids_by_key(questions, sentence), questions, judging)
            for label, results in found.items():
                if not stages[label].is_finished:
                    finish_evaluation(stages[label], questions, results)
    for label, (path, condition) in labels.items():
        if stages[label].is_finished:
            outcome.round(path, number).evaluations[condition.name] = stages[label]
            manifest = asked[label].view(run).manifest()
            outcome.round(path, number).figures |= figures_of(condition, manifest)
    return {
        path: stages[label]
        for label, (path, condition) in labels.items()
        if condition.name == ALONE and stages[label].is_finished
    }


def stage_of(
    run: Run, judging: Judging, state: ModelState, questions: Sequence[Question], view: View
) -> Stage:
    """The stage that holds a student's results under one condition."""
    config = {**judging.identity(), "rendering": state.rendering}
    content = digest([content_of(q) for q in questions])
    inputs = {"student": state.id, "questions": content, "answers": view.id}
    return run.store.stage("evaluate", VERSION, {**config, "relay": VERSION}, inputs)


def figures_of(condition: Condition, manifest: Mapping[str, Any]) -> dict[str, float]:
    """What answering under a condition took, by a view's manifest: calls per written token, tokens that the
    teacher read per written token, and seconds of a processor per written token.
    """
    name, counts = condition.name, manifest["counts"]
    written = counts["decisions"]
    if not written:
        return {}
    found = {
        f"calls, {name}": counts["calls"] / written,
        f"teacher tokens, {name}": counts["processed"] / written,
        f"length, {name}": written / counts["answers"],
    }
    took = sum(usage_in(about).cpu_seconds for about in manifest["parts"].values())
    return found | {f"seconds, {name}": took / written}


def compared_figures(condition: Condition, counts: Mapping[str, Any]) -> dict[str, float]:
    """How far a student is from its teacher under a condition, by the counts of answers that both read
    again.
    """
    names = ("kl", "overlap", *(f"help {k + 1}" for k in range(PARTS)))
    return {f"{what}, {condition.name}": counts[what] for what in names if what in counts}
