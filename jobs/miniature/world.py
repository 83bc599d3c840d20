"""The miniature worlds: small teachers and students, trained from nothing on the user's machine by the
product's own training loop. The demo runs in the quick world (`quick`), the study in the full one (`full`).
"""

import json
from dataclasses import asdict
from typing import Any

from cluster.storage import Place
from jobs.experiment.miniature import MINIATURE, Miniature
from jobs.experiment.placement import Placement
from jobs.experiment.schema import Experiment
from jobs.miniature import full, quick, reading, writing
from jobs.miniature.full import WORLD, make_full
from jobs.miniature.initial_model import HEADS, LAYERS, VOCABULARY
from jobs.miniature.making import RIGHT_SHOWN, SHOWS, Workshop, write_questions
from jobs.miniature.pretrained.authors import make_authors, recipe_of_authors
from jobs.miniature.pretrained.traces import make_agents, recipe_of_agents
from jobs.miniature.pretrained.world import bases_here, make_pretrained, recipe_of
from jobs.miniature.reading import make_reading
from jobs.miniature.recipes import Recipe
from jobs.miniature.tasks import FAMILIES, QUICK_FAMILIES, draw_episodes
from jobs.miniature.writing import make_writing
from jobs.run.run import Planned, Run
from jobs.run.store import Stage
from training.job import WEIGHTS

VERSION = 2


def resolve(experiment: Experiment, directory: Place) -> Experiment:
    """The experiment with paths of the built world in place of every `miniature:NAME`."""

    def path(text: str) -> str:
        if not text.startswith(MINIATURE):
            return text
        name = text.removeprefix(MINIATURE)
        if name in ("train", "evaluate"):
            return str(directory / f"{name}.jsonl")
        return str(directory / inside.get(name, f"{name}/{WEIGHTS}"))

    inside = {name: path for models in models_of(directory).values() for name, path in models.items()}

    questions = experiment.questions.model_copy(
        update={"train": path(experiment.questions.train), "evaluate": path(experiment.questions.evaluate)}
    )
    teachers = tuple(
        t.model_copy(update={"path": path(t.path)}) if hasattr(t, "path") else t for t in experiment.teachers
    )
    students = tuple(s.model_copy(update={"path": path(s.path)}) for s in experiment.students)
    return experiment.model_copy(update={"questions": questions, "teachers": teachers, "students": students})


def models_of(directory: Place) -> dict[str, dict[str, str]]:
    """The places of a built world's teachers' and students' weights in its directory, by name."""
    place = directory / WORLD
    if not place.is_file():
        quick_ones = {"teacher": quick.TEACHERS, "student": quick.STUDENTS}
        return {kind: {n: f"{n}/{WEIGHTS}" for n in names} for kind, names in quick_ones.items()}
    world = json.loads(place.read_text())
    kinds = {"teacher": world["teachers"], "student": world["students"]}
    return {
        kind: {m["name"]: m.get("weights") or f"{m['path']}/{WEIGHTS}" for m in own}
        for kind, own in kinds.items()
    }


def build_world(run: Run, settings: Miniature, placement: Placement) -> Place:
    """Build a world, or find it in the store. Returns its directory: `<model>/model`, `train.jsonl`,
    `evaluate.jsonl`, and in the full world `world.json`, which names its models.

    Raises:
        Unmade: in a plan, the world does not exist yet.
    """
    config = {
        "miniature": settings.model_dump(),
        "recipes": recipe_of_all(settings),
        "shape": [LAYERS, HEADS, VOCABULARY],
    }
    stage = run.store.stage("miniature", VERSION, config, {})
    run.note("miniature", "world", stage)
    if run.mode == "plan":
        left = None if stage.is_finished else f"the {settings.world} world's models"
        run.planned.append(Planned("miniature world", "", left, f"{placement.train_workers} train workers"))
        run.need("the miniature world", [stage])
    with run.claimed([stage]):
        if not stage.is_finished:
            run.terminal.say(
                f"building the {settings.world} miniature world in {stage.directory}: its models are trained "
                "once, then cached"
            )
            make = MAKERS[settings.world]
            make(run, settings, stage, placement)
    return stage.directory


def recipe_of_all(settings: Miniature) -> object:
    """Everything that a world depends on except its seed."""
    if settings.world == "quick":
        return [plain_recipe(recipe) for recipe in quick.RECIPES]
    if settings.world == "reading":
        own = [plain_line(line) for line in reading.lines()]
        return [own, reading.BANDS, reading.LANGUAGES, full.ANNEAL, full.PRACTICE, SHOWS, RIGHT_SHOWN]
    if settings.world == "writing":
        return [plain_recipe(recipe) for recipe in writing.recipes()]
    if settings.world == "pretrained":
        return recipe_of(bases_here())
    if settings.world == "agents":
        return recipe_of_agents()
    if settings.world == "authors":
        return recipe_of_authors()
    students = full.raised_lines({f"{one}-{width}": "" for one in full.LANGUAGES for width in full.WIDTHS})
    lines = [plain_line(line) for line in (*full.base_lines(), *students)]
    return [lines, list(FAMILIES), full.ANNEAL, full.STRENGTHS, full.COMPETENCES, full.LEAVES, full.PRACTICE]


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values. Rarely used settings are left out if they have their default."""
    return {
        name: value
        for name, value in asdict(recipe).items()
        if name not in ("reading", "reads", "told", "writes") or value
    }


def plain_line(line: full.Line) -> dict[str, Any]:
    """A line as plain values."""
    return asdict(line) | {"recipe": plain_recipe(line.recipe)}


def make_quick(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the quick world's questions, and train those of its models that do not exist yet."""
    held = draw_episodes(settings.train_questions + settings.evaluate_questions, settings.seed)
    write_questions(stage.directory / "train.jsonl", held[: settings.train_questions])
    write_questions(stage.directory / "evaluate.jsonl", held[settings.train_questions :])
    ids = frozenset(e.question_id for e in held)
    shop = Workshop(run, settings, stage.directory, QUICK_FAMILIES, ids)
    shop.start(quick.WIDTH)
    numbered = list(enumerate(quick.RECIPES))
    shop.train(numbered, placement)
    stage.finish([], models=len(numbered), questions=len(held))


MAKERS = {
    "quick": make_quick,
    "full": make_full,
    "reading": make_reading,
    "writing": make_writing,
    "pretrained": make_pretrained,
    "agents": make_agents,
    "authors": make_authors,
}
