"""How likely models find whole texts, read by the actors that hold these models."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from cluster.models.rendering import Renderer
from jobs.experiment.schema import Experiment
from jobs.experiment.stages import Score
from jobs.files.answers import Row
from jobs.run.keys import answer_key, question_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.tables import KEY, Owner, Request, unusual
from jobs.run.views import View
from jobs.stages.ask import Hosted
from jobs.stages.score import count_scores, left_to_score
from jobs.stages.scorer import TOLD, AnyScorer, ScoreHandler, names_of
from jobs.stages.states import ModelState
from jobs.stages.train import bring_back
from selection.likelihood import Likelihood, Likelihoods

VERSION = 1


class WholeText(ScoreHandler):
    """Handler in an actor: reads whole texts under a model."""

    def scorer_of(self, model: Any, renderer: Renderer) -> AnyScorer:
        return Likelihoods(model)


def owner_of(state: ModelState, settings: Score) -> Owner:
    """The owner of these rows: the weights under one rendering, in the precision of training."""
    identity = {"model": state.id, "rendering": state.rendering, "dtype": state.source.dtype}
    identity |= unusual({"max_length": settings.max_length}, {"max_length": 4096})
    return Owner("likelihoods", VERSION, identity, {"name": state.name, **state.about})


def read_texts(
    run: Run, e: Experiment, wanted: Mapping[str, tuple[Hosted, Iterable[Row]]], kind: str = "read pairs"
) -> dict[str, View]:
    """Find the log-probabilities of texts under models, in actors that hold them, in the precision of
    training.

    Args:
        kind: the work as users see it.
    """
    wants = {}
    for label, (hosted, rows) in wanted.items():
        keyed = {key_of(row): row for row in rows}
        state = replace(hosted.state, source=replace(hosted.state.source, dtype=e.train.precision))
        wants[label] = Want(
            kind,
            label,
            run.view(owner_of(state, e.score), Request(keyed)),
            partial(WholeText, state, e.score, hosted.needs.num_gpus),
            e.score.shard_size,
            hosted.replicas,
            hosted.needs,
            [*TOLD, *names_of(Likelihood)],
            count_scores,
            estimate=partial(left_to_score, state),
            place=f"{hosted.replicas} × ({hosted.needs})",
        )
    unfinished = [wanted[label][0].state for label, want in wants.items() if not want.view.is_finished]
    bring_back(run, unfinished, e.placement)
    make_rows(run, list(wants.values()), "texts")
    return {label: want.view for label, want in wants.items()}


def key_of(row: Row) -> bytes:
    return answer_key(question_key(row.prompt), row.answer, row.calls)


def logprobs_in(view: View) -> dict[bytes, float]:
    """The log-probability of each text that could be read, in nats."""
    rows = view.read()
    if rows.empty:
        return {}
    own = rows[rows["state"] == "scored"]
    return dict(zip(own[KEY], own["logprob"], strict=True))
