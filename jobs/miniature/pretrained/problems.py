"""Everyday word problems of one to three steps, in plain English, drawn from wide ranges of wordings, names,
things and numbers (`wordings`).

A problem is an opening, some changes and an end. The opening gives a number, or two numbers that have to be
added or multiplied. A change adds to it or takes from it. The end asks for the number, for everybody's share
of it, or for what it is worth.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.miniature.pretrained.wordings import (
    ENDS,
    NAMES,
    OPENINGS,
    PRICES,
    PRODUCTS,
    SETTINGS,
    SHARES,
    SUMS,
    Part,
    wordings_of,
)

Sign = Literal["+", "-", "*", "/"]
MOST = 150  # no number of a problem is larger


@dataclass(frozen=True)
class Step:
    """One calculation: `left sign right = value`."""

    left: int
    sign: Sign
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.value}"


@dataclass(frozen=True)
class Problem:
    """A word problem with its calculation.

    Attributes:
        sentences: the wordings with their gaps filled, in order.
        wordings: the wordings themselves.
        unit: what the result counts.
    """

    sentences: tuple[str, ...]
    wordings: tuple[str, ...]
    steps: tuple[Step, ...]
    things: str
    unit: str

    @property
    def question(self) -> str:
        return " ".join(self.sentences)

    @property
    def result(self) -> int:
        return self.steps[-1].value

    @property
    def id(self) -> str:
        """An id that follows from the text."""
        return f"{len(self.steps)}-{hashlib.sha256(self.question.encode()).hexdigest()[:16]}"


def draw_problem(rng: random.Random, steps: int, part: Part) -> Problem:
    """Draw one problem.

    Args:
        steps: 1 to 3.
        part: which wordings it may use.
    """
    while True:
        found = _draw(rng, steps, part)
        if found is not None:
            return found


def _draw(rng: random.Random, count: int, part: Part) -> Problem | None:
    """Draw one problem. None if its numbers do not come out even, or are too large."""
    setting, name = rng.choice(SETTINGS), rng.choice(NAMES)
    things = rng.choice(setting.things)
    steps, used, sentences = list[Step](), list[str](), list[str]()
    fixed = {"name": name, "things": things, "holder": setting.holder[0], "holders": setting.holder[1]}
    fixed |= dict(zip(("kind", "other"), rng.sample(setting.kinds, 2), strict=True))

    def say(every: Sequence[str], **own: int) -> None:
        wording = rng.choice(wordings_of(every, part))
        used.append(wording)
        sentences.append(wording.format(**fixed, **own))

    # what the end calculates, if it calculates at all, and what the opening does
    end = rng.choice(("", "", "share", "price"))
    opening = rng.choice(("plain", "sum", "product"))
    inner = count - (end != "") - (opening != "plain")
    if inner < 0:
        return None
    value = rng.randint(3, 60)
    if opening == "plain":
        say(OPENINGS, n=value)
    elif opening == "sum":
        a, b = rng.randint(2, 35), rng.randint(2, 35)
        steps.append(Step(a, "+", b, a + b))
        say(SUMS, a=a, b=b)
    else:
        a, b = rng.randint(2, 9), rng.randint(2, 10)
        steps.append(Step(a, "*", b, a * b))
        say(PRODUCTS, a=a, b=b)
    value = steps[-1].value if steps else value
    for _ in range(inner):
        sign: Sign = rng.choice(("+", "-"))
        most = min(30, value - 2) if sign == "-" else 30
        if most < 2:
            return None
        k = rng.randint(2, most)
        steps.append(Step(value, sign, k, value + k if sign == "+" else value - k))
        value = steps[-1].value
        say(setting.more if sign == "+" else setting.fewer, k=k)
    unit = things
    if end == "share":
        parts = [k for k in range(2, 10) if value % k == 0 and value > k]
        if not parts:
            return None
        k = rng.choice(parts)
        steps.append(Step(value, "/", k, value // k))
        say(SHARES, k=k)
    elif end == "price":
        k = rng.randint(2, 6)
        steps.append(Step(value, "*", k, value * k))
        say(PRICES, k=k)
        unit = "dollars"
    else:
        say(ENDS)
    if max(step.value for step in steps) > MOST:
        return None
    return Problem(tuple(sentences), tuple(used), tuple(steps), things, unit)


def draw_problems(count: int, seed: int, part: Part, exclude: frozenset[str] = frozenset()) -> list[Problem]:
    """Draw different problems of one, two and three steps in turns.

    Args:
        exclude: ids of problems that must not appear.
    """
    rng, found = random.Random(f"{part} {seed}"), dict[str, Problem]()
    while len(found) < count:
        problem = draw_problem(rng, 1 + len(found) % 3, part)
        if problem.id not in exclude:
            found.setdefault(problem.id, problem)
    return list(found.values())


def solve(text: str) -> str | None:
    """The result of a problem whose sentences are wordings of this world, whatever fills their gaps. None for
    any other text, and where a share does not come out even.

    >>> solve("Ada has 12 pears. Ada eats 4 of them. How many pears does Ada have now?")
    '8'
    >>> solve("Ada has 12 pears. A bird sings. How many pears does Ada have now?")
    """
    said = " ".join(text.split())
    for opening, first in FORMS["opening"]:
        found = first.match(said)
        if found is None:
            continue
        n, a, b = (int(found[gap]) if gap in first.groupindex else 0 for gap in ("n", "a", "b"))
        value = {"plain": n, "sum": a + b, "product": a * b}[opening]
        result = _changed(said, found.end(), value)
        if result is not None:
            return str(result)
    return None


def _changed(said: str, at: int, value: int) -> int | None:
    """The result of what follows after a place, where there are `value` things."""
    for end, form in FORMS["end"]:
        found = form.fullmatch(said, at)
        if found is not None:
            k = int(found["k"]) if "k" in form.groupindex else 1
            if end == "share":
                return value // k if k and value % k == 0 else None
            return value * k if end == "price" else value
    for sign, form in FORMS["change"]:
        found = form.match(said, at)
        if found is not None:
            k = int(found["k"])
            result = _changed(said, found.end(), value + k if sign == "more" else value - k)
            if result is not None:
                return result
    return None


def _form(wording: str) -> re.Pattern[str]:
    """A wording with its gaps open, and the space after it."""
    seen = set[str]()
    found = ""
    for text, gap in re.findall(r"([^{]*)(?:\{(\w+)\})?", wording):
        found += re.escape(text)
        if gap in ("n", "a", "b", "k"):
            found += rf"(?P<{gap}>\d{{1,4}})"
        elif gap:
            kept = r"[\w'-]+"
            found += f"(?P={gap})" if gap in seen else f"(?P<{gap}>{kept})"
            seen.add(gap)
    return re.compile(rf"{found}\s*")


def _forms(**every: Sequence[str]) -> list[tuple[str, re.Pattern[str]]]:
    return [(name, _form(wording)) for name, wordings in every.items() for wording in wordings]


# The forms of sentences, each with what it says.
FORMS = {
    "opening": _forms(plain=OPENINGS, sum=SUMS, product=PRODUCTS),
    "change": _forms(
        more=[w for setting in SETTINGS for w in setting.more],
        fewer=[w for setting in SETTINGS for w in setting.fewer],
    ),
    "end": _forms(plain=ENDS, share=SHARES, price=PRICES),
}
