"""Stage generate: every teacher answers every question, as shards over hosting actors (`hosted`) or calls
(`endpoint`).

A teacher's answers are one store directory. A wave of further samples (`until_verified`) is another, for just
the questions that still lack a right answer. A file teacher's answers (`take`) go the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from cluster.errors import Unrenderable
from cluster.models.rendering import Renderer
from cluster.placement import Needs, Node
from jobs.experiment.stages import Generate
from jobs.experiment.teachers import EndpointTeacher, ModelTeacher
from jobs.run.rows import Shards, Want, make_rows
from jobs.run.run import Run
from jobs.run.store import Stage, Store, read_table
from jobs.stages.answers import ANSWER_COLUMNS, VERSION, Ask, Asks, answer_id
from jobs.stages.endpoint import EndpointAsker, Secret, read_key
from jobs.stages.hosted import ModelAsker
from jobs.stages.states import ModelState


@dataclass(frozen=True)
class Hosted:
    """A teacher that this cluster hosts: what it is, and where and how often."""

    teacher: ModelTeacher
    state: ModelState


@dataclass(frozen=True)
class Asking:
    """How answers are drawn: the sampling's settings and its seed."""

    settings: Generate
    seed: int


@dataclass(frozen=True)
class Wave:
    """One teacher's stage and the asks that make it."""

    asked: Hosted | EndpointTeacher
    asking: Asking
    stage: Stage
    asks: Asks

    @property
    def name(self) -> str:
        """The teacher's."""
        return self.asked.teacher.name if isinstance(self.asked, Hosted) else self.asked.name

    def shards(self) -> list[tuple[str, Asks]]:
        return self.asks.shards(self.asking.settings.shard_size)


def teacher_identity(asked: Hosted | EndpointTeacher) -> dict[str, Any]:
    """What of a teacher its answers depend on: never where it lives or how many replicas serve it."""
    if isinstance(asked, Hosted):
        return {"kind": "model", "name": asked.teacher.name, "model": asked.state.id}
    return {"kind": "endpoint", "name": asked.name, "model": asked.model, "base_url": asked.base_url}


def wave_of(
    store: Store, asked: Hosted | EndpointTeacher, asking: Asking, asks: Sequence[Ask], retry: int = 0
) -> Wave:
    """The stage of one teacher's asks. `shard_size` is not part of its identity's meaning but names its
    parts, so it is in it.
    """
    sampling = asking.settings.model_dump(exclude={"until_verified", "max_samples", "samples"})
    config = {
        "teacher": teacher_identity(asked),
        "sampling": sampling,
        "seed": asking.seed,
        "retry": retry,
    }
    asks = asks if isinstance(asks, Asks) else Asks(asks)
    return Wave(asked, asking, store.stage("generate", VERSION, config, {"asks": asks.id}), asks)


def ask_waves(run: Run, waves: Mapping[str, Wave]) -> None:
    """Ask what is missing of these waves, named for people: all teachers at once as far as the cluster has
    room, the rest after them.
    """
    for name, wave in waves.items():
        run.note(name, wave.stage)  # what it has cost already counts against the budget
    make_rows(run, [_want(run, name, wave) for name, wave in waves.items()], "answers")


def _want(run: Run, label: str, wave: Wave) -> Want:
    asked, how = wave.asked, wave.asking
    if isinstance(asked, Hosted):
        teacher = asked.teacher
        handler: Any = partial(ModelAsker, asked.state, how.settings, how.seed, teacher.num_gpus)
        workers, needs, is_isolated = teacher.replicas, teacher.needs, True
        have = run.host.room
        fits = "" if have is None or needs.fits_on(Node(have)) else "  DOES NOT FIT this machine"
        place = f"{workers} × ({needs}){fits}"
    else:
        is_asked = run.mode == "make" and not wave.stage.is_finished
        spent = spent_so_far(run, asked.name) if is_asked else 0.0
        key = read_key(asked) if is_asked else Secret("")
        handler = partial(EndpointAsker, asked, how.settings, how.seed, spent, key)
        workers, needs, is_isolated = 1, Needs(0.0), False
        place = f"{asked.base_url}, {asked.concurrency} calls at once"
    return Want(
        label,
        wave.stage,
        wave.shards,
        handler,
        workers,
        needs,
        ANSWER_COLUMNS,
        count_answers,
        is_isolated,
        partial(left_to_ask, asked, how.settings),
        place,
    )


