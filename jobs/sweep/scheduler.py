"""Which trials go on: all of them, or those that ASHA lets, and every reference."""

import math
from collections.abc import Sequence
from typing import Any

from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Sweep


def scheduler_of(sweep: Sweep, experiments: Sequence[Experiment]) -> Any:
    """Who decides which trials go on: all of them, or with `stop_early` those that ASHA lets."""
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
    """ASHA that lets the reference arms run to their end: the settings are compared with them."""
    from ray.tune.schedulers import ASHAScheduler

    class SparingReferences(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            wanted = super().on_trial_result(tune_controller, trial, result)
            is_reference = trial.config["trial"]["values"] == "[]"
            return self.CONTINUE if is_reference else wanted

    return SparingReferences(**options)
