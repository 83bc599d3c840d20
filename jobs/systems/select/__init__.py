"""SCAS (arXiv 2605.26872) and its rivals, arms of kind `select`: the algorithm, and what it tells plans."""

from jobs.stages.measures import check_gradients
from jobs.systems.record import System
from jobs.systems.select.algorithm import teach
from jobs.systems.select.bound import bound

SYSTEM = System(teach, bound, check=check_gradients)
