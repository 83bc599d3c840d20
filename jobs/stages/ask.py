"""Asking models for answers: models that this cluster hosts (`hosted`), teachers and students alike, and
endpoints (`endpoint`).

Answers belong to the model that gave them, under its sampling settings. A run asks only for answers that do
not exist yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cluster.errors import Unrenderable
from cluster.models.messages import Prompt
from cluster.models.rendering import Renderer
from cluster.placement import Needs, Node
from jobs.experiment.teachers import EndpointTeacher
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.tables import Owner, Request, SlicedRequest, Table, Wanted, unusual
from jobs.run.views import View
from jobs.stages.answers import ANSWER_COLUMNS, COUNTED, VERSION, Ask, count_answers, within
from jobs.stages.completion import estimated_prompt
from jobs.stages.endpoint import EndpointAsker
from jobs.stages.hosted import Draw, ModelAsker
from jobs.stages.journal import forget_journalled
from jobs.stages.secret import Secret, read_key
from jobs.stages.served import ServedAsker, weights_of
from jobs.stages.states import ModelState


@dataclass(frozen=True)
class Hosted:
    """A model that this cluster hosts.

    Attributes:
        replicas, needs: how many actors hold it, and what each needs. If the state has a server, that says
            so instead.
        is_student: whether the answers count as the student's own. Then an engine is compared first.
    """

    state: ModelState
    replicas: int
    needs: Needs
    is_student: bool = True

    @property
    def actors(self) -> tuple[int, Needs]:
        """How many actors answer, and what each needs."""
        server = self.state.server
        if server is None:
            return self.replicas, self.needs
        return server.replicas, server.needs_for(weights_of(self.state, server).path)

    def handler(self, draw: Draw) -> "partial[Any]":
        """What answers, in an actor."""
        if self.state.server is None:
            return partial(ModelAsker, self.state, draw, self.needs.num_gpus)
        return partial(ServedAsker, self.state, draw, self.is_student)


# of an endpoint: while a call of one shard is slow, calls of the next shards are made
SHARDS_AT_ONCE = 8

Asked = Hosted | EndpointTeacher


def owner_of(asked: Asked, draw: Draw) -> Owner:
    """The owner of these answers. A hosted model is identified by its weights: its name, its place and its
    replicas do not count. An endpoint's weights cannot be read. It is identified by its name in the
    experiment, its model, its revision and special settings.
    """
    drawn = draw.identity()
    if isinstance(asked, Hosted):
        state = asked.state
        about = {"name": state.name, **state.about, **state.engine, **drawn}
        return Owner("answers", VERSION, {"model": state.id, **state.engine, **drawn}, about)
    named: dict[str, Any] = {"endpoint": asked.name, "model": asked.model, "revision": asked.revision}
    told = {"extra_body": asked.extra_body, "limit_name": asked.limit_name}
    named |= unusual(told, {"extra_body": {}, "limit_name": "max_tokens"})
    about = {"name": asked.name, **named, **drawn}
    return Owner("answers", VERSION, {**named, **drawn}, about)


@dataclass(frozen=True)
class Wave:
    """The questions to one model, and how they are asked."""

    asked: Asked
    draw: Draw
    request: Request | SlicedRequest
    retry: int = 0

    @property
    def wanted(self) -> Wanted:
        return within(self.draw.limit, self.retry)

    def view(self, run: Run) -> View:
        return run.view(owner_of(self.asked, self.draw), self.request, self.wanted)


def ask(run: Run, kind: str, waves: Mapping[str, Wave], shard_size: int) -> dict[str, View]:
    """Ask the missing questions of these waves. All models are asked at once if the cluster has room.
    Otherwise the rest follow.

    Args:
        kind: the work as users see it, such as generate, judge or `roll out`.
    """
    views = {label: wave.view(run) for label, wave in waves.items()}
    for label, view in views.items():
        run.note(kind, label, view)  # what was spent before counts against the budget
    wants = [_want(run, kind, label, wave, views[label], shard_size) for label, wave in waves.items()]
    make_rows(run, wants, "answers")
    return views


def _want(run: Run, kind: str, label: str, wave: Wave, view: View, shard_size: int) -> Want:
    asked, draw = wave.asked, wave.draw
    if isinstance(asked, Hosted):
        handler: Any = asked.handler(draw)
        (workers, needs), have = asked.actors, run.host.room
        fits = "" if have is None or needs.fits_on(Node(have)) else "  DOES NOT FIT this machine"
        place = f"{workers} × ({needs}){fits}"
    else:
        is_asked = run.mode == "make" and not view.is_finished
        keys = asked_so_far(run, view.table) if is_asked else frozenset()
        key = read_key(asked) if is_asked else Secret("")
        handler = partial(EndpointAsker, asked, draw, view.table, keys, key)
        workers, needs = 1, Needs(0.0, at_once=SHARDS_AT_ONCE)
        place = f"{asked.base_url}, {asked.concurrency} calls at once"
    return Want(
        kind,
        label,
        view,
        handler,
        shard_size,
        workers,
        needs,
        ANSWER_COLUMNS,
        count_answers,
        isinstance(asked, Hosted),
        partial(left_to_ask, asked, draw.limit),
        place,
        (lambda: None) if isinstance(asked, Hosted) else partial(forget_journalled, view.table),
        COUNTED,
    )


def asked_so_far(run: Run, table: Table) -> frozenset[bytes]:
    """The keys of everything that this run asked a table's owner."""
    views = [v for v in run.stages.values() if isinstance(v, View) and v.table == table]
    return frozenset(key for view in views for key in view.every_key())


