"""The statistics of answers under a student, sharded over actors that hold that student. They belong to the
student's weights under one rendering: an answer that was scored once is not scored again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
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
from jobs.run.keys import answer_key, question_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.slices import joined
from jobs.run.store import digest
from jobs.run.tables import KEY, Owner, Request, SlicedRequest, request_by_slice, unusual
from jobs.run.views import View
from jobs.stages.ask import prompt_tokens
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import read_slice
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from selection.scoring import STATISTIC_NAMES, EmptySpan, Scorer

VERSION = 1
STATISTIC_COLUMNS = ["state", "reason", "conversation_tokens", *STATISTIC_NAMES]
SCORE_COLUMNS = ["answer_id", "question_id", "teacher", *STATISTIC_COLUMNS]


@dataclass(frozen=True)
class Scores:
    """The statistics of some answers under one student.

    Attributes:
        rows: the answers, several of which may be the same text.
    """

    view: View
    rows: Sequence[Row]

    def read(self) -> pd.DataFrame:
        """The statistics of every answer, in the order of the rows."""
        named = [(row.answer_id, row.question_id, row.teacher) for row in self.rows]
        return beside(named, [key_of(row) for row in self.rows], self.view.read())


@dataclass(frozen=True)
class PoolScores:
    """The statistics of a pool's verified answers under one student, by slice."""

    view: View
    pool: AnswerPool

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def rendering(self) -> str:
        """Of the tokens that were scored."""
        return str(self.view.table.owner.identity["rendering"])

    @property
    def is_finished(self) -> bool:
        return self.view.is_finished

    def slice(self, number: int) -> pd.DataFrame:
        """One slice's statistics, ordered by question and answer."""
        own = verified_in(self.pool.told(number))
        named = zip(*(own[c].tolist() for c in SCORE_COLUMNS[:3]), strict=True)
        keys = [bytes.fromhex(key) for key in own["answer_key"].tolist()]
        return beside(list(named), keys, self.view.read_slice(number))

    def each(self) -> Iterator[pd.DataFrame]:
        """Slice by slice."""
        return (self.slice(number) for number in range(self.pool.count))

    def read(self) -> pd.DataFrame:
        """All of them, in this process."""
        return joined(self.each())


def verified_in(pool: pd.DataFrame) -> pd.DataFrame:
    """The verified ones of these answers, ordered by question and answer."""
    verified = pool[pool["state"] == "verified"]
    return verified.sort_values(["question_id", "answer_id"], ignore_index=True)


def beside(named: Sequence[Any], keys: Sequence[bytes], found: pd.DataFrame) -> pd.DataFrame:
    """The statistics with these keys beside what names them."""
    place = {key: number for number, key in enumerate(found[KEY].tolist())}
    own = found.iloc[[place[key] for key in keys]].reset_index(drop=True)
    head = pd.DataFrame(named, columns=SCORE_COLUMNS[:3])
    return head.join(own.reindex(columns=STATISTIC_COLUMNS))


ROW_COLUMNS = ["answer_key", "answer_id", "question_id", "teacher", "text", "tool_calls"]


@dataclass(frozen=True)
class ToScore:
    """A pool's verified answers, as they are scored, slice by slice."""

    pool: AnswerPool

    def keys(self, number: int) -> list[bytes]:
        """The keys of statistics, sorted and each once."""
        return sorted({bytes.fromhex(k) for k in verified_in(self.pool.told(number))["answer_key"].tolist()})

    def items(self, number: int) -> dict[bytes, Row]:
        """What is scored under each."""
        questions = read_slice(self.pool.questions, number)
        own = verified_in(self.pool.read(number))
        columns = (own[c].tolist() for c in ROW_COLUMNS)
        return {
            bytes.fromhex(key): Row(answer, q, teacher, questions[q].prompt, text, calls)
            for key, answer, q, teacher, text, calls in zip(*columns, strict=True)
        }

    def request(self) -> Request | SlicedRequest:
        """All of them."""
        said = self.pool.states.counts()
        rows = said["states"].get("verified", 0)
        return request_by_slice(said["to_score"], rows, self.pool.count, self.keys, self.items)


def key_of(row: Row) -> bytes:
    """The key of an answer's statistics: its question's messages and what it says."""
    return answer_key(question_key(row.prompt), row.answer, row.calls)


