"""Scoring the user's own answers under the user's own student: in this process, or on a Ray cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.rendering import Renderer
from cluster.pool import SHARD_DEADLINE_S
from cluster.session import RaySettings
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Score
from jobs.experiment.students import Student
from jobs.files.answers import Row
from jobs.files.layouts import read_teacher_files, write_scores
from jobs.run.host import RayHost
from jobs.run.progress import Terminal
from jobs.run.run import Run, log_file
from jobs.run.store import Store
from jobs.stages.score import score_rows_under, shards_of
from jobs.stages.scorer import score_rows
from jobs.stages.states import check_student, first_state
from jobs.standalone.device import device_of
from selection.costs import CostSettings
from selection.scoring import Scorer

SHARD = 256


@dataclass(frozen=True)
class ScoreOptions:
    """The options of `tutelage score`."""

    student: str
    answers: str
    out: Path
    scas_lambda: float
    compat: str
    target_layer: str | None
    chat_template: str | None
    dtype: str
    device: str
    max_length: int
    limit: int | None
    skip_broken_lines: bool
    address: str | None = None
    store: str = "store"
    workers: int = 1
    num_gpus: float = 0.0


def score_files(options: ScoreOptions) -> None:
    """Score every answer, write the scores beside their rows, and say how many of each state there are.

    Raises:
        BadInput: an option out of its range, a defect of a file.
    """
    check_options(options)
    terminal = Terminal()
    on_broken = terminal.say if options.skip_broken_lines else None
    found = read_teacher_files(options.answers, on_broken, options.limit)
    for line in [str(found), *found.notes]:
        terminal.say(line)
    if not found.rows:
        raise BadInput("no answer there that can be scored", options.answers, "at least one", "")
    score = score_here if options.address is None else score_on_cluster
    scores = score(options, found.in_order(), terminal)
    paths = write_scores(scores, found, CostSettings("scas", options.scas_lambda), options.out)
    states = ", ".join(f"{n:,} {s}" for s, n in scores["state"].value_counts().items())
    terminal.say(f"{states}; wrote {', '.join(str(p) for p in paths)}")


def score_here(options: ScoreOptions, rows: Sequence[Row], terminal: Terminal) -> pd.DataFrame:
    """The statistics of all rows, made in this process."""
    renderer, scorer = load_scorer(options)
    for line in scorer.proof.lines.values():
        terminal.say(line)
    return score_in_shards(rows, renderer, scorer, options.max_length, terminal)


def score_on_cluster(options: ScoreOptions, rows: Sequence[Row], terminal: Terminal) -> pd.DataFrame:
    """The statistics of all rows, made by actors at an address, but for what the store has already."""
    kid = Student(
        name=Path(options.student).name,
        path=options.student,
        dtype=options.dtype,  # type: ignore[arg-type]
        chat_template=options.chat_template,
    )
    settings = Score(target_layer=options.target_layer, max_length=options.max_length)
    placement = Placement(score_workers=options.workers, num_gpus=options.num_gpus)
    directory = Place(str(options.out))
    host = RayHost(
        RaySettings(address=options.address), log_file(directory, "score"), SHARD_DEADLINE_S, terminal.say
    )
    with Run(Store(options.store), directory, terminal, host) as run:
        student = first_state(kid)
        check_student(student, settings.target_layer)
        return score_rows_under(run, student, rows, settings, placement).read()


def check_options(options: ScoreOptions) -> None:
    """Refuse what no student is loaded for."""
    compat, dtype, scas_lambda = options.compat, options.dtype, options.scas_lambda
    if compat not in ("ours", "reference") or dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput(
            "--compat or --dtype", f"{compat}, {dtype}", "ours or reference; float32, bfloat16 or float16", ""
        )
    if options.address is not None and compat != "ours":
        raise BadInput("--address", f"with --compat {compat}", "--compat ours", "score in this process")
    if not 0 <= scas_lambda <= 1:
        raise BadInput("--lambda is out of range", scas_lambda, "0 to 1", "")


def load_scorer(options: ScoreOptions) -> tuple[Renderer, Scorer]:
    """The student, ready to score, and its renderer, proven."""
    where = ModelSource(options.student, options.dtype)  # type: ignore[arg-type]
    renderer = Renderer(load_tokenizer(where), options.chat_template, options.compat)  # type: ignore[arg-type]
    renderer.prove()
    model = load_model(where, device_of(options.device))
    return renderer, Scorer(model, renderer.special_ids, options.target_layer)


def score_in_shards(
    rows: Sequence[Row], renderer: Renderer, scorer: Scorer, max_length: int, terminal: Terminal
) -> pd.DataFrame:
    """The statistics of all rows, with a bar that advances as answers are finished."""
    tables = []
    with terminal.bar("score", len(rows), "answers") as bar:
        for _, chunk in shards_of(rows, SHARD):
            with bar.call(len(chunk)):
                tables.append(score_rows(chunk, renderer, scorer, max_length))
    return pd.concat(tables, ignore_index=True)
