"""Routing, for arms of kind `route`: the algorithm, its own stages, and its parts of plans and reports."""

from jobs.systems.record import System
from jobs.systems.route.algorithm import teach
from jobs.systems.route.bound import bound, check
from jobs.systems.route.sections import sections

SYSTEM = System(teach, bound, takes_pool=False, check=check, sections=sections)
