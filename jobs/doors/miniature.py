"""`tutelage miniature`: the miniature world without an experiment."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.storage import Place
from jobs.doors.interruption import interruptible
from jobs.experiment.reading import load_experiment
from jobs.run.progress import Terminal
from jobs.run.run import open_run


def miniature(
    out: Annotated[Path, typer.Option(help="Store to build in.")] = Path("store"),
    seed: int = 0,
    train_questions: int = 400,
    evaluate_questions: int = 300,
) -> None:
    """Build the miniature world alone and print where its models and questions are."""
    from jobs.miniature.world import STUDENTS, TEACHERS, build_world

    experiment = load_experiment(Path(__file__).parents[1] / "miniature" / "world.yaml", [f"store={out}"])
    settings = {"seed": seed, "train_questions": train_questions, "evaluate_questions": evaluate_questions}
    experiment = experiment.model_copy(update={"miniature": type(experiment.miniature)(**settings)})  # type: ignore[call-arg,misc]
    terminal = Terminal()
    with (
        interruptible(terminal, Place(str(out))),
        open_run(experiment, Place(str(out)) / "logs", terminal) as run,
    ):
        directory = build_world(run, experiment.miniature, experiment.placement)  # type: ignore[arg-type]
    for kind, names in (("teacher", TEACHERS), ("student", STUDENTS)):
        for name in names:
            print(f"{kind:8} {name:10} {directory / f'{name}/model'}")
    print(f"questions           {directory / 'train.jsonl'} {directory / 'evaluate.jsonl'}")
