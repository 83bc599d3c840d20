"""Runs Ray's trainer in its own thread, and watches it from the calling thread.

Ray's trainer blocks silently until it is done. In the main thread it takes over Ctrl-C and does not give it
back. So it never runs there. The waiting thread handles progress, deadlines and signals, and ends the
training by ending its controller.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from cluster.errors import TutelageError
from cluster.storage import Place
from training.job import TrainJob
from training.metrics import read_metrics
from training.waiting import Start, give_back

POLL_S = 0.5  # seconds between readings of the metrics files
HELPER_STOP_S = 1.0
END_S = 10.0


class TrainingFailed(TutelageError):
    """Ray Train gave up on the queue."""


def fit(trainer: Any, start: Start, tell: Callable[[], None]) -> None:
    """Run the trainer to its end, watched.

    Args:
        tell: called twice a second.

    Raises:
        TrainingFailed: with the worker's own error.
        NotBegun: the worker group did not get to work in time.
    """
    fitting = _Fitting(trainer)
    fitting.start()
    try:
        while not fitting.ended.wait(POLL_S):
            tell()
            start.look(trainer.controller)
    finally:
        fitting.end()
    tell()
    fitting.refuse_failed()


class _Fitting(threading.Thread):
    """A trainer that fits."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(daemon=True)
        self.trainer, self.ended = trainer, threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as error:  # raised again by the waiting thread
            self.error = error
        finally:
            self.ended.set()

    def end(self) -> None:
        """End the training and its workers, if it has not ended by itself."""
        import ray

        if not self.ended.is_set() and self.trainer.controller is not None:
            with contextlib.suppress(Exception):  # Ray may be gone before it
                ray.kill(self.trainer.controller)
            self.join(END_S)
            with contextlib.suppress(Exception):
                give_back(self.trainer.controller)

    def refuse_failed(self) -> None:
        """Say why the training failed.

        Raises:
            TrainingFailed: it did.
        """
        from ray.train.v2.api.exceptions import TrainingFailedError

        if isinstance(self.error, TrainingFailedError):
            raise TrainingFailed(
                "training failed",
                _innermost(self.error),
                "",
                "see the worker logs; the next run continues from the last checkpoint",
            ) from self.error
        if self.error is not None:
            raise self.error


def progress_of(
    jobs: Sequence[TrainJob], on_progress: Callable[[int, int], None] | None
) -> Callable[[], None]:
    """A function that reports the progress of a queue, from the metrics files that rank 0 appends to. Jobs
    run one after another, so the files of finished jobs and of later ones are not read again.
    """
    if on_progress is None:
        return lambda: None
    steps = [job.steps for job in jobs]
    finished = 0

    def report() -> None:
        nonlocal finished
        under_way = 0
        while finished < len(jobs):
            under_way = len(read_metrics(Place(jobs[finished].output)))
            if under_way < steps[finished]:
                break
            finished, under_way = finished + 1, 0
        on_progress(sum(steps[:finished]) + under_way, sum(steps))

    return report


def torch_trainer() -> Any:
    """Ray's TorchTrainer without parts that cost every training seconds and are not used here. Its controller
    is an attribute.

    Ray 2.60 starts an actor that asks the dashboard whether the controller lives, and removes the workers'
    places if it does not. Without a dashboard it gets no answer, may ask another Ray of this machine, and
    made every training wait 12 s at its end. So it is left out without a dashboard; with one it gets a second
    to end. Ray also starts an actor that hands out data sets. There are none here, so it is left out too.
    """
    import ray
    from ray._private.worker import get_dashboard_url
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    unwanted = (
        (DatasetsCallback,) if get_dashboard_url() else (DatasetsCallback, PlacementGroupCleanerCallback)
    )

    class Trainer(TorchTrainer):
        controller: Any = None

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = [c for c in super()._create_default_callbacks() if not isinstance(c, unwanted)]
            for callback in callbacks:
                if isinstance(callback, PlacementGroupCleanerCallback):
                    callback._stop_timeout = HELPER_STOP_S
            return callbacks

        def _initialize_and_run_controller(self, **settings: Any) -> Any:
            self.controller = _start_controller(settings)
            ray.get(self.controller.run.remote())
            return ray.get(self.controller.get_result.remote())

    return Trainer


def _start_controller(settings: dict[str, Any]) -> Any:
    """Start Ray Train's controller on this node, as Ray's own trainer does. Ray's trainer does not give
    access to it.
    """
    import ray
    from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR as NO_WARNING
    from ray.train.v2._internal.constants import get_env_vars_to_propagate
    from ray.train.v2._internal.execution.controller import TrainController

    return (
        ray.remote(TrainController)
        .options(
            num_cpus=0,
            label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
            runtime_env={"env_vars": {NO_WARNING: "0"} | get_env_vars_to_propagate()},
        )
        .remote(**settings)
    )


def _innermost(error: BaseException) -> str:
    """The message of the worker's own exception, without Ray's wrapping."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        first = next(iter(failures.values()))
        return f"{type(first).__name__}: {str(first).strip().splitlines()[-1]}"
    return str(error).strip().splitlines()[-1]