def owner_of(student: ModelState, settings: Score) -> Owner:
    """Whose statistics these are: the weights, the tokens, the layer that is read and the longest row."""
    read = {"target_layer": settings.target_layer, "max_length": settings.max_length}
    usual = {"target_layer": None, "max_length": 4096}
    identity = {"student": student.id, "rendering": student.rendering, **unusual(read, usual)}
    return Owner("statistics", VERSION, identity, {"name": student.name, **student.about, **read})


class ScoreHandler:
    """Handler in an actor: loads the student once, and computes the statistics of answers under it."""

    def __init__(self, student: ModelState, settings: Score, num_gpus: float) -> None:
        self.settings = settings
        self.renderer = student.renderer()
        model = load_model(student.source, pick_device(num_gpus))
        self.scorer = Scorer(model, self.renderer.special_ids, settings.target_layer, settings.token_budget)
        self.fallbacks = self.scorer.proof.lines

    def give_up(self, row: Row, reason: str) -> pd.DataFrame:
        values = ["quarantined", reason, 0, *[0.0] * len(STATISTIC_NAMES)]
        return pd.DataFrame([values], columns=STATISTIC_COLUMNS)

    def compute(self, rows: Sequence[Row]) -> pd.DataFrame:
        keyed = [Row(key_of(r).hex(), "", "", r.prompt, r.answer, r.calls) for r in rows]
        return score_rows(keyed, self.renderer, self.scorer, self.settings.max_length)[STATISTIC_COLUMNS]

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
            conversation = renderer.conversation(row.prompt, row.answer, calls=row.calls)
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


def score_pool(
    run: Run, students: Sequence[ModelState], pool: AnswerPool, settings: Score, placement: Placement
) -> dict[str, PoolScores]:
    """Score a pool's verified answers under several students at once; returns student id -> statistics."""
    views = score_students(run, students, ToScore(pool).request(), settings, placement)
    return {i: PoolScores(view, pool) for i, view in views.items()}


def score_rows_under(
    run: Run, student: ModelState, rows: Sequence[Row], settings: Score, placement: Placement
) -> Scores:
    """Score some answers under one student."""
    request = Request({key_of(row): row for row in rows})
    return Scores(score_students(run, [student], request, settings, placement)[student.id], rows)


def score_students(
    run: Run,
    students: Sequence[ModelState],
    request: Request | SlicedRequest,
    settings: Score,
    placement: Placement,
) -> dict[str, View]:
    """Score the same answers under several students at once; returns student id -> its view."""
    distinct = {s.id: s for s in students}
    views = {i: run.view(owner_of(s, settings), request) for i, s in distinct.items()}
    bring_back(run, [s for i, s in distinct.items() if not views[i].is_finished], placement)
    wants = [
        statistics_wanted("score", f"{s.name} {i[:8]}", views[i], s, settings, placement)
        for i, s in distinct.items()
    ]
    make_rows(run, wants, "answers")
    return views


def statistics_wanted(
    kind: str, label: str, view: View, student: ModelState, settings: Score, placement: Placement
) -> Want:
    """The rows of a view of a student's statistics."""
    return Want(
        kind,
        label,
        view,
        partial(ScoreHandler, student, settings, placement.num_gpus),
        settings.shard_size,
        placement.score_workers,
        placement.needs,
        STATISTIC_COLUMNS,
        count_scores,
        estimate=partial(left_to_score, student),
        place=f"{placement.score_workers} × ({placement.needs})",
    )


def count_scores(scores: pd.DataFrame) -> dict[str, int]:
    """What a view says of statistics: how many answers, their tokens, and how many of each state."""
    states = {str(k): int(v) for k, v in scores["state"].value_counts().items()}
    return {"answers": len(scores), "tokens": int(scores["conversation_tokens"].sum()), **states}


def left_to_score(student: ModelState, rows: Sequence[Row]) -> str:
    """What these answers would take of a student."""
    renderer = student.renderer()
    distinct = {r.prompt for r in rows}
    prompts = {prompt: prompt_tokens(renderer, prompt) for prompt in distinct}
    answers = sum(len(renderer.tokenizer(r.answer + r.calls)["input_ids"]) for r in rows)
    tokens = answers + sum(prompts[r.prompt] for r in rows)
    return f"{len(rows):,} answers, about {tokens:,} tokens"
