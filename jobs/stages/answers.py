"""Questions to a model, and the rows of its answers. They are the same for hosted models and endpoints, for
teachers and students.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from cluster.metrics import Tally
from cluster.models.messages import Prompt
from cluster.models.repair import whole_characters
from jobs.files.questions import Question
from jobs.run.keys import HALF, question_key
from jobs.run.tables import GOOD, KEY, POOR, USELESS, Request, Wanted

VERSION = 1  # of every table of answers
ANSWER_COLUMNS = [
    "text",
    "finish",
    "error",
    "prompt_tokens",
    "answer_tokens",
    "limit_tokens",
    "token_ids",
    "end_logprob",
    "reasoning",
    "tool_calls",
    "usd",
]
COUNTED = ["finish", "prompt_tokens", "answer_tokens", "usd"]  # what `count_answers` reads
MOST_TOKENS = 10**9  # in a prompt or an answer: more than any model reads; sums of them fit a part's column
LOGPROBS = "token_logprobs"  # of sampled tokens, the end token included; only if a system asks for them

Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to one model. `sample` is the number of the repetition, from 0."""

    prompt: Prompt
    sample: int

    @property
    def key(self) -> bytes:
        """The key of the answer's row: the question, then the sample's number."""
        return question_key(self.prompt) + self.sample.to_bytes(HALF, "big")


def request_of(asks: Iterable[Ask]) -> Request:
    """A request of answers. Duplicates are asked once."""
    return Request({ask.key: ask for ask in asks})


def asks_of(questions: Iterable[Question], samples: Iterable[int], system: str | None = None) -> list[Ask]:
    """Every question, once for each sample.

    Args:
        system: a text that comes before each question when it is asked. It is not used in training.
    """
    numbers = list(samples)
    return [Ask(q.prompt.told(system), sample) for q in questions for sample in numbers]


@dataclass(frozen=True)
class Answer:
    """One row of a table of answers.

    Attributes:
        text: the answer's text, with its reasoning in think tags.
        finish: stop, length (cut off at the limit), failed, or refused (a file's row that an answer cannot
            hold).
        reasoning: the reasoning, if it came separately from the text.
        tool_calls: JSON text, in OpenAI's form.
        token_ids: as sampled by a hosted model, without the token that ended it.
        end_logprob: natural log-probability of the end token. NaN if it is unknown.
        token_logprobs: log-probabilities of all sampled tokens under the model itself, the end token
            included.
    """

    text: str
    finish: str
    error: str = ""
    prompt_tokens: Tokens = 0
    answer_tokens: Tokens = 0
    limit_tokens: Tokens = 0
    token_ids: tuple[int, ...] = ()
    end_logprob: float = float("nan")
    reasoning: str = ""
    tool_calls: str = ""
    usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    token_logprobs: tuple[float, ...] = ()

    def row(self, columns: Sequence[str]) -> tuple[Any, ...]:
        values = (getattr(self, name) for name in columns)
        return tuple(whole_characters(v) if isinstance(v, str) else v for v in values)


def failed(reason: str, limit: int, prompt_tokens: int = 0) -> Answer:
    """The row of a question that could not be asked."""
    return Answer("", "failed", reason, prompt_tokens, limit_tokens=limit)


def table_of(answers: Iterable[Answer], logprobs: bool = False) -> pd.DataFrame:
    columns = [*ANSWER_COLUMNS, *([LOGPROBS] if logprobs else [])]
    return pd.DataFrame([a.row(columns) for a in answers], columns=columns)


def within(limit: int, retry: int = 0) -> Wanted:
    """The condition for answers under a token limit. An answer that ended by itself below the limit serves,
    whatever the limit was when it was asked. An answer that was cut off serves only under the limit that it
    was asked with. A failed call serves, unless it has to be asked again.

    Args:
        retry: how often failed calls have been asked again.
    """
    return Wanted(
        {"limit_tokens": limit, **({"retry": retry} if retry else {})},
        ("finish", "answer_tokens", "limit_tokens"),
        partial(_worth, limit),
        GOOD if retry else POOR,
        "failed before" if retry else "were cut off at another token limit, or exceed this limit",
    )


def serves(limit: int, answer: Mapping[str, Any]) -> bool:
    """Whether one answer serves under a token limit."""
    return bool(_worth(limit, pd.DataFrame([answer]))[0] == GOOD)


def _worth(limit: int, rows: pd.DataFrame) -> np.ndarray:
    ended = (rows["finish"] == "stop") & (rows["answer_tokens"] < limit)
    same = (rows["finish"] != "failed") & (rows["limit_tokens"] == limit)
    worth = np.where(ended | same, GOOD, np.where(rows["finish"] == "failed", POOR, USELESS))
    return np.asarray(worth)


def answers_to(rows: pd.DataFrame, ids: Mapping[bytes, list[str]]) -> pd.DataFrame:
    """The answers of a view, with the run's question ids: columns question_id, sample and those of answers.
    Questions with the same messages share their answers.

    Args:
        ids: question key -> ids of the questions with this key.
    """
    rows["question_id"] = [ids[key[:HALF]] for key in rows[KEY]]
    rows["sample"] = [int.from_bytes(key[HALF:], "big") for key in rows[KEY]]
    return rows.drop(columns=KEY).explode("question_id", ignore_index=True)


def ids_by_key(questions: Iterable[Question], system: str | None = None) -> dict[bytes, list[str]]:
    """The ids of the questions by key, as they are asked with a system text."""
    found: dict[bytes, list[str]] = {}
    for q in questions:
        found.setdefault(question_key(q.prompt.told(system)), []).append(q.id)
    return found


def count_answers(answers: pd.DataFrame) -> dict[str, Any]:
    """The counts of answers that a view records."""
    return {
        "answers": len(answers),
        "failed": int((answers["finish"] == "failed").sum()),
        "cut_off": int((answers["finish"] == "length").sum()),
        "prompt_tokens": int(answers["prompt_tokens"].sum()),
        "answer_tokens": int(answers["answer_tokens"].sum()),
        "usd": float(answers["usd"].sum()),
    }


def tally_of(answers: pd.DataFrame) -> Tally:
    """Count a part of answers for the metrics."""
    lost = int((answers["finish"] == "failed").sum())
    return Tally(
        len(answers), int(answers["answer_tokens"].sum()), lost, spend_usd=float(answers["usd"].sum())
    )
