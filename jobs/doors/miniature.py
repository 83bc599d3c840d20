"""`tutelage miniature`: builds the miniature world without an experiment."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.storage import Place
from jobs.doors.interruption import interruptible
from jobs.experiment.miniature import Miniature
from jobs.experiment.parsing import load_experiment
from jobs.run.progress import Terminal
from jobs.run.run import open_run

# a language model keeps a core busy; the other worlds' small models share one
WIDE = ("placement.train_lanes=2", "placement.train.num_cpus=1")
WORLDS = ("quick", "full", "reading", "writing", "pretrained", "agents", "authors")


def miniature(
    out: Annotated[Path, typer.Option(help="Store to build in.")] = Path("store"),
    world: Annotated[
        str,
        typer.Option(
            help="quick (the demo's), full (the study's), reading, writing, pretrained, agents, authors."
        ),
    ] = "quick",
    seed: int = 0,
    train_questions: Annotated[int, typer.Option(min=8)] = 400,
    evaluate_questions: Annotated[int, typer.Option(min=8)] = 300,
) -> None:
    """Build the miniature world alone and print where its models and questions are."""
    from jobs.miniature.world import build_world, models_of

    if world not in WORLDS:
        raise typer.BadParameter(f"{world}: {', '.join(WORLDS)}", param_hint="--world")
    own = WIDE if world in ("pretrained", "agents", "authors") else ()
    file = Path(__file__).parents[1] / "miniature" / "world.yaml"
    experiment = load_experiment(file, [f"store={out}", *own])
    counts = {"train_questions": train_questions, "evaluate_questions": evaluate_questions}
    settings = Miniature.model_validate({"world": world, "seed": seed, **counts})
    terminal = Terminal()
    with (
        interruptible(terminal, Place(str(out))),
        open_run(experiment, Place(str(out)) / "logs", terminal) as run,
    ):
        directory = build_world(run, settings, experiment.placement)
    for kind, models in models_of(directory).items():
        for name, path in models.items():
            print(f"{kind:8} {name:32} {directory / path}")
    print(f"questions           {directory / 'train.jsonl'} {directory / 'evaluate.jsonl'}")
