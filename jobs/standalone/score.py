"""Scoring the user's own answers under the user's own student, in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.rendering import Renderer
from jobs.files.answers import Row
from jobs.files.layouts import in_order, read_teacher_files, write_scores
from jobs.run.progress import Terminal
from jobs.stages.score import score_rows, shards_of
from jobs.standalone.device import device_of
from selection.costs import CostSettings
from selection.scoring import Scorer

SHARD = 256


@dataclass(frozen=True)
class ScoreOptions:
    """The options of `tutelage score`."""

    student: str
    answers: Path
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


def score_files(options: ScoreOptions) -> None:
    """Score every answer, write the scores beside their rows, and say how many of each state there are.

    Raises:
        BadInput: an option out of its range, a defect of a file.
    """
    check_options(options)
    terminal = Terminal()
    on_broken = terminal.say if options.skip_broken_lines else None
    found = read_teacher_files(options.answers, on_broken, options.limit)
    renderer, scorer = load_scorer(options)
    for line in scorer.proof.lines.values():
        terminal.say(line)
    scores = score_in_shards(in_order(found), renderer, scorer, options.max_length, terminal)
    sources = {item.answer_id: source for own in found.values() for item, source in own}
    paths = write_scores(scores, sources, CostSettings("scas", options.scas_lambda), options.out)
    states = ", ".join(f"{n:,} {s}" for s, n in scores["state"].value_counts().items())
    terminal.say(f"{states}; wrote {', '.join(str(p) for p in paths)}")


def check_options(options: ScoreOptions) -> None:
    """Refuse what no student is loaded for."""
    compat, dtype, scas_lambda = options.compat, options.dtype, options.scas_lambda
    if compat not in ("ours", "reference") or dtype not in ("float32", "bfloat16", "float16"):
        raise BadInput(
            "--compat or --dtype", f"{compat}, {dtype}", "ours or reference; float32, bfloat16 or float16", ""
        )
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
    """The statistics of all rows, with a bar that advances shard by shard."""
    tables = []
    with terminal.bar("score", len(rows), "answers") as bar:
        for _, chunk in shards_of(rows, SHARD):
            tables.append(score_rows(chunk, renderer, scorer, max_length))
            bar.advance(len(chunk))
    return pd.concat(tables, ignore_index=True)
