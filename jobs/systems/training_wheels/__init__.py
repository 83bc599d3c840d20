"""Arms of kind `training_wheels`, after the idea of Training Wheels (arXiv 2502.17717): a student learns
when to ask its teacher for a token.
"""

from jobs.systems.record import System
from jobs.systems.training_wheels.algorithm import teach
from jobs.systems.training_wheels.bound import bound, check
from jobs.systems.training_wheels.sections import sections

SYSTEM = System(teach, bound, takes_pool=False, check=check, sections=sections)
