"""The world of authors: examples of new problems and of solutions, and a small build."""

import json
import random
from pathlib import Path

import pytest

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.parsing import load_experiment
from jobs.experiment.placement import Placement
from jobs.miniature.pretrained import recipe
from jobs.miniature.pretrained.authors import WRITE, lines, request, write_authored
from jobs.miniature.pretrained.manners import MANNERS, SYSTEMS
from jobs.miniature.pretrained.problems import draw_problems, solve
from jobs.miniature.pretrained.world import Base
from jobs.miniature.world import build_world, models_of
from jobs.run.progress import Terminal
from jobs.run.run import Run
from jobs.run.store import Store
from tests.in_process import InProcess
from training.data import Examples


def test_a_request_shows_other_problems_of_as_many_steps() -> None:
    problems = draw_problems(30, 0, "train")
    for problem in problems:
        _, *shown = request(problem, problems, random.Random(1)).splitlines()
        assert len(shown) == 2
        assert problem.question not in shown
        alike = {p.question for p in problems if len(p.steps) == len(problem.steps)}
        assert set(shown) <= alike


def test_the_experiment_asks_as_the_author_was_taught() -> None:
    e = load_experiment(Path("experiments/arte_pretrained.yaml"), [])
    assert e.elicit is not None
    problems = draw_problems(30, 0, "train")
    (problem,) = (p for p in problems[2:3])
    asked = request(problem, problems, random.Random(1))
    first, *shown = asked.splitlines()
    filled = e.elicit.prompt.format(
        description=e.elicit.tasks["three steps"],
        examples="\n".join(e.elicit.example.format(question=s) for s in shown),
        count=1,
    )
    assert filled == asked
    assert first == WRITE.splitlines()[0].format(steps="three steps")
    assert set(e.elicit.styles.values()) <= set(SYSTEMS.values())
    assert e.elicit.truth == f"{solve.__module__}:{solve.__name__}"


def test_an_author_learns_to_write_and_to_solve(tiny_model: Path, tmp_path: Path) -> None:
    """Every example is a new problem or a solution in the manner that its system text names, if it names
    one.
    """
    author, schooled = lines()
    settings = Miniature(world="authors", train_questions=8, evaluate_questions=8, scale=0.2)
    tokenizer = load_tokenizer(ModelSource(str(tiny_model)))
    texts = {}
    for k, line in enumerate((author, schooled)):
        place = Place(str(tmp_path / f"{line.name}.arrow"))
        write_authored(place, line, settings, Base(Place(str(tiny_model)), place), frozenset(), k)
        texts[line.name] = [tokenizer.decode(e.ids) for e in Examples(place)]
    named = {manner: [t for t in texts["author"] if system in t] for manner, system in SYSTEMS.items()}
    asks = [t for t in texts["author"] if "Write a new word problem" in t]
    assert len(texts["author"]) == recipe.BATCH * 24
    assert all(named.values())
    assert 0.1 < len(asks) / len(texts["author"]) < 0.4
    assert all("Answer: " in t for manner in ("equations", "listed") for t in named[manner])
    assert not any(system in t for t in texts["schooled"] for system in SYSTEMS.values())
    assert all("The answer is" in t for t in texts["schooled"])


@pytest.mark.long
def test_a_small_world_is_built_once(stand_in: list[str], tmp_path: Path) -> None:
    """With an untrained model in place of the pretrained one."""
    settings = Miniature(world="authors", train_questions=8, evaluate_questions=8, scale=0.03)
    for _ in range(2):
        with Run(
            Store(str(tmp_path / "store")), Place(str(tmp_path / "run")), Terminal(), InProcess()
        ) as run:
            place = build_world(run, settings, Placement())
    assert stand_in == ["smollm2-135m"]
    found = models_of(place)
    assert set(found["teacher"]) == {"author"}
    assert "smol" in found["student"]
    assert all((place / path / "config.json").is_file() for kind in found.values() for path in kind.values())
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    assert {f"in {manner}" for manner in MANNERS} <= set(rows[0])
