"""Which trials continue: all of them, or those that ASHA lets continue and every reference."""

import math
from collections.abc import Sequence
from typing import Any

from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Sweep


def scheduler_of(sweep: Sweep, experiments: Sequence[Experiment]) -> Any:
    """The Tune scheduler. It lets all trials continue, or with `stop_early` those that ASHA chooses."""
    from ray.tune.schedulers import FIFOScheduler

    if not sweep.stop_early:
        return FIFOScheduler()
    by_epoch = sweep.report_every == "epoch"
    most = max(
        x.rounds * (math.ceil(x.train.epochs) if by_epoch and x.train.steps is None else 1)
        for x in experiments
    )
    return _sparing_references(
        max_t=most, grace_period=min(sweep.grace, most), reduction_factor=sweep.reduction_factor
    )


def _sparing_references(**options: Any) -> Any:
    """An ASHA scheduler that lets the reference arms finish, because the settings are compared with them."""
    from ray.tune.schedulers import ASHAScheduler

    class SparingReferences(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            wanted = super().on_trial_result(tune_controller, trial, result)
            is_reference = trial.config["trial"]["values"] == "[]"
            return self.CONTINUE if is_reference else wanted

    return SparingReferences(**options)
