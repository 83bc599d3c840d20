"""The questions and dialects of the miniature world. The questions are small state machines. A dialect is a
style in which each step is written down.

A task family is a state machine: a start state, a list of operations, and one new state for each operation.
The answer is the last state. To give the answer at once, a model would have to combine four to six operations
in one step. If it writes the states down, each step is one look-up in a table, which a two-layer model can
learn. Families and dialects were written before any selector was run on them. `docs/miniature.md` lists the
trials.
"""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CHAIN_MODULUS, DIAL_MARKS, GRID_SIZE = 10, 9, 8
GRID_COLUMNS = "ABCDEFGH"
LABELS = "tuvwxyz"  # every operation carries a letter, so that a step can be looked up by name
MIN_OPERATIONS, MAX_OPERATIONS = 4, 6


@dataclass(frozen=True)
class Episode:
    """One question with its worked states: `states[0]` is the start,
    `states[i + 1]` follows `operations[i]`.
    """

    family: str
    operations: tuple[str, ...]
    states: tuple[str, ...]

    @property
    def question(self) -> str:
        steps = " ".join(
            f"{label}{operation}" for label, operation in zip(LABELS, self.operations, strict=False)
        )
        return f"{self.family}: {self.states[0]} {steps}"

    @property
    def result(self) -> str:
        return self.states[-1]

    @property
    def question_id(self) -> str:
        """An id that follows from the text. So the same question never has two ids."""
        return f"{self.family}-{hashlib.sha256(self.question.encode()).hexdigest()[:16]}"


def _chain(rng: random.Random, n: int) -> Episode:
    """Digits modulo 10 under +k, -k (k up to 4) and the two multipliers that lose no information (3
    and 7).
    """
    value, operations, states = rng.randrange(CHAIN_MODULUS), [], []
    states.append(str(value))
    for _ in range(n):
        kind = rng.choice("+-*")
        k = rng.choice((3, 7)) if kind == "*" else rng.randint(1, 4)
        value = {"+": value + k, "-": value - k, "*": value * k}[kind] % CHAIN_MODULUS
        operations.append(f"{kind}{k}")
        states.append(str(value))
    return Episode("chain", tuple(operations), tuple(states))


def _dial(rng: random.Random, n: int) -> Episode:
    """Marks on a dial of nine under +k and -k (k up to 4)."""
    value, operations, states = rng.randrange(DIAL_MARKS), [], []
    states.append(str(value))
    for _ in range(n):
        sign, k = rng.choice((1, -1)), rng.randint(1, 4)
        value = (value + sign * k) % DIAL_MARKS
        operations.append(f"{'+' if sign > 0 else '-'}{k}")
        states.append(str(value))
    return Episode("dial", tuple(operations), tuple(states))


def _grid(rng: random.Random, n: int) -> Episode:
    """A square of an 8 x 8 board that wraps around, under moves north, south, east and west by 1 or 2."""
    x, y = rng.randrange(GRID_SIZE), rng.randrange(GRID_SIZE)
    operations, states = [], [f"{GRID_COLUMNS[x]}{y + 1}"]
    for _ in range(n):
        move, k = rng.choice("NSEW"), rng.randint(1, 2)
        dx, dy = {"N": (0, 1), "S": (0, -1), "E": (1, 0), "W": (-1, 0)}[move]
        x, y = (x + dx * k) % GRID_SIZE, (y + dy * k) % GRID_SIZE
        operations.append(f"{move}{k}")
        states.append(f"{GRID_COLUMNS[x]}{y + 1}")
    return Episode("grid", tuple(operations), tuple(states))


def _cups(rng: random.Random, n: int) -> Episode:
    """Four numbered cups in a row under swaps of two places (`@13`), `^` (rotate left) and `~` (reverse)."""
    cups, operations = rng.sample("6789", 4), []
    states = ["".join(cups)]
    for _ in range(n):
        operation = rng.choice(("@12", "@23", "@34", "@14", "^", "~"))
        if operation == "^":
            cups = cups[1:] + cups[:1]
        elif operation == "~":
            cups = cups[::-1]
        else:
            i, j = int(operation[1]) - 1, int(operation[2]) - 1
            cups[i], cups[j] = cups[j], cups[i]
        operations.append(operation)
        states.append("".join(cups))
    return Episode("cups", tuple(operations), tuple(states))


def _week(rng: random.Random, n: int) -> Episode:
    """A day of the week, 1 to 7, under +k and -k (k up to 3)."""
    value, operations, states = rng.randint(1, 7), [], []
    states.append(str(value))
    for _ in range(n):
        sign, k = rng.choice((1, -1)), rng.randint(1, 3)
        value = (value - 1 + sign * k) % 7 + 1
        operations.append(f"{'+' if sign > 0 else '-'}{k}")
        states.append(str(value))
    return Episode("week", tuple(operations), tuple(states))


