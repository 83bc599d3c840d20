"""Held-out questions that are also trained on, or nearly: the same run of 13 words, in whatever case and
punctuation; texts of fewer words are compared whole. (Runs of 13 characters would flag most short exercises
of one kind.)
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cluster.models.messages import Prompt
from jobs.files.questions import Question

WORDS = 13
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Overlap:
    """A held-out question with the first training question that shares a run of words with it."""

    held_out: str
    train: str
    text: str


def overlaps(train: Iterable[Question], held_out: Sequence[Question]) -> list[Overlap]:
    """The held-out questions that training questions give away, in their order. The held-out side is indexed,
    which is the smaller one.
    """
    index: dict[int, list[int]] = {}
    for number, question in enumerate(held_out):
        for run in set(runs_of(question.prompt)):
            index.setdefault(run, []).append(number)
    found: dict[int, str] = {}
    for question in train:
        for run in runs_of(question.prompt):
            for number in index.get(run, ()):
                found.setdefault(number, question.id)
    return [Overlap(held_out[n].id, found[n], held_out[n].text) for n in sorted(found)]


def runs_of(prompt: Prompt) -> Iterator[int]:
    """Hashes of all runs of words of what is said in a prompt; of its whole text where that is shorter."""
    text = "\n".join(turn.content for turn in prompt.turns if turn.role != "system").casefold()
    words = WORD.findall(text)
    if len(words) < WORDS:
        yield hash(" ".join(text.split()))  # with its signs: 2+2 is not 2-2
        return
    for start in range(len(words) - WORDS + 1):
        yield hash(tuple(words[start : start + WORDS]))
