"""OGLS-SD (arXiv 2605.12400) and related methods, for arms of kind `ogls_sd`: the algorithm, its own stages,
and its parts of plans and reports."""

from jobs.systems.ogls_sd.algorithm import teach
from jobs.systems.ogls_sd.bound import bound
from jobs.systems.ogls_sd.sections import sections
from jobs.systems.record import System

SYSTEM = System(teach, bound, takes_pool=False, sections=sections)