def _lamps(rng: random.Random, n: int) -> Episode:
    """Three lamps, on (1) or off (0), under a switch of one (`#2`), `^` (each takes its right neighbour's
    state) and `!` (all switched).
    """
    lamps, operations = [rng.choice("01") for _ in range(3)], []
    states = ["".join(lamps)]
    for _ in range(n):
        operation = rng.choice(("#1", "#2", "#3", "^", "!"))
        if operation == "^":
            lamps = lamps[1:] + lamps[:1]
        else:
            switched = range(3) if operation == "!" else [int(operation[1]) - 1]
            for i in switched:
                lamps[i] = "10"[int(lamps[i])]
        operations.append(operation)
        states.append("".join(lamps))
    return Episode("lamps", tuple(operations), tuple(states))


def _belt(rng: random.Random, n: int) -> Episode:
    """Three boxes on a belt, marked 2 to 5: `<4` puts one behind the last, and the first falls off; `>4` the
    other way round.
    """
    boxes, operations = [rng.choice("2345") for _ in range(3)], []
    states = ["".join(boxes)]
    for _ in range(n):
        side, box = rng.choice("<>"), rng.choice("2345")
        boxes = [*boxes[1:], box] if side == "<" else [box, *boxes[:-1]]
        operations.append(side + box)
        states.append("".join(boxes))
    return Episode("belt", tuple(operations), tuple(states))


def _rules(rng: random.Random, n: int) -> Episode:
    """Three signs, 1 to 3, rewritten by rules: `1/3` makes every 1 a 3."""
    signs, operations = "".join(rng.choice("123") for _ in range(3)), []
    states = [signs]
    for _ in range(n):
        old = rng.choice("123")
        new = rng.choice([sign for sign in "123" if sign != old])
        signs = signs.replace(old, new)
        operations.append(f"{old}/{new}")
        states.append(signs)
    return Episode("rules", tuple(operations), tuple(states))


FAMILIES: dict[str, Callable[[random.Random, int], Episode]] = {
    "chain": _chain,
    "dial": _dial,
    "grid": _grid,
    "cups": _cups,
    "week": _week,
    "lamps": _lamps,
    "belt": _belt,
    "rules": _rules,
}
QUICK_FAMILIES = ("chain", "dial", "grid", "cups")  # of the quick world


def solve(question: str) -> str | None:
    """The result of a question, by its state machine. None if the text is no question of a family.

    >>> solve("chain: 3 t+4 u*7"), solve("cups: 6789 t@12 u^"), solve("chain: 3 t/4"), solve("hello")
    ('9', '6897', None, None)
    """
    family, _, rest = question.strip().partition(": ")
    state, *steps = rest.split(" ")
    if (
        family not in STEPS
        or not 1 <= len(steps) <= MAX_OPERATIONS
        or not re.fullmatch(STATES[family], state)
    ):
        return None
    for label, said in zip(LABELS, steps, strict=False):
        found = STEPS[family](state, said[1:]) if said[:1] == label else None
        if found is None:
            return None
        state = found
    return state


def _add(modulus: int, most: int, first: int = 0) -> Callable[[str, str], str | None]:
    """The step of a number under +k and -k, k up to `most`, in a ring that begins at `first`."""

    def step(state: str, operation: str) -> str | None:
        if not re.fullmatch(f"[+-][1-{most}]", operation):
            return None
        k = int(operation)
        return str((int(state) - first + k) % modulus + first)

    return step


def _chain_step(state: str, operation: str) -> str | None:
    if re.fullmatch("[*][37]", operation):
        return str(int(state) * int(operation[1]) % CHAIN_MODULUS)
    return _add(CHAIN_MODULUS, 4)(state, operation)


def _grid_step(state: str, operation: str) -> str | None:
    if not re.fullmatch("[NSEW][12]", operation):
        return None
    dx, dy = {"N": (0, 1), "S": (0, -1), "E": (1, 0), "W": (-1, 0)}[operation[0]]
    k = int(operation[1])
    x, y = GRID_COLUMNS.index(state[0]) + dx * k, int(state[1]) - 1 + dy * k
    return f"{GRID_COLUMNS[x % GRID_SIZE]}{y % GRID_SIZE + 1}"


def _cups_step(state: str, operation: str) -> str | None:
    cups = list(state)
    if operation == "^":
        return state[1:] + state[:1]
    if operation == "~":
        return state[::-1]
    if operation not in ("@12", "@23", "@34", "@14"):
        return None
    i, j = int(operation[1]) - 1, int(operation[2]) - 1
    cups[i], cups[j] = cups[j], cups[i]
    return "".join(cups)