def ask_again(run: Run, label: str, wave: Wave, shard_size: int, kind: str = "generate") -> View:
    """The view of a wave after failed calls were repeated. Only calls to endpoints and engines are repeated:
    as often as in earlier runs, and once more with `--retry-failed`.
    """
    view, is_told = wave.view(run), run.retry_failed
    is_called = isinstance(wave.asked, EndpointTeacher) or wave.asked.state.server is not None
    for number in range(1, 100) if is_called and view.is_finished else ():
        again = replace(wave, retry=number)
        if not view.manifest()["counts"]["failed"]:
            break
        if not again.view(run).is_finished:
            if not is_told:
                break
            is_told = False  # one more try per run
        view = ask(run, kind, {f"{label} retry {number}": again}, shard_size)[f"{label} retry {number}"]
        if not view.is_finished:
            break
    return view


@dataclass(frozen=True)
class Left:
    """What is still to be asked of one teacher: prompt tokens (exact for a local model), and the most tokens
    and USD that its answers can take.
    """

    asks: int
    prompt_tokens: int
    most_tokens: int
    most_usd: float | None

    def __str__(self) -> str:
        about = "" if self.most_usd is None else "about "
        usd = "" if self.most_usd is None else f", at most {self.most_usd:,.2f} USD"
        return (
            f"{self.asks:,} answers, {about}{self.prompt_tokens:,} prompt tokens, at most "
            f"{self.most_tokens:,} answer tokens{usd}"
        )

    def __add__(self, other: "Left") -> "Left":
        """Add what is left of two teachers."""
        usd = [u for u in (self.most_usd, other.most_usd) if u is not None]
        return Left(
            self.asks + other.asks,
            self.prompt_tokens + other.prompt_tokens,
            self.most_tokens + other.most_tokens,
            sum(usd) if usd else None,
        )


def left_to_ask(asked: Asked, limit: int, asks: Sequence[Ask]) -> Left:
    """The tokens and USD that these asks would take."""
    most = len(asks) * limit
    if isinstance(asked, EndpointTeacher):
        prompt = sum(estimated_prompt(a.prompt) for a in asks)
        usd = (prompt * asked.usd_per_million_input_tokens + most * asked.usd_per_million_output_tokens) / 1e6
        return Left(len(asks), prompt, most, usd)
    renderer = asked.state.renderer()
    return Left(len(asks), sum(prompt_tokens(renderer, a.prompt) for a in asks), most, None)


def prompt_tokens(renderer: Renderer, prompt: Prompt) -> int:
    """The number of tokens of a prompt. 0 if it cannot be rendered, because it will not be asked then."""
    try:
        return len(renderer.prompt(prompt))
    except Unrenderable:
        return 0
