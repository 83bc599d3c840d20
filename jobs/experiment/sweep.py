"""What `tutelage sweep` tries: the keys it varies, their values, and which trials go on."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from jobs.experiment.section import Section


class Draw(Section):
    """A random value of one swept key: exactly one of these."""

    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    randint: tuple[int, int] | None = None
    choice: tuple[Any, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_one(self) -> "Draw":
        given = {k: v for k, v in self.model_dump().items() if v is not None}
        if len(given) != 1:
            raise ValueError("a random value needs exactly one of uniform, loguniform, randint, choice")
        low, high = next(iter(given.values())) if self.choice is None else (0, 1)
        if low >= high or (self.loguniform is not None and low <= 0):
            raise ValueError("a range needs low < high, and low above 0 for loguniform")
        return self


class Sweep(Section):
    """What `tutelage sweep` tries. A list of values is tried whole (a grid); a random value is drawn
    `samples` times.

    Keys are those of the experiment (`train.learning_rate`), and `arm.lambda`, `arm.threshold_quantile` … of
    the swept arm, or `arm` for all of it. The other arms run once as references. Every setting is trained
    with `seeds` training seeds, by default as many as the experiment has.
    """

    parameters: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)] | Draw] = Field(min_length=1)
    arm: str | None = None
    samples: int = Field(8, ge=1)
    seeds: int = Field(1, ge=1)
    report_every: Literal["round", "epoch"] = "round"
    stop_early: bool = False
    reduction_factor: float = Field(3.0, gt=1)
    grace: int = Field(1, ge=1)
    choose_share: float = Field(0.5, gt=0, lt=1)
    max_concurrent: int | None = Field(None, ge=1)
    max_failures: int = Field(1, ge=0)
