"""Makes a path's examples, and remembers where each answer ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.run.run import Run
from jobs.run.slices import Task, do_tasks
from jobs.run.store import Stage
from jobs.stages.train import EXAMPLES, NothingToLearn, examples_stage
from jobs.systems.training_wheels.examples import WritePaths

HERE = 2_000  # answers that this process makes examples of; more are made in a worker


@dataclass(frozen=True)
class Made:
    """The examples of one path and round.

    Attributes:
        states: of the answers, in the order of the examples: `usable`, or why it is no example.
        is_own: whether each answer is the student's own rollout.
        questions: how many questions were drawn.
        lost: the questions of answers that failed, with the reasons.
    """

    stage: Stage
    states: Sequence[str]
    is_own: Sequence[bool]
    questions: int
    lost: Mapping[str, str]


def make_paths(run: Run, label: str, writes: WritePaths) -> Made | None:
    """Write the examples, unless they exist already. None in a plan, if they do not exist.

    Raises:
        NothingToLearn: no answer has a decision to learn from.
    """
    stage = examples_stage(run.store, "training_wheels", writes.state.rendering, writes.id)
    run.note("examples", label, stage)
    is_own = [source.is_own for source in writes.sources for _ in source.entries]
    with run.claimed([stage]):
        if not stage.is_finished and run.mode == "make":
            task = Task(writes, (stage.part(EXAMPLES),))
            here = len(is_own) <= HERE
            states, reasons = do_tasks(run, "examples", label, [("paths", task)], here)["paths"]
            count = states.count("usable")
            stage.finish(
                [EXAMPLES] if count else [],
                about={"states": states, "reasons": {str(k): why for k, why in reasons.items()}},
                examples=count,
            )
    if not stage.is_finished:
        return None
    manifest = stage.manifest()
    states, reasons = manifest["about"]["states"], manifest["about"]["reasons"]
    if not manifest["counts"]["examples"]:
        told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        told += f"; the first failed because: {next(iter(reasons.values()))}" if reasons else ""
        raise NothingToLearn(
            f"{label}: no answer has a decision to learn from",
            told,
            "at least one",
            "more questions (wheels.questions), or a larger wheels.max_new_tokens",
        )
    names = [entry.question for source in writes.sources for entry in source.entries]
    lost = {f"{names[int(k)]}": why for k, why in reasons.items()}
    return Made(stage, states, is_own, len(writes.questions), lost)