# The quick world's state machines: a start state's form, and one step.
STATES = {"chain": "[0-9]", "dial": "[0-8]", "grid": "[A-H][1-8]", "cups": "(?!.*(.).*\\1)[6-9]{4}"}
STEPS: dict[str, Callable[[str, str], str | None]] = {
    "chain": _chain_step,
    "dial": _add(DIAL_MARKS, 4),
    "grid": _grid_step,
    "cups": _cups_step,
}


def draw_episodes(
    count: int,
    seed: int,
    exclude: frozenset[str] = frozenset(),
    min_operations: int = MIN_OPERATIONS,
    families: Sequence[str] = QUICK_FAMILIES,
) -> list[Episode]:
    """Draw episodes of `min_operations` to six operations. The families take turns.

    Args:
        count: the number of episodes. All are different, unless there are too few short ones.
        exclude: question ids that must not appear.
        min_operations: questions of the world have at least four. Models also practise on shorter ones.
    """
    rng, seen = random.Random(seed), set(exclude)
    episodes: list[Episode] = []
    while len(episodes) < count:
        family = families[len(episodes) % len(families)]
        operations = rng.randint(min_operations, MAX_OPERATIONS)
        episode = FAMILIES[family](rng, operations)
        if episode.question_id in seen and (operations >= MIN_OPERATIONS or episode.question_id in exclude):
            continue
        seen.add(episode.question_id)
        episodes.append(episode)
    return episodes


def _finish(work: str, episode: Episode) -> str:
    return f"{work}\nA:{episode.result}"


def _steps(episode: Episode) -> list[tuple[str, str, str, str]]:
    """Label, state before, operation and state after, for every step."""
    labels = LABELS[: len(episode.operations)]
    return list(zip(labels, episode.states[:-1], episode.operations, episode.states[1:], strict=True))


def _equations(episode: Episode) -> str:
    """Every step as an equation: `3t+4=7;7u-2=5`."""
    return _finish(";".join(f"{a}{label}{op}={b}" for label, a, op, b in _steps(episode)), episode)


def _running(episode: Episode) -> str:
    """A running total, each state written once: `3t+4=7u-2=5`."""
    return _finish(
        episode.states[0] + "".join(f"{label}{op}={b}" for label, _, op, b in _steps(episode)), episode
    )


def _wordy(episode: Episode) -> str:
    """Every step surrounded by filler that is easy to predict."""
    body = "".join(f" now we take {a}{label}{op} and this makes {b} ." for label, a, op, b in _steps(episode))
    return _finish(f"let us begin .{body} so we are done .", episode)


def _terse(episode: Episode) -> str:
    """A running total that stops early: the last step is not written. `3t+4=7` for two steps."""
    steps = _steps(episode)[:-1]
    return _finish(episode.states[0] + "".join(f"{label}{op}={b}" for label, _, op, b in steps), episode)


def _prefix(episode: Episode) -> str:
    """An unusual notation: the operation first, everything in brackets. `[t+4]{3=7}[u-2]{7=5}`."""
    return _finish(
        "".join(f"[{label}{op}]" + "{" + f"{a}={b}" + "}" for label, a, op, b in _steps(episode)), episode
    )


def _blurt(episode: Episode) -> str:
    """The result alone. No teacher uses this dialect. It shows that giving only the result does not pay."""
    return f"A:{episode.result}"


DIALECTS: dict[str, Callable[[Episode], str]] = {
    "equations": _equations,
    "running": _running,
    "wordy": _wordy,
    "terse": _terse,
    "prefix": _prefix,
    "blurt": _blurt,
}


def _running_wordy(episode: Episode) -> str:
    """A running total with filler."""
    body = "".join(f" then {label}{op} gives us {b} ." for label, _, op, b in _steps(episode))
    return _finish(f"we start from {episode.states[0]} .{body} so we are done .", episode)


def _prefix_wordy(episode: Episode) -> str:
    """The operation first and everything in brackets, with filler."""
    body = "".join(
        f" first do [{label}{op}]" + " and see {" + f"{a}={b}" + "} ." for label, a, op, b in _steps(episode)
    )
    return _finish(f"let us begin .{body} so we are done .", episode)


# With the filler that `wordy` has, in the full world alone.
WORDY: dict[str, Callable[[Episode], str]] = {
    "equations-wordy": _wordy,
    "running-wordy": _running_wordy,
    "prefix-wordy": _prefix_wordy,
}


def work_out(episode: Episode, dialect: str) -> str:
    """Write the worked answer of an episode in a dialect.

    >>> work_out(Episode("chain", ("+4", "-2"), ("3", "7", "5")), "equations")
    '3t+4=7;7u-2=5\\nA:5'
    """
    return (DIALECTS | WORDY)[dialect](episode)
