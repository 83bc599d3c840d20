"""A teacher that follows its student: a moving average of the student's weights, as in SDPO's program.

There the average moves at every optimizer step. Here rollouts and readings are made once a round, so it moves
once a round by as much as that many steps would move it towards weights that stay: with rate a and k steps
by 1 - (1 - a)^k. With `steps_per_round: 1` it is their average.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from cluster.errors import BadInput
from cluster.memory import free_memory
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.plain_way import plain_logits, probe_texts
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.run.run import Planned, Run
from jobs.run.slices import Task, do_tasks
from jobs.run.store import Stage
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from training.exports import probe_of
from training.job import WEIGHTS

VERSION = 1
AVERAGE = "average"


@dataclass(frozen=True)
class Move:
    """One step of a teacher's average towards a student.

    Attributes:
        share: how much of the new weights is the student's, 0 to 1.
    """

    label: str
    teacher: ModelState
    student: ModelState
    share: float

    def stage(self, run: Run) -> Stage:
        """The stage that holds the new weights."""
        inputs = {"teacher": self.teacher.id, "student": self.student.id}
        return run.store.stage(AVERAGE, VERSION, {"share": self.share}, inputs)


def share_of(rate: float, steps: int) -> float:
    """How far an average moves in some steps towards weights that stay the same.

    >>> share_of(0.05, 1), round(share_of(0.5, 3), 4), share_of(0.0, 8)
    (0.05, 0.875, 0.0)
    """
    return rate if steps == 1 else 1 - (1 - rate) ** steps


def move(run: Run, moves: list[Move], placement: Placement) -> list[ModelState | None]:
    """Move these teachers. Moves that have the same teacher, student and share are made once.

    Returns:
        The teachers after it. In a plan None for one that does not exist yet.
    """
    stages = [one.stage(run) for one in moves]
    for one, stage in zip(moves, stages, strict=True):
        run.note(AVERAGE, one.label, stage)
    left = {stage.id: (one, stage) for one, stage in zip(moves, stages, strict=True) if not stage.is_finished}
    if run.mode == "plan":
        run.planned += [Planned(AVERAGE, one.label, "weights", "1 × 1 CPU") for one, _ in left.values()]
        return [
            after(m, stage) if stage.is_finished else None for m, stage in zip(moves, stages, strict=True)
        ]
    with run.claimed([stage for _, stage in left.values()]):
        still = [(one, stage) for one, stage in left.values() if not stage.is_finished]
        bring_back(run, [one.student for one, _ in still], placement)
        tasks = [
            (
                one.label,
                Task(write_average, (one.teacher.source, one.student.source, one.share, weights_in(s))),
            )
            for one, s in still
        ]
        do_tasks(run, AVERAGE, "teachers", tasks)
        for one, stage in still:
            stage.finish([], about={"teacher": one.teacher.name, "student": one.student.name})
    return [after(one, stage) for one, stage in zip(moves, stages, strict=True)]


def weights_in(stage: Stage) -> Place:
    """Where a stage has the averaged weights."""
    return stage.directory / WEIGHTS


def after(one: Move, stage: Stage) -> ModelState:
    """The teacher after a move."""
    source = replace(one.teacher.source, path=str(weights_in(stage)), revision=None, adapter=None)
    about = {**one.teacher.about, "average": stage.id}
    return replace(one.teacher, source=source, id=stage.id, about=about, trained_by=None)


def write_average(teacher: ModelSource, student: ModelSource, share: float, place: Place) -> None:
    """Runs in a worker. Writes the average of two models' weights, in float32, so that small moves add up
    over rounds. Adapters are merged. The directory gets its name when it has been loaded and compared.

    Raises:
        BadInput: the models have other tensors than one another.
        NotWhatWasTrained: the saved model is another one than the average.
    """
    own, other = (load_model(replace(one, dtype="float32")) for one in (teacher, student))
    with torch.no_grad():
        for mine, theirs in pairs_of(own, other):
            mine.lerp_(theirs, share)
    del other
    texts = probe_texts(own)
    probe = probe_of(lambda text: plain_logits(own, text), texts, torch.float32)
    partial = place.scratch()
    own.save_pretrained(partial)
    load_tokenizer(teacher).save_pretrained(partial)
    free_memory()
    written = ModelSource(str(partial), trust_remote_code=teacher.trust_remote_code)
    probe.compare(load_model(written), "the saved average")
    free_memory()
    place.take(partial)


def pairs_of(own: torch.nn.Module, other: torch.nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The parameters of two models of one kind, side by side. Tied ones come once.

    Raises:
        BadInput: they differ in names or shapes.
    """
    mine, theirs = dict(own.named_parameters()), dict(other.named_parameters())
    for name in sorted(mine.keys() | theirs.keys()):
        if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape:
            raise BadInput(
                "a teacher cannot follow its student: their weights differ in kind",
                name,
                "the same tensors",
                "",
            )
        yield mine[name], theirs[name]
