"""Scoring the user's own answers on a Ray cluster."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cluster.pool import SHARD_DEADLINE_S
from cluster.session import RaySettings
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Score
from jobs.experiment.students import Student
from jobs.files.answers import Row
from jobs.run.host import RayHost
from jobs.run.progress import Terminal
from jobs.run.run import Run, log_file
from jobs.run.store import Store
from jobs.stages.score import score_rows_under
from jobs.stages.states import check_student, first_state
from jobs.standalone.score import ScoreOptions


def score_on_cluster(options: ScoreOptions, rows: Sequence[Row], terminal: Terminal) -> pd.DataFrame:
    """The statistics of all rows, made by actors at an address, but for what the store has already."""
    kid = Student(
        name=Path(options.student).name,
        path=options.student,
        dtype=options.dtype,  # type: ignore[arg-type]
        chat_template=options.chat_template,
    )
    o = options
    settings = Score(target_layer=o.target_layer, max_length=o.max_length, cut=o.cut)
    placement = Placement(score_workers=options.workers, num_gpus=options.num_gpus)
    directory = Place(str(options.out))
    host = RayHost(
        RaySettings(address=options.address), log_file(directory, "score"), SHARD_DEADLINE_S, terminal.say
    )
    with Run(Store(options.store), directory, terminal, host) as run:
        student = first_state(kid)
        check_student(student, settings.target_layer)
        return score_rows_under(run, student, rows, settings, placement).read()
