"""The command `tutelage relay`: a trained student answers, and may ask its teacher for tokens."""

from typing import Annotated

import typer

from cluster.errors import BadInput
from jobs.doors.look import RunName, saved_run
from jobs.run.progress import Terminal
from jobs.run.run import open_run


def relay(
    run_name: RunName,
    question: Annotated[str, typer.Option(help="The question's text.")],
    budget: Annotated[int, typer.Option(help="Calls per 100 tokens that the student is told.")] = 10,
    student: Annotated[str | None, typer.Option(help="A student's name; the first one without.")] = None,
    arm: Annotated[
        str | None, typer.Option(help="An arm of kind training_wheels; the first one without.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The training seed.")] = 0,
    hard: Annotated[
        bool, typer.Option("--hard", help="Limit calls to the budget, whatever the student does.")
    ] = False,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest tokens.")] = 0.0,
    runs: str = "runs",
) -> None:
    """Ask a student of a finished run, and show which tokens its teacher wrote: in colour on a terminal, in
    brackets elsewhere. Both models are loaded in this process.
    """
    from jobs.pipeline import run_pipeline
    from jobs.systems.training_wheels.answering import answer

    if not question.strip():
        raise BadInput("--question", repr(question), "a question", "")
    if temperature < 0:
        raise BadInput("--temperature", temperature, "0 or more", "")
    experiment, directory = saved_run(run_name, runs)
    with open_run(experiment, directory, Terminal(), "read") as run:
        told = answer(run_pipeline(run, experiment), question, budget, student, arm, seed, hard, temperature)
        run.terminal.say_marked([(piece.text, piece.by_teacher) for piece in told.pieces])
        run.terminal.say(told.line)
