"""Stage score: the statistics of every verified answer under a student, sharded over actors that hold that
student.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd

from cluster.errors import BadInput, describe
from cluster.metrics import Tally
from cluster.models.loading import (
    ModelSource,
    check_model_directory,
    fingerprint,
    import_transformers,
    load_model,
    load_tokenizer,
    pick_device,
    pinned,
)
from cluster.models.rendering import Renderer, Unrenderable
from cluster.pool import Job
from cluster.storage import Place
from jobs.experiment.schema import Score, Student
from jobs.files.datasets import Question, Row
from jobs.run.context import Context
from jobs.run.quarantine import forget_attempts, run_isolated
from jobs.run.store import Stage, digest, write_fallbacks, write_table
from selection.layers import find_layer
from selection.scoring import STATISTIC_NAMES, EmptySpan, Scorer
from training.checkpoints import ADAPTER

VERSION = 3
ADAPTER_CONFIG = "adapter_config.json"
SCORE_COLUMNS = [
    "answer_id",
    "question_id",
    "teacher",
    "state",
    "reason",
    "conversation_tokens",
    *STATISTIC_NAMES,
]


@dataclass(frozen=True)
class StudentState:
    """A student at some point of its path: `id` says by content which weights these are.

    Training changes the weights only, so the tokenizer, the template and the rendering's fingerprint stay the
    first state's.
    """

    name: str
    source: ModelSource
    id: str
    tokenizer: ModelSource
    chat_template: str | None
    rendering: str
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def renderer(self) -> Renderer:
        return Renderer(
            load_tokenizer(self.tokenizer), self.chat_template, template_kwargs=self.template_kwargs
        )

    @property
    def is_there(self) -> bool:
        """Whether the weights, in a directory, have not been removed."""
        source = self.source
        return (
            Place(source.path) / "config.json"
            if source.adapter is None
            else Place(source.adapter) / ADAPTER_CONFIG
        ).is_file()

    def after(self, training: Stage) -> "StudentState":
        """This student after a training stage."""
        return replace(self, source=self._trained(training, "model"), id=training.id)

    def after_steps(self, training: Stage, steps: int) -> "StudentState":
        """This student after the first steps of a training stage."""
        return replace(self, source=self._trained(training, f"step-{steps}"), id=digest([training.id, steps]))

    def _trained(self, training: Stage, folder: str) -> ModelSource:
        """Where a training left its weights; an adapter belongs on top of the base that it was trained on."""
        place = training.directory / folder
        if training.config["train"]["lora"] is not None:
            return replace(self.source, adapter=str(place / ADAPTER))
        return replace(self.source, path=str(place), revision=None)


def first_state(student: Student) -> StudentState:
    """The student before any training; its rendering is proved on probe rows."""
    check_model_directory(student.path)
    source = pinned(ModelSource(student.path, student.dtype, student.revision, student.trust_remote_code))
    kwargs = student.chat_template_kwargs
    renderer = Renderer(load_tokenizer(source), student.chat_template, template_kwargs=kwargs)
    renderer.prove()
    identity = digest([fingerprint(source), source.dtype, renderer.fingerprint])
    return StudentState(
        student.name, source, identity, source, student.chat_template, renderer.fingerprint, kwargs
    )


def score_stage(context: Context, student: StudentState, pool_ids: Mapping[str, str]) -> Stage:
    """The stage that holds the statistics of a pool under a student."""
    config = {
        "score": context.experiment.score.model_dump(exclude={"token_budget"}),
        "rendering": student.rendering,
    }
    return context.store.stage("score", VERSION, config, {"student": student.id, **pool_ids})


class ScoreHandler:
    """Handler in an actor: loads the student once; writes the statistics of each shard as a part."""

    def __init__(self, student: StudentState, settings: Score, num_gpus: float, directory: str) -> None:
        self.settings, self.directory = settings, Place(directory)
        self.renderer = student.renderer()
        model = load_model(student.source, pick_device(num_gpus))
        self.scorer = Scorer(model, self.renderer.special_ids, settings.target_layer, settings.token_budget)
        write_fallbacks(self.directory, self.scorer.proof.lines)

    def __call__(self, shard: tuple[str, list[Row]]) -> Tally:
        part, rows = shard
        table = run_isolated(self.directory, part, rows, lambda row: row.answer_id, self._scores, set_aside)
        write_table(self.directory / f"{part}.parquet", table)
        return Tally(
            len(rows), int(table["conversation_tokens"].sum()), int((table["state"] != "scored").sum())
        )

    def _scores(self, rows: Sequence[Row]) -> pd.DataFrame:
        return score_rows(rows, self.renderer, self.scorer, self.settings.max_length)


def set_aside(row: Row, reason: str) -> pd.DataFrame:
    """The one-row table of an answer in quarantine."""
    values = [
        row.answer_id,
        row.question_id,
        row.teacher,
        "quarantined",
        reason,
        0,
        *[0.0] * len(STATISTIC_NAMES),
    ]
    return pd.DataFrame([values], columns=SCORE_COLUMNS)


def score_rows(rows: Sequence[Row], renderer: Renderer, scorer: Scorer, max_length: int) -> pd.DataFrame:
    """Render and score answers; a row that cannot be scored keeps its place, with a state and a reason."""
    table: dict[str, list[Any]] = {}
    rendered = {}
    limit = min(max_length, scorer.context_length or max_length)
    for row in rows:
        blank = [0.0] * len(STATISTIC_NAMES)
        head = [row.answer_id, row.question_id, row.teacher]
        try:
            conversation = renderer.conversation(row.question, row.answer, row.system)
        except Unrenderable as error:
            table[row.answer_id] = [*head, "unrenderable", str(error), 0, *blank]
            continue
        if conversation.length > limit:
            table[row.answer_id] = [
                *head,
                "too_long",
                f"{conversation.length} tokens, limit {limit}",
                conversation.length,
                *blank,
            ]
            continue
        table[row.answer_id] = [*head, "scored", "", conversation.length, *blank]
        rendered[row.answer_id] = conversation
    for identity, result in zip(rendered, scorer.score(list(rendered.values())), strict=True):
        entry = table[identity]
        if isinstance(result, Exception):
            entry[3] = "empty" if isinstance(result, EmptySpan) else "quarantined"
            entry[4] = describe(result)
        else:
            entry[6:] = astuple(result)
    return pd.DataFrame([table[row.answer_id] for row in rows], columns=SCORE_COLUMNS)


def shards_of(rows: Sequence[Row], size: int) -> list[tuple[str, list[Row]]]:
    """Cut rows into shards that never split a question; a shard's name follows from its place and content."""
    shards: list[list[Row]] = [[]]
    for row in rows:
        if len(shards[-1]) >= size and shards[-1][-1].question_id != row.question_id:
            shards.append([])
        shards[-1].append(row)
    return [
        (f"{k:06d}-{digest([r.answer_id for r in shard], 8)}", shard)
        for k, shard in enumerate(shards)
        if shard
    ]


