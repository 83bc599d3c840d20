"""The part of scoring that runs in an actor. It renders answers and computes their statistics under a
student. A row that fails is kept, with a state and a reason."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields, replace
from typing import Any, Protocol

import pandas as pd

from cluster.errors import Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.messages import write_calls, write_turns
from cluster.models.proof import Proof
from cluster.models.rendering import Rendered, Renderer, TooLong
from jobs.experiment.stages import Score
from jobs.files.answers import Row, answer_text
from jobs.run.keys import answer_key, question_key
from jobs.run.store import digest
from jobs.stages.states import ModelState
from selection.parts import Parts
from selection.scoring import STATISTIC_NAMES, EmptySpan, Scorer

BEYOND = "beyond the declared"
NAMED = ["answer_id", "question_id", "teacher"]
TOLD = ["state", "reason", "conversation_tokens"]
STATISTIC_COLUMNS = [*TOLD, *STATISTIC_NAMES]


class AnyScorer(Protocol):
    """Computes statistics of rendered answers under a student."""

    @property
    def result(self) -> type:
        """The dataclass of one answer's numbers."""

    @property
    def proof(self) -> Proof:
        """Which shortcuts the model allows."""

    @property
    def context_length(self) -> int | None:
        """The most tokens of a conversation that the model allows. None if there is no limit."""

    def score(self, rows: Sequence[Rendered], /) -> Sequence[Any]:
        """Compute the statistics of each row. If a row fails, its exception is returned in its place."""


def key_of(row: Row) -> bytes:
    """The key of an answer's statistics. It follows from its question's messages and its own text, tool calls
    and turns.
    """
    return answer_key(question_key(row.prompt), row.answer, row.calls, write_turns(row.turns))


class ScoreHandler:
    """Handler in an actor: loads the student once, and computes the statistics of answers under it.

    Args:
        parts: the pattern of the parts of an answer that count. None for all of it.
    """

    def __init__(
        self, student: ModelState, settings: Score, num_gpus: float, parts: str | None = None
    ) -> None:
        self.settings, self.parts = settings, parts
        self.renderer = student.renderer()
        self.scorer = self.scorer_of(load_model(student.source, pick_device(num_gpus)), self.renderer)
        self.fallbacks = self.scorer.proof.lines

    def scorer_of(self, model: Any, renderer: Renderer) -> AnyScorer:
        """Make the scorer that computes the numbers."""
        scorer = Scorer(model, renderer.special_ids, self.settings.target_layer, self.settings.token_budget)
        return scorer if self.parts is None else Parts(scorer, renderer.tokenizer, self.parts)

    def give_up(self, row: Row, reason: str) -> pd.DataFrame:
        told = ["quarantined", reason, 0, *blank(self.scorer.result)]
        return pd.DataFrame([told], columns=[*TOLD, *names_of(self.scorer.result)])

    def compute(self, rows: Sequence[Row]) -> pd.DataFrame:
        keyed = [Row(key_of(r).hex(), "", "", r.prompt, r.answer, r.calls, r.turns) for r in rows]
        s = self.settings
        found = score_rows(keyed, self.renderer, self.scorer, s.max_length, s.cut)
        return found.drop(columns=NAMED)

    def tally(self, table: pd.DataFrame) -> Tally:
        failed = int((table["state"] != "scored").sum())
        return Tally(len(table), int(table["conversation_tokens"].sum()), failed)


def names_of(result: type) -> list[str]:
    """The names of the columns of an answer's numbers."""
    return [field.name for field in fields(result)]


def blank(result: type) -> list[Any]:
    """The values of these columns for an answer without numbers."""
    return [b"" if field.type in (bytes, "bytes") else 0.0 for field in fields(result)]


