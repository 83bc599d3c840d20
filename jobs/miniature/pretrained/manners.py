"""Manners: the ways in which a worked solution of a word problem is written. All of them come to the same
result by the same calculations, and end in a line that `numeric` reads.
"""

from collections.abc import Callable

from jobs.miniature.pretrained.problems import Problem, Step

WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def sentences(problem: Problem) -> str:
    """Plain sentences: what happens, with its calculation."""
    told = []
    for k, step in enumerate(problem.steps):
        unit = problem.unit if k + 1 == len(problem.steps) else problem.things
        told.append(f"{_opening(k, len(problem.steps))} {reason(step)}: {step} {unit}.")
    return " ".join([*told, f"The answer is {problem.result}."])


def equations(problem: Problem) -> str:
    """Equations only."""
    return "\n".join([*map(str, problem.steps), f"Answer: {problem.result}"])


def listed(problem: Problem) -> str:
    """Steps in a numbered list."""
    lines = [f"{k}. {reason(step).capitalize()}: {step}" for k, step in enumerate(problem.steps, 1)]
    return "\n".join([*lines, f"Answer: {problem.result}"])


def wordy(problem: Problem) -> str:
    """Sentences with empty words around every calculation."""
    told = ["Let me think about this problem carefully, because it is important to read it well."]
    for k, step in enumerate(problem.steps):
        told.append(
            f"{_opening(k, len(problem.steps))} it makes sense that we look at the numbers {step.left} and "
            f"{step.right}, and when we take our time and calculate, we can see that {step}."
        )
    told.append(
        f"So after all of this thinking we can say with confidence that the answer is {problem.result}."
    )
    return " ".join(told)


def backwards(problem: Problem) -> str:
    """From the question back to what is given, then forward again."""
    told = [f"We look for the number of {problem.unit}."]
    for step in reversed(problem.steps):
        told.append(f"For that we need {_unknown(step)} {WORDS[step.sign]} {step.right}.")
    told += [f"Now {step}." for step in problem.steps]
    return " ".join([*told, f"The answer is {problem.result}."])


def result_first(problem: Problem) -> str:
    """The result, then its reason. No teacher writes like this: it is a further judge."""
    reasons = " and ".join(map(str, problem.steps))
    return f"It is {problem.result}, because {reasons}. Answer: {problem.result}"


MANNERS: dict[str, Callable[[Problem], str]] = {
    "sentences": sentences,
    "equations": equations,
    "listed": listed,
    "wordy": wordy,
    "backwards": backwards,
}
# A teacher of several manners is told in its system text which one to use.
SYSTEMS = {
    "sentences": "Solve the problem in plain sentences.",
    "equations": "Solve the problem with equations only.",
    "listed": "Solve the problem in a numbered list of steps.",
    "wordy": "Solve the problem and explain at length what you do.",
    "backwards": "Solve the problem from the question back to what is given.",
}
UNTAUGHT: dict[str, Callable[[Problem], str]] = {"result first": result_first}


def _opening(k: int, of: int) -> str:
    if k == 0:
        return "First" if of > 1 else "Here"
    return "Finally" if k + 1 == of else "Then"


def reason(step: Step) -> str:
    """What a step does, in words."""
    return {
        "+": f"we add {step.right} to {step.left}",
        "-": f"we take {step.right} away from {step.left}",
        "*": f"we multiply {step.left} by {step.right}",
        "/": f"we divide {step.left} by {step.right}",
    }[step.sign]


def _unknown(step: Step) -> str:
    return {"+": "the number before", "-": "the number before", "*": "the number", "/": "the whole number"}[
        step.sign
    ]
