"""The settings of a sweep, which are all known before it starts, and the experiment of each setting."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.errors import BadInput, TutelageError
from jobs.experiment.parsing import parse_experiment, resolved, set_key
from jobs.experiment.schema import Experiment
from jobs.experiment.sweep import Draw, Sweep
from jobs.run.store import digest

# Where a run lives and what it runs on: the same for all settings of a sweep.
SAME_FOR_ALL = ("name", "store", "runs", "ray", "placement")
# Settings with other values of these would be judged on other questions or by another measure, and could not
# be compared.
JUDGED_BY = ("limit", "questions", "miniature", "evaluate", "verify", "judge", "students")
# A sweep sets these itself: the arms and their seeds follow from the section `sweep`.
SET_BY_SWEEP = ("sweep", "seeds", "arms")
OF_TRIAL = ("name", "arm", "seed", "values")  # the columns of a trial that are not swept keys
NOT_SWEPT = (*SAME_FOR_ALL, *JUDGED_BY, *SET_BY_SWEEP)


@dataclass(frozen=True)
class Setting:
    """One point of a sweep: an arm and the values of the swept keys. A reference arm has no values."""

    arm: str
    values: tuple[tuple[str, Any], ...] = ()

    def __hash__(self) -> int:  # a value may be a whole arm, which has none of its own
        return hash(digest([self.arm, self.values]))

    @property
    def label(self) -> str:
        return (
            " ".join(
                f"{key.removeprefix('arm.').removeprefix('train.')}={plain_value(value)}"
                for key, value in self.values
            )
            or self.arm
        )


def plain_value(value: Any) -> str:
    """A swept value as a label shows it: an arm by its name or as JSON, a float with four digits."""
    if isinstance(value, Mapping):
        return str(value.get("name") or json.dumps(value, sort_keys=True))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def swept_name(key: str) -> str:
    """A swept key as tables name it beside a trial's own arm and seed."""
    return f"swept {key}" if key in OF_TRIAL else key


def swept_arm(e: Experiment) -> str:
    """The name of the arm whose keys are swept: the first one, unless the sweep names another."""
    return sweep_of(e).arm or e.arms[0].name


def sweep_of(e: Experiment) -> Sweep:
    """The experiment's section `sweep`.

    Raises:
        BadInput: it has none.
    """
    if e.sweep is None:
        raise BadInput(
            "the experiment has no sweep section",
            "",
            "sweep: {parameters: {arm.lambda: [0, 0.5, 1]}}",
            "see docs/sweeps.md",
        )
    return e.sweep


def expand_settings(e: Experiment) -> list[Setting]:
    """The reference arms, then every distinct setting of the swept arm: the whole grid for each draw of the
    random values.

    Raises:
        BadInput: there is no section `sweep`, a key cannot be swept, or a setting is no valid experiment.
    """
    sweep = sweep_of(e)
    for key in sweep.parameters:
        if key.partition(".")[0] in NOT_SWEPT:
            raise BadInput(
                f"{key} cannot be swept",
                key,
                "arm.…, train.… or another section's key",
                "`arm.` stands for the swept arm",
            )
    arm = swept_arm(e)
    settings = [Setting(a.name) for a in e.arms if a.name != arm]
    settings += [Setting(arm, values) for values in _points(sweep, e.seed)]
    settings = list({digest([s.arm, s.values]): s for s in settings}.values())
    for setting in settings:
        experiment_of(e, setting)
    return settings


def _points(sweep: Sweep, seed: int) -> Iterator[tuple[tuple[str, Any], ...]]:
    """The swept keys with their values, one setting after another, as Tune's own generator draws them."""
    from ray.tune.search.variant_generator import generate_variants

    space = {str(number): _tune_values(values) for number, values in enumerate(sweep.parameters.values())}
    random = np.random.RandomState(seed)
    draws = sweep.samples if any(isinstance(v, Draw) for v in sweep.parameters.values()) else 1
    for _ in range(draws):
        for _, found in generate_variants(space, constant_grid_search=True, random_state=random):
            point = (found[str(k)] for k in range(len(sweep.parameters)))
            yield tuple(zip(sweep.parameters, point, strict=True))


def _tune_values(values: tuple[Any, ...] | Draw) -> Any:
    """The values of one key in the form that Tune takes: a grid, or a random draw."""
    from ray import tune

    if not isinstance(values, Draw):
        return tune.grid_search(list(values))
    ((kind, ends),) = ((k, v) for k, v in values.model_dump().items() if v is not None)
    return tune.choice(list(ends)) if kind == "choice" else getattr(tune, kind)(*ends)


def experiment_of(e: Experiment, setting: Setting) -> Experiment:
    """The experiment of one setting: its one arm, with the swept values.

    Raises:
        BadInput: the experiment is not valid. Names the setting.
    """
    tree = resolved(e)
    tree["arms"] = [arm for arm in tree["arms"] if arm["name"] == setting.arm]
    tree["evaluate"]["baseline"], tree["sweep"], tree["seeds"] = None, None, e.sweep.seeds if e.sweep else 1
    try:
        for key, value in setting.values:
            if key == "arm":
                tree["arms"][0] = {"name": setting.arm, **value} if isinstance(value, Mapping) else value
            else:
                set_key(tree, f"arms.0{key.removeprefix('arm')}" if key.startswith("arm.") else key, value)
        return parse_experiment(tree)
    except TutelageError as error:
        raise BadInput(
            f"the setting {setting.label} is no valid experiment", error, "", "change sweep.parameters"
        ) from error
