"""Held-out questions that are also trained on, or almost. They share a run of 13 words with a training
question, whatever the case and punctuation. Shorter texts are compared whole. (Runs of 13 characters would
flag most short exercises of one kind.)
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.models.messages import Prompt
from jobs.files.questions import Question

WORDS = 13
# if more held-out questions share a run, it is their instruction and not a question
SHARED = 2
# a sign of Chinese, Japanese or Korean counts as a word: those texts have no spaces
SIGN = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{SIGN}]|[^\W_{SIGN}]+")


@dataclass(frozen=True)
class Overlap:
    """A held-out question with the first training question that shares a run of words with it."""

    held_out: str
    train: str
    text: str


def overlaps(train: Iterable[Question], held_out: Sequence[Question]) -> list[Overlap]:
    """The held-out questions that overlap with training questions, in their order. The held-out side is
    indexed, because it is smaller. Runs that more than two held-out questions share do not count.
    """
    runs = [list(runs_of(question.prompt)) for question in held_out]
    often = Counter(run for own in runs for run in set(own))
    index: dict[int, list[int]] = {}
    whole: dict[int, list[int]] = {}
    for number, question in enumerate(held_out):
        whole.setdefault(text_of(question.prompt), []).append(number)
        for run in own_runs(runs[number], often):
            index.setdefault(run, []).append(number)
    found: dict[int, str] = {}
    for question in train:
        same = whole.pop(text_of(question.prompt), ())
        for number in same:
            found.setdefault(number, question.id)
        for run in runs_of(question.prompt):
            for number in index.pop(run, ()):
                found.setdefault(number, question.id)
    return [Overlap(held_out[n].id, found[n], held_out[n].text) for n in sorted(found)]


def own_runs(runs: Sequence[int], often: Mapping[int, int]) -> set[int]:
    """The runs of a question that hold no word of a shared run. A run of twelve words of the instruction and
    one of the question would mean nothing.
    """
    shared = [start for start, run in enumerate(runs) if often[run] > SHARED]
    told = {place for start in shared for place in range(start - WORDS + 1, start + WORDS)}
    return {run for start, run in enumerate(runs) if start not in told}


def text_of(prompt: Prompt) -> int:
    """A hash of a prompt's whole text, with its punctuation: 2+2 is not 2-2."""
    return hash(" ".join(_said(prompt).split()))


def runs_of(prompt: Prompt) -> Iterator[int]:
    """Hashes of all runs of words in a prompt. None if the prompt is shorter than a run."""
    words = WORD.findall(_said(prompt))
    for start in range(len(words) - WORDS + 1):
        yield hash(tuple(words[start : start + WORDS]))


def _said(prompt: Prompt) -> str:
    return "\n".join(turn.content for turn in prompt.turns if turn.role != "system").casefold()