def score_rows(
    rows: Sequence[Row], renderer: Renderer, scorer: AnyScorer, max_length: int, cuts: bool = False
) -> pd.DataFrame:
    """Render and score answers. A row that cannot be scored keeps its place, with a state and a reason.

    Args:
        cuts: whether an answer of many turns with more than `max_length` tokens is cut after the last turn of
            the assistant that fits. The reason of such a row says how many turns are left.
    """
    table: dict[str, list[Any]] = {}
    rendered = {}
    limit, nothing = min(max_length, scorer.context_length or max_length), blank(scorer.result)
    for row in rows:
        head = [row.answer_id, row.question_id, row.teacher]
        try:
            conversation = rendered_of(row, renderer, max_length if cuts else limit, cuts)
        except TooLong as error:
            table[row.answer_id] = [*head, "too_long", str(error), limit, *nothing]
            continue
        except Unrenderable as error:
            table[row.answer_id] = [*head, "unrenderable", str(error), 0, *nothing]
            continue
        if conversation.spans and not isinstance(scorer, Scorer):
            why = "this measure reads answers of one turn: take each turn alone"
            table[row.answer_id] = [*head, "unrenderable", why, 0, *nothing]
            continue
        length = conversation.length
        if length > limit:
            why = f"{length} tokens, limit {limit}"
            table[row.answer_id] = [*head, "too_long", why, length, *nothing]
            continue
        why = cut_of(row, conversation) or beyond_of(scorer, length)
        table[row.answer_id] = [*head, "scored", why, length, *nothing]
        rendered[row.answer_id] = conversation
    for identity, result in zip(rendered, scorer.score(list(rendered.values())), strict=True):
        entry = table[identity]
        if isinstance(result, Exception):
            entry[3] = "empty" if isinstance(result, EmptySpan) else "quarantined"
            entry[4] = describe(result)
        else:
            entry[6:] = astuple(result)
    columns = [*NAMED, *TOLD, *names_of(scorer.result)]
    return pd.DataFrame([table[row.answer_id] for row in rows], columns=columns)


def beyond_of(scorer: AnyScorer, length: int) -> str:
    """That a text is longer than the positions that a model declares. Empty if it is not."""
    declared = getattr(scorer, "declared_length", None)
    return "" if declared is None or length <= declared else f"{BEYOND} {declared:,} positions"


def beyond_line(reasons: Iterable[object]) -> str:
    """How many answers are longer than the positions that a model declares, in words. Empty if none is."""
    told = [str(reason) for reason in reasons if str(reason).startswith(BEYOND)]
    if not told:
        return ""
    declared = told[0].removeprefix(BEYOND).strip()
    return (
        f"{len(told):,} answers with their questions are longer than the {declared} that the model declares: "
        "it was not trained so far, and their costs may mean nothing"
    )


def cut_of(row: Row, rendered: Rendered) -> str:
    """What was cut off an answer of many turns. Empty if nothing was."""
    said, kept = sum(turn.role == "assistant" for turn in row.whole), max(1, len(rendered.spans))
    return f"cut after turn {kept} of the assistant's {said}" if kept < said else ""


def rendered_of(row: Row, renderer: Renderer, limit: int | None = None, cuts: bool = False) -> Rendered:
    """An answer of one turn or of many, rendered.

    Args:
        limit: the most tokens of an answer of many turns.
        cuts: whether such an answer is cut after the last turn of the assistant that fits.

    Raises:
        TooLong: it has more.
        Unrenderable: the template cannot render it.
    """
    if row.turns:
        return renderer.trajectory(row.prompt, row.whole, limit, cuts)
    return renderer.conversation(row.prompt, row.answer, calls=row.calls)


def kept_of(row: Row, renderer: Renderer, limit: int) -> Row:
    """An answer of many turns as it is scored and learned: cut after the last turn of the assistant that fits
    into the limit. Any other answer as it is.

    Raises:
        TooLong: not even the first turn fits.
        Unrenderable: the template cannot render it.
    """
    if not row.turns:
        return row
    kept = len(renderer.trajectory(row.prompt, row.whole, limit, cuts=True).spans) or 1
    of_assistant = [k for k, turn in enumerate(row.whole) if turn.role == "assistant"]
    if kept == len(of_assistant):
        return row
    *turns, last = row.whole[: of_assistant[kept - 1] + 1]
    return replace(row, answer=answer_text(last), calls=write_calls(last.tool_calls), turns=tuple(turns))


def shards_of(rows: Sequence[Row], size: int) -> list[tuple[str, list[Row]]]:
    """Cut rows into shards. No shard splits a question. A shard's name follows from its position and its
    content.
    """
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
