"""Stage train: chosen answers become token examples, and one Ray Train run trains a queue of students on
them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from cluster.models.rendering import Renderer
from jobs.files.datasets import Question
from jobs.run.context import Context
from jobs.run.store import Stage, digest, write_fallbacks
from jobs.stages.score import StudentState
from training.data import SUFFIX, Example, count_steps, write_examples
from training.loop import DONE, TrainJob, paused_name
from training.metrics import read_metrics

VERSION = 2
EXAMPLES = "examples" + SUFFIX


@dataclass(frozen=True)
class Training:
    """One student to train on one choice."""

    label: str
    student: StudentState
    chosen: Stage
    scores: Stage
    seed: int


def train_stage(context: Context, t: Training) -> Stage:
    """The stage that holds a trained student."""
    config = {"train": asdict(context.experiment.train), "seed": t.seed, "rendering": t.student.rendering}
    return context.store.stage("train", VERSION, config, {"student": t.student.id, "chosen": t.chosen.id})


def chosen_examples(
    chosen: pd.DataFrame, pool: pd.DataFrame, questions: Mapping[str, Question], renderer: Renderer
) -> list[Example]:
    """Render the chosen answers for training, joined by answer id, in the order of question ids."""
    texts = dict(zip(pool["answer_id"], pool["text"], strict=True))
    examples = []
    for row in chosen.itertuples():
        question = questions[str(row.question_id)]
        rendered = renderer.conversation(question.text, texts[row.answer_id], question.system)
        weight = float(np.float64(row.weight))  # type: ignore[arg-type]
        examples.append(Example(rendered.ids, rendered.prompt_length, rendered.answer_end, weight))
    return examples


def check_limits(context: Context, label: str, examples: Sequence[Example]) -> None:
    """Refuse to train on answers that evaluation would cut off.

    Raises:
        BadInput: no examples, or chosen answers longer than evaluate.max_new_tokens.
    """
    if not examples:
        raise BadInput(
            f"{label} chose no answer at all",
            "",
            "at least one verified answer",
            "look at the ledger: why did answers fall out?",
        )
    e = context.experiment.evaluate
    longest = max(x.loss_tokens for x in examples)
    cut = sum(x.loss_tokens > e.max_new_tokens for x in examples)
    if cut and e.metric == "accuracy" and not e.allow_truncation:
        raise BadInput(
            f"{label}: {cut} of {len(examples)} chosen answers are longer than the student may generate",
            f"up to {longest} tokens, evaluate.max_new_tokens {e.max_new_tokens}",
            "room for every chosen answer",
            f"set evaluate.max_new_tokens={longest}, or evaluate.allow_truncation=true to go on knowingly",
        )


def train_students(
    context: Context, trainings: Sequence[Training], pool: pd.DataFrame, questions: Mapping[str, Question]
) -> dict[str, StudentState]:
    """Train every student; returns label -> the student after it.

    Raises:
        BadInput: costs made under another rendering than training uses, or limits that do not fit.
    """
    stages = {t.label: context.note(t.label, train_stage(context, t)) for t in trainings}
    for training in trainings:
        refuse_another_rendering(training)
    with context.claimed(stages.values()):
        unfinished = {
            stages[t.label].id: (t, stages[t.label]) for t in trainings if not stages[t.label].is_finished
        }
        run_queue(
            context, [prepare_job(context, t, stage, pool, questions) for t, stage in unfinished.values()]
        )
        for t, stage in unfinished.values():
            finish_training(stage)
            context.say_fallbacks(t.label, stage)
    return {t.label: t.student.after(stages[t.label]) for t in trainings}


def train_epochs(
    context: Context,
    trainings: Sequence[Training],
    pool: pd.DataFrame,
    questions: Mapping[str, Question],
    epochs: int,
) -> dict[str, StudentState]:
    """Train every student up to the end of an epoch; returns label -> the student there.

    A finished training has let the weights of its epochs go, so those of its students may not be there any
    more.
    """
    stages = {t.label: train_stage(context, t) for t in trainings}
    jobs, partly = [], {}
    with context.claimed(stages.values()):
        for t in trainings:
            stage = stages[t.label]
            job = None if stage.is_finished else prepare_job(context, t, stage, pool, questions)
            until = count_steps(stage.count_rows(EXAMPLES), context.experiment.train.batch_size, epochs, None)
            partly[t.label] = t.student.after_steps(stage, until)
            if job is not None:
                jobs.append(replace(job, until=until))
        run_queue(context, jobs)
    return partly


def refuse_another_rendering(training: Training) -> None:
    """Refuse costs that were made of other tokens than training would see."""
    scored_under = training.scores.config["rendering"]
    if scored_under != training.student.rendering:
        raise BadInput(
            f"{training.label}: the costs were made under another rendering than training uses",
            str(scored_under)[:12],
            f"{training.student.rendering[:12]}, the student's own chat template",
            "score again with the student as it is now",
        )


def prepare_job(
    context: Context, t: Training, stage: Stage, pool: pd.DataFrame, questions: Mapping[str, Question]
) -> TrainJob:
    """Write a training's examples and say how it is to be trained."""
    renderer = t.student.renderer()
    if not stage.has(EXAMPLES):
        examples = chosen_examples(t.chosen.read("chosen"), pool, questions, renderer)
        check_limits(context, t.label, examples)
        write_examples(stage.part(EXAMPLES), examples)
    return TrainJob(
        job_id=stage.id,
        source=t.student.source,
        examples=str(stage.part(EXAMPLES)),
        output=str(stage.directory),
        seed=t.seed,
        settings=context.experiment.train,
        chat_template=renderer.template,
    )


def finish_training(stage: Stage) -> None:
    """Close a trained stage, with its steps and losses;
    what stopping after an epoch left there is removed.
    """
    rows = read_metrics(stage.directory)
    write_fallbacks(stage.directory, json.loads((stage.directory / DONE).read_text()).get("fallbacks", {}))
    for partial in stage.directory.glob("step-*"):
        partial.remove()
    for note in stage.directory.glob(paused_name("*")):
        note.unlink()
    stage.finish(
        [EXAMPLES],
        steps=len(rows),
        first_loss_nats=rows[0]["loss_nats"],
        last_loss_nats=rows[-1]["loss_nats"],
        answer_tokens=sum(r["answer_tokens"] for r in rows),
    )


def run_queue(context: Context, jobs: Sequence[TrainJob]) -> None:
    """Train a queue of jobs on one worker group."""
    if not jobs:
        return
    name, storage = "queue-" + digest([job.job_id for job in jobs], 16), context.store.root / "checkpoints"
    if context.resume == "never":
        (storage / name).remove()
    with context.talker.bar("train", 0, "steps") as bar:
        context.host.train(jobs, name, storage, context.experiment.placement, bar.set)
