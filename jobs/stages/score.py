"""The statistics of answers under a student, computed in shards by actors that hold the student. They belong
to the student's weights under one rendering. An answer that was scored once is not scored again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from cluster.models.messages import read_turns
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Score
from jobs.files.answers import Row
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.slices import joined
from jobs.run.store import digest
from jobs.run.tables import KEY, Owner, Request, SlicedRequest, request_by_slice, unusual
from jobs.run.views import View
from jobs.stages.ask import prompt_tokens
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import read_slice
from jobs.stages.scorer import BEYOND, NAMED, STATISTIC_COLUMNS, TOLD, ScoreHandler, key_of
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from selection.parts import VERSION as PARTS_VERSION

VERSION = 1


@dataclass(frozen=True)
class Scores:
    """The statistics of some answers under one student.

    Attributes:
        rows: the answers. Several may have the same text.
    """

    view: View
    rows: Sequence[Row]

    def read(self) -> pd.DataFrame:
        """The statistics of every answer, in the order of the rows."""
        named = [(row.answer_id, row.question_id, row.teacher) for row in self.rows]
        return beside(named, [key_of(row) for row in self.rows], self.view.read())


@dataclass(frozen=True)
class Further:
    """A measure of the same answers that a cost needs besides the statistics (`jobs/stages/measures.py`).

    Attributes:
        names: the names of its columns.
    """

    view: View
    names: tuple[str, ...]


@dataclass(frozen=True)
class PoolScores:
    """The statistics of a pool's verified answers under one student, by slice.

    Attributes:
        further: measures of the same answers.
    """

    view: View
    pool: AnswerPool
    further: tuple[Further, ...] = ()

    @property
    def id(self) -> str:
        ids = [further.view.id for further in self.further]
        return digest([self.view.id, *ids]) if ids else self.view.id

    @property
    def rendering(self) -> str:
        """The fingerprint of the rendering whose tokens were scored."""
        return str(self.view.table.owner.identity["rendering"])

    @property
    def is_finished(self) -> bool:
        return all(view.is_finished for view in (self.view, *(f.view for f in self.further)))

    def slice(self, number: int) -> pd.DataFrame:
        """One slice's statistics, ordered by question and answer."""
        own = verified_in(self.pool.told(number))
        named = zip(*(own[c].tolist() for c in NAMED), strict=True)
        keys = [bytes.fromhex(key) for key in own["answer_key"].tolist()]
        scored = beside(list(named), keys, self.view.read_slice(number))
        for further in self.further:
            scored = with_measure(scored, keys, further.view.read_slice(number), further.names)
        return scored

    def each(self) -> Iterator[pd.DataFrame]:
        """The statistics slice by slice."""
        return (self.slice(number) for number in range(self.pool.count))

    def read(self) -> pd.DataFrame:
        """All statistics, in this process."""
        return joined(self.each())


def verified_in(pool: pd.DataFrame) -> pd.DataFrame:
    """The verified answers among these, ordered by question and answer."""
    verified = pool[pool["state"] == "verified"]
    return verified.sort_values(["question_id", "answer_id"], ignore_index=True)


def beside(named: Sequence[Any], keys: Sequence[bytes], found: pd.DataFrame) -> pd.DataFrame:
    """Join statistics to the rows that name their answers, by key."""
    place = {key: number for number, key in enumerate(found[KEY].tolist())}
    own = found.iloc[[place[key] for key in keys]].reset_index(drop=True)
    head = pd.DataFrame(named, columns=NAMED)
    return head.join(own.reindex(columns=STATISTIC_COLUMNS))


def with_measure(
    scored: pd.DataFrame, keys: Sequence[bytes], found: pd.DataFrame, names: Sequence[str]
) -> pd.DataFrame:
    """Join a measure to the statistics of the same answers. Answers that were not measured have no values in
    its columns. If the measure of an answer failed, the answer gets the measure's state.

    Args:
        names: the names of the measure's columns.
    """
    columns = [*TOLD, *names]
    if found.empty:
        return scored.assign(**dict.fromkeys(names))
    own = found.set_index(KEY)[columns].reindex(pd.Index(list(keys), dtype=object)).reset_index(drop=True)
    failed = (scored["state"] == "scored") & own["state"].notna() & (own["state"] != "scored")
    told = {name: scored[name].where(~failed, own[name]) for name in ("state", "reason")}
    return scored.assign(**told).join(own[list(names)])


ROW_COLUMNS = ["answer_key", "answer_id", "question_id", "teacher", "text", "tool_calls", "turns"]


