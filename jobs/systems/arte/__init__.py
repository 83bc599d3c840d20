"""ARTE (arXiv 2406.19227), for arms of kind `arte`: the algorithm, its own stages, and its parts of plans and
reports."""

from jobs.systems.arte.algorithm import teach
from jobs.systems.arte.bound import bound, check
from jobs.systems.arte.sections import sections
from jobs.systems.record import System

SYSTEM = System(teach, bound, takes_pool=False, check=check, sections=sections)
