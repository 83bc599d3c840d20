"""Settings of learning from pairs of texts, of which one is preferred. Torch is not imported, because
experiment files are checked with them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cluster.errors import BadInput

if TYPE_CHECKING:
    from training.objectives.objective import Objective

REFERENCE = "reference"  # the array of the tokens' log-probabilities under the model as it was


@dataclass(frozen=True)
class PreferenceSettings:
    """Direct preference optimization (DPO, arXiv 2305.18290). All but `beta` are off in the published method.

    Attributes:
        beta: how much a log-probability counts. A larger one keeps the model nearer to what it was.
        label_smoothing: the assumed share of pairs whose preference is the wrong way round (cDPO). Below 0.5.
        per_token: divide each text's log-probability by its number of tokens.
        likelihood: the weight of the chosen text's mean loss, added to a pair's loss (RPO).
    """

    name: ClassVar[str] = "preference"

    beta: float = 0.1
    label_smoothing: float = 0.0
    per_token: bool = False
    likelihood: float = 0.0

    def make(self) -> "Objective":
        """The objective."""
        from training.objectives.preference import preference

        return preference(self)


def check_preference(s: PreferenceSettings) -> None:
    """Refuse numbers out of range.

    Raises:
        BadInput: names the setting.
    """
    for name, value, low, high in (
        ("beta", s.beta, 0.0, float("inf")),
        ("label_smoothing", s.label_smoothing, 0.0, 0.5),
        ("likelihood", s.likelihood, 0.0, float("inf")),
    ):
        if not low <= value < high or (name == "beta" and value == 0):
            raise BadInput(f"{name} is out of range", value, f"{low:g} to below {high:g}", "")
