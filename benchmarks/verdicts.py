"""Verdicts of `math` beside math-verify's default, TRL's accuracy_reward and what verl's GSM8K and MATH
rewards are described to do, on generated answers of which it is known whether they are right.

Each case draws a value, writes it in one of the ways in which models write values, and marks it as final in
a box or in a sentence; half of them write another value. `right` is the share of right answers that a judge
calls right, `false_right` how many wrong ones it calls right, `disagrees` how often it says else than we.
"""

import argparse
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from benchmarks.measurement import finish
from selection.verification import VerifySettings, judge

Writer = Callable[[random.Random, int], tuple[str, str]]
NOUNS = [
    "apples",
    "cookies",
    "pages",
    "dollars",
    "miles",
    "students",
    "marbles",
    "kilograms",
    "hours",
    "books",
]
SCALES = (("thousand", 10**3), ("million", 10**6), ("billion", 10**9), ("k", 10**3), ("M", 10**6))


@dataclass(frozen=True)
class Written:
    """An answer, its reference, and whether it is right."""

    kind: str
    text: str
    reference: str
    is_right: bool


def _grouped(draw: random.Random, value: int) -> tuple[str, str]:
    number = 1000 + value * 7
    sign = draw.choice([",", r"\,", " ", "{,}", "\u202f"])
    return str(number), f"{number:,}".replace(",", sign)


def _unit(draw: random.Random, value: int) -> tuple[str, str]:
    noun = draw.choice(NOUNS)
    forms = [f"{value} {noun}", rf"{value} \text{{ {noun}}}", rf"{value}\ \mathrm{{{noun}}}"]
    return str(value), draw.choice(forms)


def _currency(draw: random.Random, value: int) -> tuple[str, str]:
    forms = [rf"\${value}", rf"\${value}.00", f"{value} USD", f"€{value}", f"{value} dollars"]
    return str(value), draw.choice(forms)


def _percent(draw: random.Random, value: int) -> tuple[str, str]:
    return f"{value}", draw.choice([rf"{value}\%", f"{value} percent", f"{value}%"])


def _fraction(draw: random.Random, value: int) -> tuple[str, str]:
    over, under = value * 2 + 1, draw.choice([2, 4, 8])
    forms = [
        rf"\frac{{{over}}}{{{under}}}",
        rf"\dfrac{{{over}}}{{{under}}}",
        f"{over}/{under}",
        f"{over / under}",
    ]
    return rf"\frac{{{over}}}{{{under}}}", draw.choice(forms)


def _mixed(draw: random.Random, value: int) -> tuple[str, str]:
    over, under = draw.choice([(1, 2), (2, 3), (5, 6), (3, 7)])
    total = value + Fraction(over, under)
    form = draw.choice([f"{value} {over}/{under}", rf"{value}\frac{{{over}}}{{{under}}}"])
    return f"{total.numerator}/{total.denominator}", form


def _scientific(draw: random.Random, value: int) -> tuple[str, str]:
    power = draw.choice([-31, -19, -6, 5, 8, 23])
    head = f"{value / 10:.1f}"
    forms = [rf"{head} \times 10^{{{power}}}", f"{head}e{power}", rf"{head}\cdot 10^{{{power}}}"]
    return rf"{head} \times 10^{{{power}}}", draw.choice(forms)


def _scaled(draw: random.Random, value: int) -> tuple[str, str]:
    word, scale = draw.choice(SCALES)
    return str(value * scale), f"{value}{'' if len(word) == 1 else ' '}{word}"


def _equation(draw: random.Random, value: int) -> tuple[str, str]:
    forms = [f"x = {value}", f"n={value}", rf"{value - 1} + 1 = {value}", f"Total = {value}"]
    return str(value), draw.choice(forms)


def _several(draw: random.Random, value: int) -> tuple[str, str]:
    a, b = value, value + 5
    forms = [f"{b}, {a}", f"{a} and {b}", rf"x = {a} \text{{ or }} x = {b}", rf"\{{{a}, {b}\}}"]
    return f"{a}, {b}", draw.choice(forms)


def _root(draw: random.Random, value: int) -> tuple[str, str]:
    forms = [
        rf"{value}\sqrt{{2}}",
        rf"\sqrt{{{2 * value * value}}}",
        f"{value}√2",
        rf"\sqrt{{2}} \cdot {value}",
    ]
    return rf"{value}\sqrt{{2}}", draw.choice(forms)


def _negative(draw: random.Random, value: int) -> tuple[str, str]:
    return f"-{value}", draw.choice([f"-{value}", f"−{value}", f"- {value}", rf"-\${value}"])


