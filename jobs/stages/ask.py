"""Stage generate: every teacher answers every question, as shards over hosting actors (`hosted`) or calls
(`endpoint`).

A teacher's answers are one store directory. A wave of further samples (`until_verified`) is another, for just
the questions that still lack a right answer. A file teacher's answers (`take`) go the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from cluster.models.loading import check_model_directory, fingerprint
from cluster.models.rendering import template_identity
from cluster.placement import Needs
from cluster.pool import Job
from cluster.storage import local_copy
from jobs.experiment.schema import EndpointTeacher, FileTeacher, Generate, ModelTeacher
from jobs.run.context import Context
from jobs.run.quarantine import forget_attempts
from jobs.run.store import Stage, read_table
from jobs.stages.answers import VERSION, Ask, Asks, answer_id
from jobs.stages.endpoint import EndpointAsker, read_key
from jobs.stages.hosted import ModelAsker, teacher_renderer, teacher_source


def teacher_identity(teacher: ModelTeacher | EndpointTeacher) -> dict[str, Any]:
    """What of a teacher its answers depend on: never where it lives or how many replicas serve it."""
    if isinstance(teacher, ModelTeacher):
        return {
            "kind": "model",
            "name": teacher.name,
            "model": fingerprint(teacher_source(teacher)),
            "dtype": teacher.dtype,
            "template": template_identity(teacher.chat_template),
            "template_kwargs": teacher.chat_template_kwargs,
        }
    return {"kind": "endpoint", "name": teacher.name, "model": teacher.model, "base_url": teacher.base_url}


@dataclass(frozen=True)
class Wave:
    """One teacher's stage and the asks that make it."""

    teacher: ModelTeacher | EndpointTeacher
    stage: Stage
    asks: Asks

    def shards(self, size: int) -> list[tuple[str, Asks]]:
        """This wave's shards of at most `size` asks each."""
        return self.asks.shards(size)


def plan_wave(
    context: Context, teacher: ModelTeacher | EndpointTeacher, asks: Sequence[Ask], name: str
) -> Wave:
    """The wave of one teacher's asks, as part of this run."""
    wave = wave_of(context, teacher, asks)
    context.note(f"generate {name}", wave.stage)
    return wave


def wave_of(
    context: Context, teacher: ModelTeacher | EndpointTeacher, asks: Sequence[Ask], retry: int = 0
) -> Wave:
    """The stage of one teacher's asks. `shard_size` is not part of its identity's meaning but names its
    parts, so it is in it.
    """
    e = context.experiment
    sampling = e.generate.model_dump(exclude={"until_verified", "max_samples", "samples"})
    config = {"teacher": teacher_identity(teacher), "sampling": sampling, "seed": e.seed, "retry": retry}
    asks = asks if isinstance(asks, Asks) else Asks(asks)
    return Wave(teacher, context.store.stage("generate", VERSION, config, {"asks": asks.id}), asks)


def ask_waves(context: Context, waves: Sequence[Wave]) -> None:
    """Run what is missing of these waves: all teachers at once as far as the cluster has room, the rest after
    them.
    """
    with context.claimed(w.stage for w in waves):
        _ask_missing(context, [w for w in waves if not w.stage.is_finished])


def _ask_missing(context: Context, waves: Sequence[Wave]) -> None:
    e = context.experiment
    jobs, missing, parts = [], {}, {}
    for wave in waves:
        forget_attempts(wave.stage.directory)
        shards = wave.shards(e.generate.shard_size)
        todo = [s for s in shards if not wave.stage.has(s[0])]
        name = f"{wave.teacher.name} {wave.stage.id[:8]}"
        missing[name], parts[name] = wave, [s[0] for s in shards]
        if todo:
            jobs.append(_job(name, wave, todo, e.generate, e.seed, spent_so_far(context, wave.teacher.name)))
    questions = sum(len(asks) for job in jobs for _, (_, asks) in job.shards)
    if jobs:
        with context.talker.bar("generate", questions, "answers") as bar:
            for result in context.host.pool.run(jobs):
                bar.advance(result.value.items)
    for name, wave in missing.items():
        answers = pd.concat([wave.stage.read(p) for p in parts[name]], ignore_index=True)
        wave.stage.finish(
            parts[name],
            answers=len(answers),
            failed=int((answers["finish"] == "failed").sum()),
            prompt_tokens=int(answers["prompt_tokens"].sum()),
            answer_tokens=int(answers["answer_tokens"].sum()),
            usd=float(answers["usd"].sum()),
        )
        context.say_fallbacks(f"generate {wave.teacher.name}", wave.stage)


def spent_so_far(context: Context, teacher: str) -> float:
    """USD that this run's waves of a teacher have cost, finished or not: the budget covers them all."""
    directories = {
        s.directory
        for s in context.every.values()
        if s.name == "generate" and s.config["teacher"]["name"] == teacher
    }
    parts = [p for d in sorted(directories) for p in d.glob("*.parquet")]
    return sum(float(read_table(p, columns=["usd"])["usd"].sum()) for p in parts)


def failed_asks(wave: Wave) -> list[Ask]:
    """The asks of a finished wave whose calls failed."""
    failed = wave.stage.read()
    ids = set(failed.loc[failed["finish"] == "failed", "answer_id"])
    return [a for a in wave.asks if answer_id(wave.teacher.name, a.question_id, a.sample) in ids]


def ask_again(context: Context, name: str, wave: Wave) -> list[tuple[str, Wave]]:
    """Further waves for an endpoint's failed calls, with their names: those made before, and one more if the
    run was told to retry.
    """
    made: list[tuple[str, Wave]] = []
    for number in range(1, 100) if isinstance(wave.teacher, EndpointTeacher) else ():
        asks = failed_asks(made[-1][1] if made else wave)
        if not asks:
            break
        again = wave_of(context, wave.teacher, asks, retry=number)
        if not (again.stage.is_finished or context.retry_failed):
            break
        context.note(f"generate {name} retry {number}", again.stage)
        if not again.stage.is_finished:
            context.retry_failed = False  # one more try a run
            ask_waves(context, [again])
        made.append((f"{name} retry {number}", again))
    return made


def _job(
    name: str,
    wave: Wave,
    todo: Sequence[tuple[str, Sequence[Ask]]],
    settings: Generate,
    seed: int,
    spent_usd: float,
) -> Job:
    directory = str(wave.stage.directory)
    shards = [(part, (part, asks)) for part, asks in todo]
    teacher = wave.teacher
    if isinstance(teacher, ModelTeacher):
        needs = teacher.needs
        return Job(
            name,
            partial(ModelAsker, teacher, settings, seed, directory),
            shards,
            teacher.replicas,
            needs,
            "generate",
        )
    make = partial(EndpointAsker, teacher, settings, seed, directory, spent_usd, read_key(teacher))
    return Job(name, make, shards, 1, Needs(0.0), "generate")


def check_teachers(context: Context) -> None:
    """Look at every teacher before any is asked: directories, weights, templates, keys, room."""
    for teacher in context.experiment.teachers:
        if isinstance(teacher, ModelTeacher):
            check_model_directory(teacher.path)
            teacher_renderer(teacher).prove()
        elif isinstance(teacher, FileTeacher) and not local_copy(teacher.path).is_file():
            raise BadInput(
                f"no answers of teacher {teacher.name} there",
                teacher.path,
                "a .jsonl, .json or .parquet file",
                "check the path",
            )
