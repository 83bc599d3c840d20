"""What is to be trained: a start, examples, settings, and the directory that tells how far it has come."""

import json
from dataclasses import dataclass

from cluster.models.loading import ModelSource
from cluster.storage import Place
from training.batches import count_steps
from training.data import count_groups
from training.settings import TrainSettings

DONE = "DONE.json"
WEIGHTS = "model"  # the directory of a finished training's weights
OPTIMIZER = "optimizer"
FAILED = "FAILED.json"  # why a training ended that would end there again


@dataclass(frozen=True)
class TrainJob:
    """One training: a start model, examples, and the directory (local or by URI) that gets `model/`, metrics
    and a DONE file.

    Several trainings may share one optimizer and one schedule, as rounds do that follow one another quickly:
    one with `keeps_optimizer` leaves its whole training state in `optimizer/`, and one whose `carried` names
    that place goes on from there. `frozen` is a model that the objective reads and nobody trains. Its steps
    are counted from `first` in a schedule of `schedule_steps`.

    With `until`, this attempt ends after that many steps with a checkpoint, an export to `step-<until>/` and
    a file `PAUSED-<until>.json`; the same job without it, or with a later one, goes on from there to the same
    weights.
    """

    job_id: str
    source: ModelSource
    examples: str
    output: str
    seed: int
    settings: TrainSettings
    export_steps: tuple[int, ...] = ()
    chat_template: str | None = None
    until: int | None = None
    carried: str | None = None
    keeps_optimizer: bool = False
    first: int = 0
    schedule_steps: int | None = None
    frozen: ModelSource | None = None

    @property
    def steps(self) -> int:
        """How many optimizer steps are done when this attempt has ended."""
        s = self.settings
        total = count_steps(count_groups(Place(self.examples)), s.batch_size, s.epochs, s.steps)
        return min(self.until or total, total)

    @property
    def failure(self) -> str:
        """Why the last attempt ended before its time; empty when it did not."""
        try:
            return str(json.loads((Place(self.output) / FAILED).read_text())["reason"])
        except FileNotFoundError:
            return ""

    def forget_failure(self) -> None:
        """Let the next attempt begin without what the last one ended with."""
        (Place(self.output) / FAILED).unlink()

    @property
    def has_ended(self) -> bool:
        """Whether the whole training is over."""
        return (Place(self.output) / DONE).is_file()

    @property
    def is_done(self) -> bool:
        """Whether this attempt has nothing left to do."""
        return self.has_ended or (
            self.until is not None and (Place(self.output) / paused_name(self.until)).is_file()
        )


def paused_name(step: int | str) -> str:
    """The file that says a job has been trained and exported up to a step."""
    return f"PAUSED-{step}.json"
