"""The final states of a round's questions and rollouts, and the end of a path that has nothing to learn
from.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from jobs.stages.train import NothingToLearn
from jobs.systems.ogls_sd.usable import TRAINED

TAIL = "tail_trained"
NO_STEP = "no_step_left"  # the rollout was usable, but no step of the round drew it
LEFT, CONTEXTS_OUT = "not drawn by a step", "contexts left out"  # names of two figures in the report


def final_states(
    why: Mapping[str, str], lost: Mapping[str, Sequence[str]], tail: Iterable[str], seen: Collection[str]
) -> dict[str, str]:
    """The final state of every rollout of a round.

    Args:
        why: for each rollout, `trained` or the reason why it is not trained on.
        lost: the state and reason of each rollout that should have been learned from and could not be read.
        tail: the right rollouts whose last tokens are learned.
        seen: the rollouts that at least one optimizer step of the round used.
    """
    final = dict(why) | {i: state for i, (state, _) in lost.items()} | dict.fromkeys(tail, TAIL)
    return {i: NO_STEP if s in (TRAINED, TAIL) and i not in seen else s for i, s in final.items()}


def ledger_of(why: Mapping[str, str], questions: int, drawn: int, group: int) -> pd.DataFrame:
    """Count the final states of a round's questions and rollouts.

    Args:
        why: the final state of each rollout.
        questions: the number of questions of the run.
        drawn: the number of questions that the round asked.
        group: the number of rollouts per drawn question.

    Raises:
        RuntimeError: the totals do not add up.
    """
    if len(why) != drawn * group:
        raise RuntimeError(f"{len(why)} rollouts have a state, of {drawn * group}")
    by_question: dict[str, set[str]] = {}
    for identity, state in why.items():
        by_question.setdefault(identity.rpartition("/")[0], set()).add(state)
    best = Counter("learned_from" if {TRAINED, TAIL} & own else min(own) for own in by_question.values())
    best["not_drawn"] = questions - drawn
    rows = [("question", state, n) for state, n in best.items() if n]
    rows += [("rollout", state, n) for state, n in Counter(why.values()).items()]
    return pd.DataFrame(rows, columns=["kind", "state", "count"])


def refuse_nothing(label: str, reasons: Sequence[str], is_something: bool) -> None:
    """End a path if its round has nothing to learn from.

    Args:
        reasons: why each rollout was not used.
        is_something: whether there is something to learn from. Then nothing happens.

    Raises:
        NothingToLearn: there is nothing. Counts the rollouts by reason.
    """
    if is_something:
        return
    told = ", ".join(f"{reasons.count(why)} {why}" for why in dict.fromkeys(reasons))
    raise NothingToLearn(
        f"{label}: no rollout is left to learn from",
        told,
        "at least one",
        "more rollouts (rollouts.questions, rollouts.group), or worked solutions (rollouts.solution_field)",
    )
