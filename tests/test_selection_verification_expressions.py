"""A formula of which one thing was changed is right only where it has the same value, by trees of our own.

A tree is printed in the ways that people write it, and worked out by Python; the verdict may be in doubt, but
never correct where the values differ.
"""

import cmath
import random
from collections import Counter

from selection.verification import VerifySettings, judge

Tree = tuple  # type: ignore[type-arg]
BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4, "sqrt": 5, "ln": 5}  # a leaf binds more than all of them
POINTS = ({"x": 0.37, "a": 2.3, "A": 4.4}, {"x": 1.9, "a": 0.7, "A": 1.4})
PAIRS = 40


def drawn(rnd: random.Random, depth: int) -> Tree:
    if depth == 0 or rnd.random() < 0.15:
        return ("leaf", rnd.choice([*"xaA", *"23579", "12", "0.5", "1.5"]))
    kind = rnd.choice(["+", "-", "*", "/", "^", "sqrt", "ln", "*"])
    return (kind, *(drawn(rnd, depth - 1) for _ in range(1 if kind in ("sqrt", "ln") else 2)))


def changed(rnd: random.Random, tree: Tree) -> Tree:
    """The tree with one leaf, one sign or one grouping changed."""
    kind, *parts = tree
    if kind == "leaf":
        return ("leaf", rnd.choice([leaf for leaf in ("x", "A", "a", "3", "4", "15") if leaf != parts[0]]))
    at = rnd.randrange(len(parts))
    inner, *own = parts[at]
    if inner != "leaf" and rnd.random() < 0.5:  # a wider or narrower bracket
        moved = (kind, *parts[:at], own[-1], *parts[at + 1 :])
        return (inner, *own[:-1], moved)
    if rnd.random() < 0.5:
        return (kind, *parts[:at], changed(rnd, parts[at]), *parts[at + 1 :])
    signs = ["sqrt", "ln"] if len(parts) == 1 else ["+", "-", "*", "/", "^"]
    return (rnd.choice([sign for sign in signs if sign != kind]), *parts)


def value(tree: Tree, at: dict[str, float]) -> complex:
    kind, *parts = tree
    if kind == "leaf":
        return complex(at.get(parts[0]) or float(parts[0]))
    one, other = value(parts[0], at), value(parts[-1], at)
    if kind in ("sqrt", "ln"):
        return cmath.sqrt(one) if kind == "sqrt" else cmath.log(one)
    if kind == "/":
        return one / other
    return {"+": one + other, "-": one - other, "*": one * other}[kind] if kind in "+-*" else one**other


def written(rnd: random.Random, tree: Tree, least: float = 0) -> str:
    """A tree as text, in brackets where it binds less than what is around it."""
    kind, *parts = tree
    if kind == "leaf":
        return str(parts[0])
    binds = BINDING[kind]
    if kind in ("sqrt", "ln"):
        text = rnd.choice([rf"\{kind}{{%s}}", f"{kind}(%s)", rf"\{kind}(%s)"]) % written(rnd, parts[0])
    elif kind == "^":
        exponent = written(rnd, parts[1])
        text = written(rnd, parts[0], 6) + (
            rnd.choice(["^{%s}", "^(%s)"]) % exponent if len(exponent) > 1 else f"^{exponent}"
        )
    elif kind == "/" and rnd.random() < 0.5:
        return rf"\frac{{{written(rnd, parts[0])}}}{{{written(rnd, parts[1])}}}"
    else:
        left, right = written(rnd, parts[0], binds), written(rnd, parts[1], binds + 0.5)
        beside = left[-1:].isdigit() and right.startswith("(")
        text = left + (rnd.choice([r" \cdot ", "*", "" if beside else "*"]) if kind == "*" else kind) + right
    return rnd.choice(["(%s)", r"\left(%s\right)"]) % text if binds < least else text


def has_same_values(one: Tree, other: Tree) -> bool | None:
    """None where a value does not exist or is too large to compare."""
    found = []
    for at in POINTS:
        try:
            a, b = value(one, at), value(other, at)
        except (ZeroDivisionError, OverflowError, ValueError):
            return None
        if not (abs(a) < 1e6 and abs(b) < 1e6):
            return None
        found.append(abs(a - b) <= 1e-9 * max(abs(a), abs(b)))
    return all(found)


def test_a_formula_with_one_thing_changed_is_right_only_where_its_values_are_the_same() -> None:
    rnd, seen, missed = random.Random(2026), Counter[tuple[bool, str]](), []
    while seen.total() < PAIRS:
        tree = drawn(rnd, 2)
        other = tree if rnd.random() < 0.4 else changed(rnd, tree)
        is_same = has_same_values(tree, other)
        if tree[0] == "leaf" or is_same is None:
            continue
        answer, reference = written(rnd, other), written(rnd, tree)
        state = judge(rf"so \boxed{{{answer}}}", reference, VerifySettings()).state
        seen[is_same, state] += 1
        if state == ("wrong" if is_same else "correct"):
            missed.append((answer, reference, state))
    assert missed == []
    assert seen[True, "correct"] > PAIRS / 4, seen
    assert seen[False, "wrong"] > PAIRS / 4, seen
