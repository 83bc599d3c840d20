"""Long work says how far it has come, within a shard too: in this process, from workers, and in a log."""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from cluster.metrics import Tally
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.messages import plain
from cluster.models.rendering import Renderer
from cluster.models.sampling import Sampling, sample
from cluster.placement import Needs
from cluster.progress import listening, tell
from cluster.storage import Place
from jobs.files.answers import Row
from jobs.miniature.tasks import draw_episodes
from jobs.run import progress, under_way
from jobs.run.progress import Terminal
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.store import Store
from jobs.run.tables import Owner, Request
from jobs.run.under_way import Note, noted_in
from jobs.standalone.score import score_in_shards
from selection.gradients import Gradients
from selection.scoring import Scorer
from tests.in_process import InProcess
from tests.patience import wait_until

COLUMNS = ["value"]


def a_log(**options: object) -> tuple[Terminal, io.StringIO]:
    """A terminal that is none, and what it said."""
    said = io.StringIO()
    return Terminal(Console(file=said, width=200, **options)), said  # type: ignore[arg-type]


def test_the_rate_of_resumed_work_does_not_count_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    terminal, said = a_log()
    with terminal.bar("train", 0, "steps", before=64) as bar:
        bar.set(64, 120)
        now[0] = 20.0
        bar.set(60, 120)  # its last checkpoint
        now[0] = 40.0
        bar.set(62, 120)
    assert said.getvalue().splitlines() == [
        "train: 60 of 120 steps, 0 steps/s",
        "train: 62 of 120 steps, 0.05 steps/s, 1,160 s left",
        "train: 2 steps in 40.0 s",
    ]


def test_a_log_has_a_line_soon_with_rate_and_estimate_and_never_a_thousand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    hours = 10
    terminal, said = a_log()
    first = None
    with terminal.bar("score", 3600 * hours, "answers") as bar:
        for _ in range(3600 * hours):
            now[0] += 1
            bar.advance()
            first = first or (now[0] if said.getvalue() else None)
    *lines, last = said.getvalue().splitlines()
    assert first == 10.0
    assert lines[0] == "score: 10 of 36,000 answers, 1.0 answers/s, 35,990 s left"
    assert 20 < len(lines) < 200
    assert last == "score: 36,000 answers in 36,000.0 s"


@pytest.fixture
def at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and notes as often as there is something to say."""
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(progress, "LONGER", 0.0)
    monkeypatch.setattr(under_way, "NOTE_EVERY_S", 0.0)
    monkeypatch.setattr(under_way, "LOOK_EVERY_S", 0.01)


@pytest.fixture(scope="module")
def student(tiny_model: Path) -> tuple[Renderer, Scorer]:
    source = ModelSource(str(tiny_model))
    renderer = Renderer(load_tokenizer(source))
    return renderer, Scorer(load_model(source), renderer.special_ids, token_budget=64)


@pytest.mark.usefixtures("at_every_step")
@pytest.mark.parametrize("is_terminal", [False, True])
def test_scoring_advances_within_a_shard(student: tuple[Renderer, Scorer], is_terminal: bool) -> None:
    renderer, scorer = student
    rows = [
        Row(f"a{k}", f"q{k}", "t", plain(e.question), e.result)
        for k, e in enumerate(draw_episodes(12, seed=3))
    ]
    terminal, said = a_log(force_terminal=is_terminal)
    found = score_in_shards(rows, renderer, scorer, 4096, terminal)
    assert (found["state"] == "scored").all()
    if is_terminal:
        assert "answers/s" in said.getvalue()
        return
    counts = [line.split()[1] for line in said.getvalue().splitlines()]
    assert len(counts) > 4
    assert counts[-2:] == ["12", "12"]
    assert 0 < int(counts[0]) < 12


def test_whatever_works_through_rows_tells_shares_that_add_up_to_all(
    student: tuple[Renderer, Scorer],
) -> None:
    renderer, scorer = student
    prompts = [list(range(5, 5 + n)) for n in (3, 9, 4, 7)]
    heard: list[float] = []
    with listening(heard.append):
        sample(scorer.model, prompts, Sampling(4, frozenset(), token_budget=16))
    assert len(heard) > 1
    assert sum(heard) == pytest.approx(1)
    heard.clear()
    gradients = Gradients(scorer.model, renderer.special_ids)
    conversations = [renderer.conversation(e.question, e.result) for e in draw_episodes(2, seed=3)]
    with listening(heard.append):
        assert not any(isinstance(found, Exception) for found in gradients.score(conversations))
    assert heard == [0.5, 0.5]


class Slow:
    """A handler that tells of three quarters of its rows, and does not go on before that has been said."""

    def __init__(self, said: io.StringIO) -> None:
        self.said = said
        self.fallbacks: dict[str, str] = {}

    def compute(self, items: Sequence[int]) -> pd.DataFrame:
        if len(items) == 8:
            for _ in range(3):
                tell(0.25)
            wait_until(lambda: "squares them: 6 of 8 numbers" in self.said.getvalue(), 60)
        return pd.DataFrame([(n * n,) for n in items], columns=COLUMNS)

    def give_up(self, item: int, reason: str) -> pd.DataFrame:
        raise NotImplementedError

    def tally(self, table: pd.DataFrame) -> Tally:
        return Tally(len(table))


def squares(folder: Path, numbers: int, size: int) -> str:
    """Make the squares of some numbers in shards of a size; returns what was said."""
    terminal, said = a_log()
    keys = {bytes(15) + bytes([n]): n for n in range(numbers)}
    with Run(Store(folder), Place(str(folder / "run")), terminal, InProcess()) as run:
        view = run.view(Owner("squares", 1, {}), Request(keys))
        count = lambda table: {"rows": len(table)}  # noqa: E731
        handler = partial(Slow, said)
        want = Want("squares", "them", view, handler, size, 1, Needs(), COLUMNS, count)
        make_rows(run, [want], "numbers")
        assert view.read()["value"].tolist() == [n * n for n in range(numbers)]
        return said.getvalue()


@pytest.mark.usefixtures("at_every_step")
def test_a_run_shows_what_its_workers_have_done_within_a_shard(tmp_path: Path) -> None:
    """The handler waits until its own progress has been shown."""
    said = squares(tmp_path, 8, 8)
    counts = [int(line.split()[2]) for line in said.splitlines() if line.startswith("squares them: ")]
    assert 6 in counts
    assert counts[-1] == 8
    assert not list(tmp_path.rglob(f"*{under_way.NOTE}"))


def test_a_note_that_a_killed_worker_left_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_way, "NOTE_EVERY_S", 0.0)
    squares(tmp_path, 4, 4)
    (table,) = tmp_path.glob("tables/squares/*")
    for file in (*table.glob("*.parquet"), *tmp_path.rglob("view.json")):
        file.unlink()
    Note(Place(str(table)), "a part", 4).add(3)
    assert noted_in(Place(str(table))) == [(3, 4)]
    squares(tmp_path, 4, 4)
    assert noted_in(Place(str(table))) == []
