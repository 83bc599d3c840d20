"""SCAS (arXiv 2605.26872) and competing methods, for arms of kind `select`: the algorithm, and its part of
plans."""

from jobs.stages.measures import check_gradients
from jobs.systems.record import System
from jobs.systems.select.algorithm import teach
from jobs.systems.select.bound import bound

SYSTEM = System(teach, bound, check=check_gradients)
