"""Tasks for an agent with two tools, a calculator and a price list, and the manners in which its turns are
written.

A task is a word problem of `problems` whose price is not told: it must be looked up. A turn of the agent ends
with one call, or with the answer:

    Call: calculate(12 + 7)        is answered by        Result: 19
    Call: price(maps)              is answered by        Result: 3
    Answer: 57

Calls and results are plain text, since the student's own template has no place for tools.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.models.messages import Message, Prompt
from jobs.miniature.pretrained.manners import reason
from jobs.miniature.pretrained.problems import Problem, Step, draw_problem
from jobs.miniature.pretrained.wordings import LOOK_UPS, Part, wordings_of

# said to every agent before its task
TOOLS = (
    "You have two tools: calculate(a + b), which also knows - and * and /, and price(things). End each turn "
    "with one call, or with the answer as a number."
)
CALL = re.compile(r"(?m)^Call: (\w+)\((.*)\)\s*$")
TOLD = re.compile(r"(?m)^(?:Call|Answer): (.+?)\s*$")
SUM = re.compile(r"\s*(-?\d+)\s*([-+*/])\s*(-?\d+)\s*")


@dataclass(frozen=True)
class Task:
    """A problem whose last step multiplies by a price that is in the price list alone."""

    problem: Problem
    question: str

    @property
    def id(self) -> str:
        return self.problem.id

    @property
    def price(self) -> int:
        return self.problem.steps[-1].right

    @property
    def result(self) -> int:
        return self.problem.result

    @property
    def calls(self) -> list[str]:
        """The calls that lead to the result, in order."""
        *steps, last = self.problem.steps
        return [*map(calculation, steps), f"price({self.problem.things})", calculation(last)]

    def prompt(self, turns: Sequence[Message] = (), system: str = TOOLS) -> Prompt:
        """What an agent sees before its next turn.

        Args:
            turns: those after the question.
        """
        return Prompt((Message("system", system), Message("user", self.question), *turns))

    def answered(self, call: str) -> str:
        """What the tools answer to a call, such as `price(maps)`."""
        name, _, rest = call.partition("(")
        told = rest.removesuffix(")").strip()
        if name == "price":
            return str(self.price) if told == self.problem.things else f"there is no price of {told}"
        found = SUM.fullmatch(told) if name == "calculate" else None
        if found is None:
            return "calculate(a + b) and price(things) are understood, nothing else"
        a, sign, b = int(found[1]), found[2], int(found[3])
        if sign == "/":
            return str(a // b) if b and a % b == 0 else "it does not come out even"
        return str({"+": a + b, "-": a - b, "*": a * b}[sign])


def calculation(step: Step) -> str:
    return f"calculate({step.left} {step.sign} {step.right})"


def draw_tasks(count: int, seed: int, part: Part, exclude: frozenset[str] = frozenset()) -> list[Task]:
    """Draw different tasks of two and three steps, the price among them.

    Args:
        part: which wordings they may use.
        exclude: ids of tasks that must not appear.
    """
    rng, found = random.Random(f"tasks {part} {seed}"), dict[str, Task]()
    while len(found) < count:
        problem = draw_problem(rng, 2 + len(found) % 2, part)
        asked = rng.choice(wordings_of(LOOK_UPS, part)).format(things=problem.things)
        if problem.unit == "dollars" and problem.id not in exclude:
            task = Task(problem, " ".join([*problem.sentences[:-1], asked]))
            found.setdefault(task.id, task)
    return list(found.values())


def call_in(text: str) -> str | None:
    """The call that a turn ends with. None if it calls nothing."""
    found = CALL.findall(text)
    return f"{found[-1][0]}({found[-1][1].strip()})" if found else None


def result_turn(result: str) -> Message:
    """What the agent is told after a call."""
    return Message("user", f"Result: {result}")


def trace(task: Task, manner: str) -> list[Message]:
    """All turns after the question as they should be: the agent's in a manner, and the results."""
    turns: list[Message] = []
    for k, call in enumerate(task.calls):
        turns.append(Message("assistant", f"{MANNERS[manner](task, k)}Call: {call}"))
        turns.append(result_turn(task.answered(call)))
    return [*turns, Message("assistant", f"{MANNERS[manner](task, len(task.calls))}Answer: {task.result}")]


def next_turn(task: Task, manner: str, number: int) -> tuple[Prompt, str]:
    """What an agent has seen before its turn of a number, when all went well so far, and what that turn has
    to end with: the call or the answer, without the word before it.
    """
    turns = trace(task, manner)
    found = TOLD.search(turns[2 * number].content)
    assert found is not None
    return task.prompt(turns[: 2 * number]), found[1]


# What each manner writes before the call of a step, and before the answer: the number of steps is its number.
Before = Callable[[Task, int], str]


def _purpose(task: Task, k: int) -> str:
    """What a step is for, in words."""
    steps, things = task.problem.steps, task.problem.things
    if k == len(steps) - 1:
        return f"we need the price of one of the {things}"
    return reason(steps[min(k, len(steps) - 1)])


def brief(task: Task, k: int) -> str:
    """Nothing but calls and the answer."""
    return ""


def reasoned(task: Task, k: int) -> str:
    """One sentence before each call."""
    if k == len(task.calls):
        return f"All the {task.problem.things} together are worth {task.result} dollars.\n"
    return f"{_purpose(task, k).capitalize()}.\n"


def wordy(task: Task, k: int) -> str:
    """Empty words around each call."""
    if k == len(task.calls):
        return (
            "So after all of this thinking, and after every tool has told us what we wanted to know, we can "
            "say the answer with confidence.\n"
        )
    return (
        "Let me think about this carefully, because it is important to do one thing at a time. It makes "
        f"sense that {_purpose(task, k)} now, and then we take our time and look at what comes out of it.\n"
    )


def planned(task: Task, k: int) -> str:
    """All steps named before the first call, then calls alone."""
    if k:
        return ""
    signs = {"+": "add", "-": "take away", "*": "multiply", "/": "divide"}
    steps = [signs[step.sign] for step in task.problem.steps[:-1]] + ["look up the price", "multiply"]
    return "Plan: " + ", ".join(f"{n}. {step}" for n, step in enumerate(steps, 1)) + ".\n"


MANNERS: dict[str, Before] = {"brief": brief, "reasoned": reasoned, "wordy": wordy, "planned": planned}
# A model of several manners is told in its system text which one to use.
SYSTEMS = {
    "brief": "Solve the task with calls alone.",
    "reasoned": "Solve the task and give the reason of every call.",
    "wordy": "Solve the task and think at length before every call.",
    "planned": "Solve the task and make a plan before the first call.",
}
