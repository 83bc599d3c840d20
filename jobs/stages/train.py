"""The stage `train`. One Ray Train run trains a queue of students, each on its own examples.

It does not depend on costs or answers. An example consists of tokens, a span and a weight.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.run.run import Planned, Run
from jobs.run.store import Stage, Store, digest, write_fallbacks
from jobs.run.usage import usage_of
from jobs.stages.states import CONFIGS, ModelState, Training
from training.batches import count_steps
from training.data import SUFFIX, count_groups
from training.job import DONE, OPTIMIZER, WEIGHTS, TrainJob, paused_name
from training.metrics import read_metrics
from training.objective_settings import training_identity
from training.settings import TrainSettings

VERSION = 3
EXAMPLES_VERSION = 1
EXAMPLES = "examples" + SUFFIX


def examples_stage(store: Store, system: str, rendering: str, made_from: str) -> Stage:
    """The stage that holds a system's examples.

    Args:
        made_from: the id of the data that the examples are made from.
    """
    return store.stage(
        "examples", EXAMPLES_VERSION, {"system": system, "rendering": rendering}, {"made_from": made_from}
    )


class NothingToLearn(BadInput):
    """A path has no example left to learn from. Other paths may continue."""


def write_examples_of(
    run: Run, label: str, stage: Stage, make: Callable[[Place], Mapping[str, Any]]
) -> Stage:
    """Write the examples of a stage, unless they exist already.

    Args:
        make: writes the examples to a place, and returns what is counted: their number (`examples`) and
            more.

    Raises:
        NothingToLearn: there are no examples.
    """
    run.note("examples", label, stage)
    with run.claimed([stage]):
        if not stage.is_finished and run.mode == "make":
            counts = make(stage.part(EXAMPLES))
            stage.finish([EXAMPLES] if counts["examples"] else [], **counts)
    if stage.is_finished and not stage.manifest()["counts"]["examples"]:
        raise NothingToLearn(
            f"{label} chose no answer at all",
            "",
            "at least one verified answer",
            "look at the ledger for the reason why each answer was not used; under rule groups a late "
            "group is empty where a question has fewer right answers than there are groups",
        )
    return stage


def train_stage(store: Store, t: Training) -> Stage:
    """The stage that holds a trained student. It is identified by the examples' content, among others. So
    arms with the same choice share a training.
    """
    config = {"train": training_identity(t.settings, t.objective), "seed": t.seed}
    content = t.examples.manifest()["parts"][EXAMPLES]["sha256"]
    inputs = {"student": t.student.id, "examples": content}
    if t.frozen is not None:
        inputs["frozen"] = t.frozen.id
    if t.rounds is not None:
        place = {"first": t.rounds.first, "total": t.rounds.total, "is_last": t.rounds.is_last}
        config["rounds"] = place
        inputs["after"] = "" if t.rounds.after is None else t.rounds.after.id
    return store.stage("train", VERSION, config, inputs)


def train_students(
    run: Run, trainings: Sequence[Training], placement: Placement, kind: str = "train"
) -> list[Stage]:
    """Train every student. Returns the stages that hold them, in order. In a plan some are not finished.

    Args:
        kind: the work as users see it.
    """
    stages = [train_stage(run.store, t) for t in trainings]
    for t, stage in zip(trainings, stages, strict=True):
        run.note(kind, t.label, stage)
    if run.mode == "plan":
        for t, stage in zip(trainings, stages, strict=True):
            left = None if stage.is_finished else f"{_steps(t):,} steps"
            run.planned.append(Planned(kind, t.label, left, train_place(placement, t.settings)))
        return stages
    waiting = [t.student for t, s in zip(trainings, stages, strict=True) if not s.is_finished]
    bring_back(run, waiting, placement)
    with run.claimed(stages):
        unfinished = {s.id: (t, s) for t, s in zip(trainings, stages, strict=True) if not s.is_finished}
        for t, _ in unfinished.values():
            write_again(run, t)
        run_queue(run, [job_of(t, stage) for t, stage in unfinished.values()], placement)
        for t, stage in unfinished.values():
            finish_training(stage, run.registration.id, placement)
            run.say_fallbacks(f"{kind} {t.label}", stage.directory)
    return stages


def bring_back(run: Run, students: Iterable[ModelState], placement: Placement) -> None:
    """Train students again whose weights were removed (`keep`). The students that they were trained from are
    restored first. The same training on the same machine gives the same weights.
    """
    by = {s.id: s.trained_by for s in students if s.trained_by is not None and not s.is_there}
    trainings = [t for t in by.values() if t is not None]
    if not trainings:
        return
    bring_back(run, [t.student for t in trainings], placement)
    if run.mode == "plan":
        labels = {t.label for t in trainings}
        run.planned = [p for p in run.planned if p.kind != "train" or p.label not in labels]
        run.planned += [
            Planned("train", t.label, f"{_steps(t):,} steps, again: its weights were removed", "")
            for t in trainings
        ]
        return
    for t in trainings:
        stage = train_stage(run.store, t)
        with run.store.locked(stage):
            if not t.student.after(stage, t).is_there:  # another run may have made it meanwhile
                run.terminal.say(f"train {t.label}: again, since its weights were removed")
                (stage.directory / DONE).unlink()
                stage.reopen()
    train_students(run, trainings, placement)


def remove_examples(run: Run, stage: Stage) -> None:
    """Remove the examples of a finished training if this run can write them again, unless another run uses
    them. Their number and digest stay in the manifest.
    """
    examples = stage.part(EXAMPLES)
    if (
        stage.path in run.writers
        and examples.exists()
        and not run.registration.is_named_by_others(stage.path)
    ):
        examples.unlink()


def write_again(run: Run, t: Training) -> None:
    """Write the examples of a training again if they were removed. The same answers give the same bytes."""
    write = run.writers.get(t.examples.path)
    if write is None or t.examples.part(EXAMPLES).exists():
        return
    with run.store.locked(t.examples):
        if not t.examples.part(EXAMPLES).exists():  # another run may have written them meanwhile
            run.terminal.say(f"examples {t.label}: again, since they were removed")
            write()


def remove_weights(run: Run, stage: Stage) -> None:
    """Remove the weights and the optimizer of a finished training, unless another run uses them."""
    if run.registration.is_named_by_others(stage.path):
        return
    for config in CONFIGS:  # removed first: `is_there` looks for these, so half-removed weights do not count
        (stage.directory / WEIGHTS / config).unlink()
    for folder in (WEIGHTS, OPTIMIZER):
        (stage.directory / folder).remove()


def train_place(placement: Placement, settings: TrainSettings) -> str:
    """The text in which a plan says where students are trained."""
    lanes = f"{placement.train_lanes} lanes × " if placement.train_lanes > 1 else ""
    workers = f"{placement.train_workers} train workers × ({placement.train_needs})"
    return f"{lanes}{workers}, ZeRO {settings.zero_stage}"


def _steps(t: Training, epochs: float | None = None) -> int:
    s = t.settings
    if epochs is None and s.steps is not None:
        return s.steps
    groups = count_groups(t.examples.part(EXAMPLES))  # a pair of examples counts as one
    return count_steps(groups, s.batch_size, s.epochs if epochs is None else epochs, None)


def train_epochs(
    run: Run, trainings: Sequence[Training], epochs: int, placement: Placement
) -> list[ModelState]:
    """Train every student up to the end of an epoch. Returns the students at that point, in order.

    Finished trainings keep no weights of single epochs. So the weights of a returned student may not exist.
    """
    stages = [train_stage(run.store, t) for t in trainings]
    ends = [_steps(t, epochs) for t in trainings]
    for t, stage in zip(trainings, stages, strict=True):
        run.note("train", t.label, stage)
    waiting = [t.student for t, s in zip(trainings, stages, strict=True) if not s.is_finished]
    bring_back(run, waiting, placement)
    with run.claimed(stages):
        unfinished = {
            s.id: replace(job_of(t, s), until=end)
            for t, s, end in zip(trainings, stages, ends, strict=True)
            if not s.is_finished
        }
        run_queue(run, list(unfinished.values()), placement)
    return [t.student.after_steps(s, end) for t, s, end in zip(trainings, stages, ends, strict=True)]


def job_of(t: Training, stage: Stage) -> TrainJob:
    """Describe a training as a job for the workers.

    Raises:
        BadInput: the examples differ from those that were written.
    """
    t.examples.check(EXAMPLES)
    job = TrainJob(
        job_id=stage.id,
        source=t.student.source,
        examples=str(t.examples.part(EXAMPLES)),
        output=str(stage.directory),
        seed=t.seed,
        settings=t.settings,
        chat_template=t.student.renderer().template,
        tool_template=t.student.renderer().with_tools,
        stop_ids=tuple(sorted(t.student.renderer().stop_ids)),
        frozen=None if t.frozen is None else t.frozen.source,
        objective=t.objective,
    )
    if t.rounds is None:
        return job
    after = t.rounds.after
    return replace(
        job,
        carried=None if after is None else str(after.directory / OPTIMIZER),
        keeps_optimizer=not t.rounds.is_last,
        first=t.rounds.first,
        schedule_steps=t.rounds.total,
    )


def finish_training(stage: Stage, run_id: str, placement: Placement) -> None:
    """Finish the stage of a training: record its steps, losses and resources. Remove the files that were
    written when training stopped after an epoch.
    """
    rows = read_metrics(stage.directory)
    seconds = placement.train_workers * sum(r["seconds"] for r in rows)
    write_fallbacks(stage.directory, json.loads((stage.directory / DONE).read_text()).get("fallbacks", {}))
    for partial in stage.directory.glob("step-*"):
        partial.remove()
    for note in stage.directory.glob(paused_name("*")):
        note.unlink()
    stage.finish(
        [],
        usage_of(placement.train_needs, seconds, run_id).record(),
        steps=len(rows),
        first_loss_nats=rows[0]["loss_nats"],
        last_loss_nats=rows[-1]["loss_nats"],
        **{name: sum(r[name] for r in rows) for name in ("answer_tokens", "pairs") if name in rows[0]},
    )


def run_queue(run: Run, jobs: Sequence[TrainJob], placement: Placement) -> None:
    """Run training jobs. A job that starts from another job's model runs after it."""
    if not jobs:
        return
    name, storage = "queue-" + digest([job.job_id for job in jobs], 16), run.store.root / "checkpoints"
    if run.resume == "never":
        for place in storage.glob(f"{name}*"):  # of all its lanes
            place.remove()
    before = sum(len(read_metrics(Place(job.output))) for job in jobs)
    with run.terminal.bar("train", 0, "steps", before) as bar:
        run.host.train(jobs, name, storage, placement, bar.set)