WRITERS: dict[str, Writer] = {
    "plain": lambda draw, value: (str(value), str(value)),
    "grouped digits": _grouped,
    "units and nouns": _unit,
    "currency": _currency,
    "percent": _percent,
    "fractions": _fraction,
    "mixed numbers": _mixed,
    "powers of ten": _scientific,
    "scale words": _scaled,
    "equations": _equation,
    "several values": _several,
    "roots": _root,
    "negative": _negative,
}


def written(count: int, seed: int) -> Iterator[Written]:
    """So many answers, half of them right, as many of each kind."""
    draw = random.Random(seed)
    for number in range(count):
        kind = list(WRITERS)[number % len(WRITERS)]
        value, is_right = draw.randint(2, 98), draw.random() < 0.5
        state = draw.getstate()
        reference, answer = WRITERS[kind](draw, value)
        if not is_right:
            draw.setstate(state)
            answer = WRITERS[kind](draw, value + 1 + number % 9)[1]
        mark = draw.choice([r"So we get $\boxed{%s}$.", r"Thus \boxed{%s}", "The answer is %s.", "#### %s"])
        yield Written(kind, mark % answer, reference, is_right)


def ours(case: Written) -> bool | None:
    state = judge(case.text, case.reference, VerifySettings()).state
    return True if state == "correct" else False if state == "wrong" else None


def math_verify(case: Written) -> bool | None:
    from math_verify import parse, verify

    gold = parse(f"${case.reference}$", parsing_timeout=None)
    mine = parse(case.text, parsing_timeout=None)
    return bool(verify(gold, mine, timeout_seconds=None)) if mine else None


def trl(case: Written) -> bool | None:
    from trl.rewards import accuracy_reward

    reward = accuracy_reward([[{"role": "assistant", "content": case.text}]], [f"${case.reference}$"])[0]
    return None if reward is None else bool(reward)


def verl_gsm8k(case: Written) -> bool | None:
    """The last number behind `####`, without commas and dollars, as text."""
    found = re.findall(r"#### (-?[0-9.,]+)", case.text[-300:])
    return found[-1].replace(",", "").replace("$", "").rstrip(".") == case.reference if found else None


def verl_math(case: Written) -> bool | None:
    """The last box, compared as text after spaces, sizes, units, percent and dollar signs went."""
    found = re.findall(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", case.text)
    return _bare(found[-1]) == _bare(case.reference) if found else None


def _bare(text: str) -> str:
    text = text.replace("\\!", "").replace("tfrac", "frac").replace("dfrac", "frac")
    text = re.sub(r"\\left|\\right|\^\{?\\circ\}?|\\\$|\\?%", "", text)
    text = text.split(r"\text{ ")[0] if text.count(r"\text{ ") == 1 else text
    text = re.sub(r"^\s*\w{1,2}\s*=", "", text).replace(" ", "")
    simple = re.fullmatch(r"(-?\d+)/(\d+)", text)
    return rf"\frac{{{simple[1]}}}{{{simple[2]}}}" if simple else re.sub(r"^\.", "0.", text)


JUDGES: dict[str, Callable[[Written], bool | None]] = {
    "tutelage": ours,
    "math-verify": math_verify,
    "TRL": trl,
    "verl GSM8K": verl_gsm8k,
    "verl MATH": verl_math,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    cases = list(written(options.cases, options.seed))
    said = {name: [one(case) for case in cases] for name, one in JUDGES.items()}
    rights = Counter(case.kind for case in cases if case.is_right)
    print(f"{'kind':16}" + "".join(f"{name:>18}" for name in JUDGES))
    for kind in WRITERS:
        own = [i for i, case in enumerate(cases) if case.kind == kind]
        found = [sum(said[name][i] is True for i in own if cases[i].is_right) for name in JUDGES]
        shares = [count / max(1, rights[kind]) for count in found]
        print(f"{kind:16}" + "".join(f"{share:18.2f}" for share in shares))
    figures = {name: _figures(cases, verdicts, said["tutelage"]) for name, verdicts in said.items()}
    finish("verdicts", {"cases": len(cases), "seed": options.seed, "judges": figures})


def _figures(cases: list[Written], verdicts: list[bool | None], own: list[bool | None]) -> dict[str, float]:
    pairs = list(zip(cases, verdicts, own, strict=True))
    rights = [verdict is True for case, verdict, _ in pairs if case.is_right]
    return {
        "right": round(sum(rights) / len(rights), 4),
        "false_right": sum(verdict is True for case, verdict, _ in pairs if not case.is_right),
        "disagrees": sum((verdict is True) != (ours is True) for _, verdict, ours in pairs),
    }


if __name__ == "__main__":
    main()
