"""Settings of learning from paths of decisions. Torch is not imported, because experiment files are checked
with them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cluster.errors import BadInput

if TYPE_CHECKING:
    from training.objectives.objective import Objective

PATH = "path"  # the array that says what each token of a rollout is, one row of PATH_COLUMNS a token
# The reward of the decision. Its part (PARTS). 1 if the student called for help. 1 if it might have called.
# 1 if the rollout is the student's own.
PATH_COLUMNS = ("reward", "part", "is_call", "may_call", "is_own")
# NOT_DECIDED: another model wrote the token. DECISION: the student's. STATE_ONLY: the last decision of a
# rollout that was cut. Only the state before it is used: its value stands for what would follow.
NOT_DECIDED, DECISION, STATE_ONLY = 0, 1, 2

ValueKind = Literal["head", "logits", "zero"]


@dataclass(frozen=True)
class PathSettings:
    """Path consistency learning (Nachum et al., arXiv 1702.08892), of a language model whose rewards are
    another model's log-probabilities.

    Attributes:
        alpha: the temperature of the entropy. At 1 the best policy without help is the other model's own.
        gamma: the discount of later rewards.
        lengths: of the sub-paths, in decisions. 0 means to the end of the path.
        value: what says how much a state is worth. `head` is a separate linear function of the last hidden
            state, `logits` the log-sum-exp of the student's own logits, `zero` nothing.
        slow: how much of the value head's moving average stays in each step. Values at the ends of sub-paths
            come from that average.
        value_rate: how many times as fast as the model the value head learns.
        clip: the largest residual that is learned from in full. Larger ones have the gradient of this one.
        consistency: the weight of the paths' residuals.
        cloning: the weight of cross-entropy on the decisions of paths that are not the student's own.
        cloning_steps: the number of steps in which `cloning` goes down to 0. 0 means it stays.
        help_id: the token that calls for help. None if there is none.
    """

    name: ClassVar[str] = "path_consistency"

    alpha: float = 1.0
    gamma: float = 1.0
    lengths: tuple[int, ...] = (1, 4)
    value: ValueKind = "head"
    slow: float = 0.995
    value_rate: float = 100.0
    clip: float = 20.0
    consistency: float = 1.0
    cloning: float = 0.0
    cloning_steps: int = 0
    help_id: int | None = None

    def make(self) -> "Objective":
        """The objective."""
        from training.objectives.path_consistency import path_consistency

        return path_consistency(self)

    def cloning_at(self, step: int) -> float:
        """The weight of cloning in a step.

        >>> PathSettings(cloning=1.0, cloning_steps=4).cloning_at(3)
        0.25
        """
        if self.cloning_steps == 0:
            return self.cloning
        return self.cloning * max(0.0, 1 - step / self.cloning_steps)


def check_paths(s: PathSettings) -> None:
    """Refuse numbers out of range.

    Raises:
        BadInput: names the setting.
    """
    for name, value, fits, wanted in (
        ("alpha", s.alpha, 0 < s.alpha < float("inf"), "above 0"),
        ("gamma", s.gamma, 0 < s.gamma <= 1, "above 0 and at most 1"),
        ("lengths", s.lengths, bool(s.lengths) and min(s.lengths) >= 0, "numbers from 0; 0 is to the end"),
        ("slow", s.slow, 0 <= s.slow < 1, "0 to below 1"),
        ("value_rate", s.value_rate, 0 < s.value_rate < float("inf"), "above 0"),
        ("clip", s.clip, s.clip > 0, "above 0"),
        ("consistency", s.consistency, s.consistency >= 0, "0 or more"),
        ("cloning", s.cloning, s.cloning >= 0, "0 or more"),
        ("cloning_steps", s.cloning_steps, s.cloning_steps >= 0, "0 or more"),
    ):
        if not fits:
            raise BadInput(f"{name} is out of range", value, wanted, "")
    if s.consistency == 0 and s.cloning == 0:
        raise BadInput("nothing is learned from paths", "consistency 0 and cloning 0", "one above 0", "")
