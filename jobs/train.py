"""Stage train: chosen answers become token examples, and one Ray Train run trains a queue of students on them."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cluster.errors import BadInput, NoRoom
from cluster.rendering import Renderer
from jobs.context import Context
from jobs.datasets import Question
from jobs.score import StudentState
from jobs.store import Stage, digest
from training.data import Example, write_examples
from training.loop import TrainJob
from training.trainer import read_metrics, train_jobs

VERSION = 1


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


def chosen_examples(chosen: pd.DataFrame, pool: pd.DataFrame, questions: Mapping[str, Question], renderer: Renderer) -> list[Example]:
    """Render the chosen answers for training, joined by answer id, in the order of question ids."""
    texts = dict(zip(pool["answer_id"], pool["text"], strict=True))
    examples = []
    for row in chosen.itertuples():
        question = questions[str(row.question_id)]
        rendered = renderer.conversation(question.text, texts[row.answer_id], question.system)
        examples.append(Example(rendered.ids, rendered.prompt_length, rendered.answer_end, float(np.float64(row.weight))))  # type: ignore[arg-type]
    return examples


def check_limits(context: Context, label: str, examples: Sequence[Example]) -> None:
    """Refuse to train on answers that evaluation would cut off.

    Raises:
        BadInput: no examples, or chosen answers longer than evaluate.max_new_tokens.
    """
    if not examples:
        raise BadInput(
            f"{label} chose no answer at all", "", "at least one verified answer", "look at the ledger: why did answers fall out?"
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
    e = context.experiment
    stages: dict[str, Stage] = {}
    jobs: list[TrainJob] = []
    after: dict[str, StudentState] = {}
    for t in trainings:
        scored_under = t.scores.config["rendering"]
        if scored_under != t.student.rendering:
            raise BadInput(
                f"{t.label}: the costs were made under another rendering than training uses",
                str(scored_under)[:12],
                f"{t.student.rendering[:12]}, the student's own chat template",
                "score again with the student as it is now",
            )
        stage = context.note(t.label, train_stage(context, t))
        stages[t.label] = stage
        after[t.label] = t.student.after(stage)
        if stage.is_finished or any(j.job_id == stage.id for j in jobs):
            continue
        renderer = t.student.renderer()
        examples = chosen_examples(t.chosen.read("chosen"), pool, questions, renderer)
        check_limits(context, t.label, examples)
        stage.directory.mkdir(parents=True, exist_ok=True)
        write_examples(stage.part("examples"), examples)
        jobs.append(
            TrainJob(
                job_id=stage.id,
                source=t.student.source,
                examples=str(stage.part("examples")),
                output=str(stage.directory),
                seed=t.seed,
                settings=e.train,
                chat_template=renderer.template,
            )
        )
    run_queue(context, jobs)
    for stage in stages.values():
        if not stage.is_finished:
            rows = read_metrics(stage.directory)
            stage.finish(
                ["examples"],
                steps=len(rows),
                first_loss_nats=rows[0]["loss_nats"],
                last_loss_nats=rows[-1]["loss_nats"],
                answer_tokens=sum(r["answer_tokens"] for r in rows),
            )
    return after


def check_train_room(context: Context, resources: Mapping[str, float]) -> None:
    """Refuse a train worker group that can never be placed: Ray Train would wait for it for ever.

    Raises:
        NoRoom: with what it asks for and what there is.
    """
    p = context.experiment.placement
    asked = {"CPU": p.train_workers * cpus_per_train_worker(context), "GPU": p.train_workers * p.num_gpus}
    for kind, amount in asked.items():
        if amount > resources.get(kind, 0.0):
            raise NoRoom(
                f"{p.train_workers} train workers cannot be placed on this cluster",
                f"{amount:g} {kind}",
                f"at most {resources.get(kind, 0.0):g}",
                "lower placement.train_workers or what each is given",
            )


def cpus_per_train_worker(context: Context) -> float:
    """A train worker gets at least one CPU, unless a GPU does its work."""
    p = context.experiment.placement
    return max(p.num_cpus, 0.1) if p.num_gpus else max(p.num_cpus, 1.0)


def run_queue(context: Context, jobs: Sequence[TrainJob]) -> None:
    """Train a queue of jobs in one Ray Train run, with the hosting actors out of the way."""
    if not jobs:
        return
    p = context.experiment.placement
    if any(not job.is_done for job in jobs):
        check_train_room(context, context.cluster.resources)
        context.free_the_cluster()
    name, storage = "queue-" + digest([job.job_id for job in jobs], 16), context.store.root / "checkpoints"
    with only_trainer(storage, context.talker.say):
        if context.resume == "never":
            shutil.rmtree(storage / name, ignore_errors=True)
        with context.talker.bar("train", 0, "steps") as bar:
            train_jobs(
                jobs,
                name=name,
                storage=storage,
                workers=p.train_workers,
                cpus_per_worker=cpus_per_train_worker(context),
                gpus_per_worker=p.num_gpus,
                max_failures=p.max_failures,
                on_progress=bar.set,
            )


@contextmanager
def only_trainer(storage: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the store's training lock: two runs that share trainings must not write the same checkpoints at once.

    The lock belongs to the process and goes with it, however it ends.
    """
    storage.mkdir(parents=True, exist_ok=True)
    with open(storage / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is training in this store; waiting for it ({storage / '.lock'})")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