def pool_rows(pool: pd.DataFrame, questions: Mapping[str, Question]) -> list[Row]:
    """The pool's verified answers, questions together."""
    verified = pool[pool["state"] == "verified"].sort_values(["question_id", "answer_id"])
    return [
        Row(a, q, t, questions[q].text, text, questions[q].system)
        for a, q, t, text in zip(
            verified["answer_id"], verified["question_id"], verified["teacher"], verified["text"], strict=True
        )
    ]


def score_students(
    context: Context, students: Sequence[StudentState], rows: list[Row], pool_ids: Mapping[str, str]
) -> dict[str, Stage]:
    """Score the same answers under several students at once; returns student id -> finished stage.

    Args:
        pool_ids: what the rows depend on: label -> id of the verify stages and the questions.
    """
    by_id = {s.id: s for s in students}
    stages = {
        i: context.note(f"score {s.name} {i[:8]}", score_stage(context, s, pool_ids))
        for i, s in by_id.items()
    }
    with context.claimed(stages.values()):
        _score_missing(
            context, [(by_id[i], stage) for i, stage in stages.items() if not stage.is_finished], rows
        )
    return stages


def _score_missing(
    context: Context, unfinished: Sequence[tuple[StudentState, Stage]], rows: list[Row]
) -> None:
    """Run what is missing of these stages and finish them."""
    e = context.experiment
    jobs = []
    shards = shards_of(rows, e.score.shard_size) if unfinished else []
    for student, stage in unfinished:
        forget_attempts(stage.directory)
        todo = [(name, (name, chunk)) for name, chunk in shards if not stage.has(name)]
        make = partial(ScoreHandler, student, e.score, context.needs.num_gpus, str(stage.directory))
        if todo:
            jobs.append(
                Job(
                    f"score {student.name} {student.id[:8]}",
                    make,
                    todo,
                    min(e.placement.score_workers, len(todo)),
                    context.needs,
                )
            )
    if jobs:
        with context.talker.bar(
            "score", sum(len(c) for j in jobs for _, (_, c) in j.shards), "answers"
        ) as bar:
            for result in context.host.pool.run(jobs):
                bar.advance(result.value.items)
    for student, stage in unfinished:
        finish_scores(stage, [name for name, _ in shards])
        context.say_fallbacks(f"score {student.name}", stage)


def finish_scores(stage: Stage, names: list[str]) -> None:
    """Close a score stage whose parts are all there, with its counts by state."""
    scores = (
        pd.concat([stage.read(n) for n in names], ignore_index=True)
        if names
        else pd.DataFrame(columns=SCORE_COLUMNS)
    )
    states = {str(k): int(v) for k, v in scores["state"].value_counts().items()}
    stage.finish(names, answers=len(scores), tokens=int(scores["conversation_tokens"].sum()), **states)


def check_student(student: StudentState, settings: Score) -> None:
    """Look at a student before any work: its template, its weights, the layer to read.

    Raises:
        BadInput: what is missing.
    """
    import torch

    transformers = import_transformers()
    if not student.source.is_local:
        return
    try:
        config = transformers.AutoConfig.from_pretrained(
            student.source.here, local_files_only=True, trust_remote_code=student.source.trust_remote_code
        )
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, trust_remote_code=student.source.trust_remote_code
            )
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot build the student {student.name}", error, "a causal language model", ""
        ) from error
    find_layer(model, settings.target_layer)
