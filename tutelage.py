"""Which teacher's answer should this student learn from? The front door for Python.

    score(student, questions, answers)   what each answer would cost the student to learn, as a DataFrame
    rank(student, questions, answers)    which teacher's answers cost it least, and how sure that is
    choose(costs, rule="groups")         which answers to train on
    verify(answers, references)          which answers are right
    audit(student, questions, answers)   whether the costs rank answers as their gradient norms do
    run(experiment)                      a whole experiment, with training and evaluation; starts Ray
    read_results(run)                    what a finished run came to

All but `run` work in memory, in this process, without Ray and DeepSpeed. Failures that you can mend are
`TutelageError`. Nothing is imported before it is used. Threads of torch are told to sleep while they wait
(`OMP_WAIT_POLICY`), unless you have set how they wait or imported torch before.
"""

import sys
import warnings
from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import Any

# Python searches the current folder first in a notebook: our packages are taken by their place.
_claim = run_path(str(Path(__file__).resolve().parent / "cluster" / "own_packages.py"))["claim_packages"]
for _line in _claim():
    warnings.warn(_line, stacklevel=2)

# where each name is defined; its type stands in tutelage.pyi
_PLACES = {
    "score": "jobs.standalone.score",
    "rank": "jobs.standalone.rank",
    "choose": "jobs.standalone.select",
    "verify": "jobs.standalone.verify",
    "audit": "jobs.standalone.audit",
    "run": "jobs.doors.python",
    "read_results": "jobs.doors.python",
    "RunResults": "jobs.doors.python",
    "BadInput": "cluster.errors",
    "TutelageError": "cluster.errors",
    "__version__": "jobs",
}
__all__ = [name for name in _PLACES if name != "__version__"]


def __getattr__(name: str) -> Any:
    """What is imported when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    import_module("cluster.threads").wait_asleep()  # before torch comes, which reads how threads wait
    found = getattr(import_module(_PLACES[name]), name)
    setattr(sys.modules[__name__], name, found)
    return found


def __dir__() -> list[str]:
    return sorted([*_PLACES, "__doc__", "__file__", "__name__"])
