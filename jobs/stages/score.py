"""Stage score: the statistics of every verified answer under a student, sharded over actors that hold that
student.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import partial
from typing import Any

import pandas as pd

from cluster.errors import Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.rendering import Renderer
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Score
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.run.rows import Shards, Want, make_rows
from jobs.run.run import Run
from jobs.run.store import Stage, Store, digest
from jobs.stages.ask import prompt_tokens
from jobs.stages.states import ModelState
from selection.scoring import STATISTIC_NAMES, EmptySpan, Scorer

VERSION = 3
SCORE_COLUMNS = [
    "answer_id",
    "question_id",
    "teacher",
    "state",
    "reason",
    "conversation_tokens",
    *STATISTIC_NAMES,
]


def score_stage(store: Store, settings: Score, student: ModelState, pool_ids: Mapping[str, str]) -> Stage:
    """The stage that holds the statistics of a pool under a student."""
    config = {"score": settings.model_dump(exclude={"token_budget"}), "rendering": student.rendering}
    return store.stage("score", VERSION, config, {"student": student.id, **pool_ids})


class ScoreHandler:
    """Handler in an actor: loads the student once, and computes the statistics of answers under it."""

    def __init__(self, student: ModelState, settings: Score, num_gpus: float) -> None:
        self.settings = settings
        self.renderer = student.renderer()
        model = load_model(student.source, pick_device(num_gpus))
        self.scorer = Scorer(model, self.renderer.special_ids, settings.target_layer, settings.token_budget)
        self.fallbacks = self.scorer.proof.lines

    def identity(self, row: Row) -> str:
        return row.answer_id

    def give_up(self, row: Row, reason: str) -> pd.DataFrame:
        values = [row.answer_id, row.question_id, row.teacher, "quarantined", reason, 0]
        return pd.DataFrame([[*values, *[0.0] * len(STATISTIC_NAMES)]], columns=SCORE_COLUMNS)

    def compute(self, rows: Sequence[Row]) -> pd.DataFrame:
        return score_rows(rows, self.renderer, self.scorer, self.settings.max_length)

    def tally(self, table: pd.DataFrame) -> Tally:
        failed = int((table["state"] != "scored").sum())
        return Tally(len(table), int(table["conversation_tokens"].sum()), failed)


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
    run: Run,
    students: Sequence[ModelState],
    rows: list[Row],
    pool_ids: Mapping[str, str],
    settings: Score,
    placement: Placement,
) -> dict[str, Stage]:
    """Score the same answers under several students at once; returns student id -> stage.

    Args:
        pool_ids: what the rows depend on: label -> id of the verify stages and the questions.
    """
    stages = {s.id: score_stage(run.store, settings, s, pool_ids) for s in students}
    wants = [
        Want(
            f"{student.name} {student.id[:8]}",
            stages[student.id],
            partial(shards_of, rows, settings.shard_size),
            partial(ScoreHandler, student, settings, placement.num_gpus),
            placement.score_workers,
            placement.needs,
            SCORE_COLUMNS,
            count_scores,
            estimate=partial(left_to_score, student),
            place=f"{placement.score_workers} × ({placement.needs})",
        )
        for student in {s.id: s for s in students}.values()
    ]
    make_rows(run, wants, "answers")
    return stages


def count_scores(scores: pd.DataFrame) -> dict[str, int]:
    """What the manifest says of statistics: how many answers, their tokens, and how many of each state."""
    states = {str(k): int(v) for k, v in scores["state"].value_counts().items()}
    return {"answers": len(scores), "tokens": int(scores["conversation_tokens"].sum()), **states}


def left_to_score(student: ModelState, left: Shards) -> str:
    """What these shards of answers would take of a student."""
    renderer, rows = student.renderer(), [row for _, chunk in left for row in chunk]
    prompts = {r.question_id: prompt_tokens(renderer, r.question, r.system) for r in rows}
    answers = sum(len(renderer.tokenizer(r.answer)["input_ids"]) for r in rows)
    tokens = answers + sum(prompts[r.question_id] for r in rows)
    return f"{len(rows):,} answers, about {tokens:,} tokens"
