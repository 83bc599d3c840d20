"""A training job: a start model, examples, settings, and the directory that shows its progress."""

import json
from dataclasses import dataclass

from cluster.models.loading import ModelSource
from cluster.storage import Place
from training.batches import count_steps
from training.data import count_groups
from training.objective_settings import CROSS_ENTROPY, ObjectiveSettings
from training.settings import TrainSettings

DONE = "DONE.json"
WEIGHTS = "model"  # the directory of a finished training's weights
OPTIMIZER = "optimizer"
FAILED = "FAILED.json"  # the reason of a failure that would come again after a restart


@dataclass(frozen=True)
class TrainJob:
    """One training: a start model, examples, and the directory (local or by URI) that gets `model/`, metrics
    and a DONE file.

    Several trainings may share one optimizer and one schedule, for example short rounds. A job with
    `keeps_optimizer` writes its whole training state to `optimizer/`. A job whose `carried` names that place
    continues from there. Its steps are counted from `first` in a schedule of `schedule_steps`. `frozen` is a
    model that the objective reads and that is not trained. Exports stop at `stop_ids` too. They keep
    `chat_template`, and `tool_template` beside it if the student has one of its own for tools.

    With `until`, this attempt ends after that many steps with a checkpoint, an export to `step-<until>/` and
    a file `PAUSED-<until>.json`. The same job without `until`, or with a later one, continues from there to
    the same weights.
    """

    job_id: str
    source: ModelSource
    examples: str
    output: str
    seed: int
    settings: TrainSettings
    export_steps: tuple[int, ...] = ()
    chat_template: str | None = None
    tool_template: str | None = None
    until: int | None = None
    carried: str | None = None
    keeps_optimizer: bool = False
    first: int = 0
    schedule_steps: int | None = None
    frozen: ModelSource | None = None
    objective: ObjectiveSettings = CROSS_ENTROPY
    stop_ids: tuple[int, ...] = ()

    @property
    def steps(self) -> int:
        """The number of optimizer steps done at the end of this attempt."""
        s = self.settings
        total = count_steps(count_groups(Place(self.examples)), s.batch_size, s.epochs, s.steps)
        return min(self.until or total, total)

    @property
    def failure(self) -> str:
        """Why the last attempt failed. Empty if it did not."""
        try:
            return str(json.loads((Place(self.output) / FAILED).read_text())["reason"])
        except FileNotFoundError:
            return ""

    def forget_failure(self) -> None:
        """Remove the failure of the last attempt, so that the next one starts."""
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
    """The name of the file that marks a job as trained and exported up to a step."""
    return f"PAUSED-{step}.json"
