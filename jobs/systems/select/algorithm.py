"""SCAS (arXiv 2605.26872) and competing methods, for arms of kind `select`. Each round scores, selects,
trains and evaluates.

A cost tells what an answer asks of the student in its present state. A rule uses the costs to choose among
the verified answers to each question. The student is trained on the choice, and the trained student scores
the next round.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cluster.errors import BadInput
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.stages import Evaluate
from jobs.files.questions import Question
from jobs.results.outcome import OnResult, Outcome, Round, Start, StudentPath
from jobs.run.run import Run
from jobs.run.slices import Sliced, Task, do_tasks
from jobs.run.store import Stage
from jobs.stages.evaluate import evaluate_stage, evaluate_students
from jobs.stages.measures import Measuring, measure_pool, measuring_of
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import read_slice
from jobs.stages.score import PoolScores, score_pool
from jobs.stages.select import Choice, select_answers
from jobs.stages.states import ModelState, Training
from jobs.stages.train import EXAMPLES, NothingToLearn, examples_stage, train_epochs, write_examples_of
from jobs.systems.paths import end_path, judging_of, path_seed, train_and_judge
from training.data import SUFFIX, Example, Examples, join_examples, write_examples
from training.settings import TrainSettings, with_steps


def teach(
    run: Run,
    start: Start,
    outcome: Outcome,
    paths: Sequence[StudentPath],
    on_result: OnResult | None = None,
    by_epoch: bool = False,
) -> None:
    """Score, select, train and evaluate these paths, round after round.

    In plan mode a path stops at the first result that does not exist yet.

    Args:
        outcome: the results of every path are added here.
        on_result: called after every round. With `by_epoch` it is also called after every epoch, at which
            training stops for an evaluation.
    """
    e = start.experiment
    now = {path: start.students[path.student] for path in paths}
    for number in range(1, e.rounds + 1):
        trainings = choose(run, start, outcome, now, number)
        if by_epoch and e.train.steps is None:
            judge_epochs(run, start, trainings, number, on_result)
        now = train_and_judge(run, start, outcome, now, trainings, number, on_result)


def choose(
    run: Run, start: Start, outcome: Outcome, now: Mapping[StudentPath, ModelState], number: int
) -> dict[StudentPath, Training]:
    """Score the pool under the present students, and write each path's training examples.

    Returns:
        This round's training of each path. A path is left out if it has ended or, in plan mode, if its inputs
            do not exist yet.
    """
    e, pool = start.experiment, start.pool
    judges = choosers(now, start.students)
    distinct = list({s.id: s for s in judges.values()}.values())
    scored = score_pool(run, distinct, pool, e.score, e.placement)
    measured = measure_pool(run, measurings(judges), pool, e.score, e.placement)
    trainings = {}
    for path, state in now.items():
        measuring, seed = measuring_of(path.choosing), path_seed(e, path, number)
        scores = scored[judges[path].id]
        if measuring is not None:
            scores = replace(scores, further=(measured[judges[path].id, measuring],))
        label = f"{path.label} round {number}"
        if not scores.is_finished:
            continue
        chosen = select_answers(run, label, Choice(path.choosing, seed), pool, scores)
        if not chosen.is_finished:
            continue
        refuse_another_rendering(label, scores, state)
        try:
            examples = examples_of(run, label, state, chosen, start)
        except NothingToLearn as why:
            end_path(run, outcome, path, number, why)
            continue
        if examples.is_finished:
            trainings[path] = Training(label, state, examples, seed, settings_for(examples, e.train))
            outcome.rounds[path, number] = Round(scores, chosen, examples)
    return trainings


def settings_for(examples: Stage, settings: TrainSettings) -> TrainSettings:
    """The settings of a training on these examples. A token budget is converted into a number of steps."""
    if settings.tokens is None:
        return settings
    return with_steps(settings, float(Examples(examples.part(EXAMPLES)).loss_tokens.mean()))


def measurings(
    judges: Mapping[StudentPath, ModelState],
) -> dict[str, tuple[ModelState, list[Measuring]]]:
    """For each scoring student, by its id: the measures that the costs need besides the statistics."""
    found: dict[str, tuple[ModelState, list[Measuring]]] = {}
    for path, student in judges.items():
        measuring = measuring_of(path.choosing)
        if measuring is not None and measuring not in found.setdefault(student.id, (student, []))[1]:
            found[student.id][1].append(measuring)
    return found


def choosers(
    now: Mapping[StudentPath, ModelState], start: Mapping[str, ModelState]
) -> dict[StudentPath, ModelState]:
    """The student under which each path's answers are scored. If the arm has a cost, it is the present
    student. Otherwise it is the student before training, because only the answers' lengths are needed.
    """
    return {p: now[p] if p.choosing.cost is not None else start[p.student] for p in now}


def examples_of(run: Run, label: str, student: ModelState, chosen: Sliced, start: Start) -> Stage:
    """Write the chosen answers as training examples. Paths with the same choice and the same rendering share
    them.
    """
    stage = examples_stage(run.store, "select", student.rendering, chosen.id)
    render = RenderSlice(student, chosen, start.pool, start.experiment.evaluate.max_new_tokens)

    def make(place: Place) -> int:
        pieces = [stage.directory / f"piece-{k:05d}{SUFFIX}" for k in range(chosen.count)]
        tasks = [(f"{label} {k}", Task(render, (k, piece))) for k, piece in enumerate(pieces)]
        here = chosen.count == 1
        try:
            lengths = list(do_tasks(run, "examples", label, tasks, here).values())
            check_lengths(label, lengths, start.experiment.evaluate)
            joined = Task(join_examples, (pieces, place))
            return int(do_tasks(run, "examples", f"{label} as one file", [("all", joined)], here)["all"])
        finally:
            for piece in pieces:
                piece.unlink()

    return write_examples_of(run, label, stage, make)


@dataclass(frozen=True)
class Lengths:
    """Statistics of some examples: their number, the length of the longest answer in tokens, and the number
    of answers that are longer than a limit.
    """

    examples: int
    longest: int
    cut: int


@dataclass(frozen=True)
class RenderSlice:
    """Runs in a worker. Renders a slice's chosen answers for training, in the order in which they were
    chosen.

    Attributes:
        limit: the number of tokens above which `Lengths` counts an answer as cut.
    """

    student: ModelState
    chosen: Sliced
    pool: AnswerPool
    limit: int

    def __call__(self, number: int, piece: Place) -> Lengths:
        chosen = self.chosen.read("chosen", number)
        questions = read_slice(self.pool.questions, number)
        examples = render_chosen(chosen, self.pool.read(number), questions, self.student.renderer())
        write_examples(piece, examples)
        tokens = [x.loss_tokens for x in examples]
        return Lengths(len(tokens), max(tokens, default=0), sum(n > self.limit for n in tokens))


def refuse_another_rendering(label: str, scores: PoolScores, student: ModelState) -> None:
    """Refuse costs that were computed on other tokens than training will use.

    Raises:
        BadInput: the renderings differ. Gives both.
    """
    scored_under = scores.rendering
    if scored_under != student.rendering:
        raise BadInput(
            f"{label}: the costs were made under another rendering than training uses",
            str(scored_under)[:12],
            f"{student.rendering[:12]}, the student's own chat template",
            "score again with the student as it is now",
        )


def render_chosen(
    chosen: pd.DataFrame, pool: pd.DataFrame, questions: Mapping[str, Question], renderer: Renderer
) -> list[Example]:
    """Render the chosen answers for training, in the order of the rows of `chosen`."""
    wanted = pool[pool["answer_id"].isin(chosen["answer_id"].tolist())]
    columns = (wanted[c].tolist() for c in ("answer_id", "text", "tool_calls"))
    answers = {answer: said for answer, *said in zip(*columns, strict=True)}
    examples = []
    columns = (chosen[c].tolist() for c in ("question_id", "answer_id", "weight"))
    for question, answer, weight in zip(*columns, strict=True):
        text, calls = answers[answer]
        rendered = renderer.conversation(questions[question].prompt, text, calls=calls)
        examples.append(Example(rendered.ids, rendered.prompt_length, rendered.answer_end, float(weight)))
    return examples


def check_lengths(label: str, lengths: Sequence[Lengths], evaluate: Evaluate) -> None:
    """Refuse to train on answers that are longer than the student may generate in evaluation.

    Raises:
        BadInput: a chosen answer is longer than `evaluate.max_new_tokens`.
    """
    longest, cut = max(own.longest for own in lengths), sum(own.cut for own in lengths)
    if cut and evaluate.metric == "accuracy" and not evaluate.allow_truncation:
        raise BadInput(
            f"{label}: {cut} of {sum(own.examples for own in lengths)} chosen answers are longer than the "
            "student may generate",
            f"up to {longest} tokens, evaluate.max_new_tokens {evaluate.max_new_tokens}",
            "room for every chosen answer",
            f"set evaluate.max_new_tokens={longest}, or evaluate.allow_truncation=true to go on knowingly",
        )


def judge_epochs(
    run: Run,
    start: Start,
    trainings: Mapping[StudentPath, Training],
    number: int,
    on_result: OnResult | None,
) -> None:
    """Train epoch by epoch, and evaluate after each epoch but the last. An epoch is skipped if a student's
    weights after it no longer exist and were not evaluated before.
    """
    e, judging = start.experiment, judging_of(start.experiment)
    for epoch in range(1, math.ceil(e.train.epochs)):
        partly = train_epochs(run, list(trainings.values()), epoch, e.placement)
        known = {f"{p.label} round {number} epoch {epoch}": s for p, s in zip(trainings, partly, strict=True)}
        there = (
            s.is_there or evaluate_stage(run.store, judging, s, start.held_out).is_finished for s in partly
        )
        if all(there):
            found = evaluate_students(run, known, start.held_out, judging, e.placement)
            if on_result is not None:
                on_result(
                    number - 1 + epoch / e.train.epochs, dict(zip(trainings, found.values(), strict=True))
                )