@dataclass(frozen=True)
class ToScore:
    """A pool's verified answers as input of scoring, slice by slice."""

    pool: AnswerPool

    def keys(self, number: int) -> list[bytes]:
        """The keys of statistics, sorted and without duplicates."""
        return sorted({bytes.fromhex(k) for k in verified_in(self.pool.told(number))["answer_key"].tolist()})

    def items(self, number: int) -> dict[bytes, Row]:
        """The answer that is scored under each key."""
        questions = read_slice(self.pool.questions, number)
        own = verified_in(self.pool.read(number))
        columns = (own[c].tolist() for c in ROW_COLUMNS)
        return {
            bytes.fromhex(key): Row(answer, q, teacher, questions[q].prompt, text, calls, read_turns(turns))
            for key, answer, q, teacher, text, calls, turns in zip(*columns, strict=True)
        }

    def request(self) -> Request | SlicedRequest:
        """The request of all statistics."""
        said = self.pool.states.counts()
        rows = said["states"].get("verified", 0)
        return request_by_slice(said["to_score"], rows, self.pool.count, self.keys, self.items)


def owner_of(student: ModelState, settings: Score, parts: str | None = None) -> Owner:
    """The owner of these statistics: the weights, the rendering, the layer that is read, the longest row, and
    the pattern of the parts that count.
    """
    read: dict[str, Any] = {
        "target_layer": settings.target_layer,
        "max_length": settings.max_length,
        "cut": settings.cut,
    }
    read |= {"parts": None if parts is None else [PARTS_VERSION, parts]}
    usual = {"target_layer": None, "max_length": 4096, "cut": False, "parts": None}
    identity = {"student": student.id, "rendering": student.rendering, **unusual(read, usual)}
    return Owner("statistics", VERSION, identity, {"name": student.name, **student.about, **read})


def score_pool(
    run: Run,
    students: Sequence[ModelState],
    pool: AnswerPool,
    settings: Score,
    placement: Placement,
    which: str = "",
) -> dict[str, PoolScores]:
    """Score a pool's verified answers under several students at once; returns student id -> statistics.

    Args:
        which: the name of the pool as shown to users, if a run has several.
    """
    views = score_students(run, students, ToScore(pool).request(), settings, placement, which)
    return {i: PoolScores(view, pool) for i, view in views.items()}


def score_rows_under(
    run: Run, student: ModelState, rows: Sequence[Row], settings: Score, placement: Placement
) -> Scores:
    """Score some answers under one student. Returns their statistics."""
    request = Request({key_of(row): row for row in rows})
    return Scores(score_students(run, [student], request, settings, placement)[student.id], rows)


def score_students(
    run: Run,
    students: Sequence[ModelState],
    request: Request | SlicedRequest,
    settings: Score,
    placement: Placement,
    which: str = "",
) -> dict[str, View]:
    """Score the same answers under several students at once; returns student id -> its view.

    Args:
        which: the name of these answers as shown to users, if a run has several.
    """
    distinct = {s.id: s for s in students}
    views = {i: run.view(owner_of(s, settings), request) for i, s in distinct.items()}
    bring_back(run, [s for i, s in distinct.items() if not views[i].is_finished], placement)
    wants = [
        statistics_wanted("score", f"{s.name} {i[:8]} {which}".rstrip(), views[i], s, settings, placement)
        for i, s in distinct.items()
    ]
    make_rows(run, wants, "answers")
    if run.mode == "make":
        for i, s in distinct.items():
            if beyond := views[i].manifest()["counts"].get("beyond"):
                run.terminal.say(
                    f"beware: {s.name}: {beyond:,} answers are longer than its declared positions"
                )
    return views


def statistics_wanted(
    kind: str,
    label: str,
    view: View,
    student: ModelState,
    settings: Score,
    placement: Placement,
    parts: str | None = None,
) -> Want:
    """The rows that a view of a student's statistics wants.

    Args:
        parts: the pattern of the parts of an answer that count. None for all of it.
    """
    return Want(
        kind,
        label,
        view,
        partial(ScoreHandler, student, settings, placement.num_gpus, parts),
        settings.shard_size,
        placement.score_workers,
        placement.needs,
        STATISTIC_COLUMNS,
        count_scores,
        estimate=partial(left_to_score, student),
        place=f"{placement.score_workers} × ({placement.needs})",
    )


def count_scores(scores: pd.DataFrame) -> dict[str, int]:
    """The counts of statistics that a view records: answers, their tokens, and how many have each state."""
    states = {str(k): int(v) for k, v in scores["state"].value_counts().items()}
    beyond = int(scores["reason"].astype(str).str.startswith(BEYOND).sum())
    states |= {"beyond": beyond} if beyond else {}
    return {"answers": len(scores), "tokens": int(scores["conversation_tokens"].sum()), **states}


def left_to_score(student: ModelState, rows: Sequence[Row]) -> str:
    """A plan's text on how much is left to score: answers and tokens."""
    renderer = student.renderer()
    distinct = {r.prompt for r in rows}
    prompts = {prompt: prompt_tokens(renderer, prompt) for prompt in distinct}
    answers = sum(len(renderer.tokenizer(r.answer + r.calls)["input_ids"]) for r in rows)
    tokens = answers + sum(prompts[r.prompt] for r in rows)
    return f"{len(rows):,} answers, about {tokens:,} tokens"