def count_answers(answers: pd.DataFrame) -> dict[str, Any]:
    """What the manifest says of answers."""
    return {
        "answers": len(answers),
        "failed": int((answers["finish"] == "failed").sum()),
        "prompt_tokens": int(answers["prompt_tokens"].sum()),
        "answer_tokens": int(answers["answer_tokens"].sum()),
        "usd": float(answers["usd"].sum()),
    }


def spent_so_far(run: Run, teacher: str) -> float:
    """USD that this run's waves of a teacher have cost, finished or not: the budget covers them all."""
    directories = {
        s.directory
        for s in run.stages.values()
        if s.name == "generate" and s.config["teacher"]["name"] == teacher
    }
    parts = [p for d in sorted(directories) for p in d.glob("*.parquet")]
    return sum(float(read_table(p, columns=["usd"])["usd"].sum()) for p in parts)


def failed_asks(wave: Wave) -> list[Ask]:
    """The asks of a finished wave whose calls failed."""
    failed = wave.stage.read()
    ids = set(failed.loc[failed["finish"] == "failed", "answer_id"])
    return [a for a in wave.asks if answer_id(wave.name, a.question_id, a.sample) in ids]


def ask_again(run: Run, name: str, wave: Wave) -> list[tuple[str, Wave]]:
    """Further waves for an endpoint's failed calls, with their names: those made before, and one more if the
    run was told to retry.
    """
    made: list[tuple[str, Wave]] = []
    asked = wave.asked
    for number in range(1, 100) if isinstance(asked, EndpointTeacher) and wave.stage.is_finished else ():
        asks = failed_asks(made[-1][1] if made else wave)
        if not asks:
            break
        again = wave_of(run.store, asked, wave.asking, asks, retry=number)
        if not (again.stage.is_finished or run.retry_failed):
            break
        label = f"{name} retry {number}"
        if not again.stage.is_finished:
            run.retry_failed = False  # one more try a run
        ask_waves(run, {label: again})
        made.append((label, again))
    return made


@dataclass(frozen=True)
class Left:
    """What is still to be asked of one teacher: prompt tokens (exact for a local one), and the most its
    answers can take.
    """

    shards: int
    prompt_tokens: int
    most_tokens: int
    most_usd: float | None

    def __str__(self) -> str:
        about = "" if self.most_usd is None else "about "
        usd = "" if self.most_usd is None else f", at most {self.most_usd:,.2f} USD"
        return (
            f"{self.shards:,} shards, {about}{self.prompt_tokens:,} prompt tokens, at most "
            f"{self.most_tokens:,} answer tokens{usd}"
        )

    def __add__(self, other: "Left") -> "Left":
        """What is left of both teachers."""
        usd = [u for u in (self.most_usd, other.most_usd) if u is not None]
        return Left(
            self.shards + other.shards,
            self.prompt_tokens + other.prompt_tokens,
            self.most_tokens + other.most_tokens,
            sum(usd) if usd else None,
        )


def left_to_ask(asked: Hosted | EndpointTeacher, settings: Generate, left: Shards) -> Left:
    """What these shards of asks would take of a teacher."""
    asks = [a for _, chunk in left for a in chunk]
    most = len(asks) * settings.max_new_tokens
    if isinstance(asked, EndpointTeacher):
        prompt = sum(len(a.text) // 4 + 8 for a in asks)
        usd = (prompt * asked.usd_per_million_input_tokens + most * asked.usd_per_million_output_tokens) / 1e6
        return Left(len(left), prompt, most, usd)
    renderer = asked.state.renderer()
    return Left(len(left), sum(prompt_tokens(renderer, a.text, a.system) for a in asks), most, None)


def prompt_tokens(renderer: Renderer, text: str, system: str | None) -> int:
    """Tokens of a prompt; 0 for one that cannot be rendered and so will not be asked."""
    try:
        return len(renderer.prompt(text, system))
    except Unrenderable:
        return 0
