"""The miniature world: small teachers and students trained here, from scratch, by the product's own training
loop.

Strength and mother tongue are crossed. Three languages, each a dialect that a model of its own learns from
nothing; each gives a strong teacher, a weak one, and a student that leaves it early and goes on with half of
its mother tongue and a quarter of each of the others. So the strongest teacher is one student's kin and a
stranger to the others. Nothing here looks at a selector's outcome; `docs/miniature.md` records what was
tried.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.miniature import MINIATURE, Miniature
from jobs.experiment.placement import Placement
from jobs.experiment.schema import Experiment
from jobs.miniature.initial_model import HEADS, LAYERS, VOCABULARY, WIDTH, make_initial_model
from jobs.miniature.tasks import Episode, draw_episodes, work_out
from jobs.run.run import Planned, Run
from jobs.run.store import Stage
from jobs.stages.train import run_queue
from training.data import SUFFIX, Example, write_examples
from training.job import TrainJob
from training.settings import TrainSettings

VERSION = 1
START = "init/model"


@dataclass(frozen=True)
class Recipe:
    """How one model of the world is made: from which export of which model, on which dialects, for how long.

    `dialects` are relative weights.
    """

    name: str
    start: str
    dialects: dict[str, float]
    steps: int
    rows: int
    learning_rate: float
    exports: tuple[int, ...] = ()

    @property
    def is_base(self) -> bool:
        """Whether it starts from nothing."""
        return self.start == START


@dataclass(frozen=True)
class Language:
    """A dialect that is somebody's mother tongue, and who speaks it.

    Attributes:
        steps: of its base; `weak_at` and `leaves_at` are where the weak teacher and the student leave it.
            Languages are learned at different speeds, and weak teachers, like students, are to be about
            equally able.
    """

    strong: str
    weak: str
    student: str
    steps: int
    weak_at: int
    leaves_at: int


LANGUAGES = {
    "equations": Language("ada", "abe", "sue", 620, 440, 300),
    "running": Language("bea", "ben", "ron", 600, 450, 405),
    "prefix": Language("eve", "eva", "pam", 480, 260, 220),
}
TEACHERS = tuple(name for own in LANGUAGES.values() for name in (own.strong, own.weak))
STUDENTS = tuple(own.student for own in LANGUAGES.values())
KINSHIP = 0.5  # the mother tongue's share of what a student meets after it has left its base


def upbringing(mother_tongue: str) -> dict[str, float]:
    """What a student meets of each language.

    >>> upbringing("running")
    {'equations': 0.25, 'running': 0.5, 'prefix': 0.25}
    """
    others = (1 - KINSHIP) / (len(LANGUAGES) - 1)
    return {language: KINSHIP if language == mother_tongue else others for language in LANGUAGES}


def recipes_of(language: str) -> tuple[Recipe, ...]:
    """A language's base, which starts from nothing, and the models that go on from it."""
    who, base, own = LANGUAGES[language], f"base-{language}", {language: 1.0}
    leaves = (who.leaves_at, who.weak_at)
    return (
        Recipe(base, START, own, who.steps, 12_000, 4e-3, exports=leaves),
        Recipe(who.strong, f"{base}/model", own, 40, 1_600, 1e-3),
        Recipe(who.weak, f"{base}/step-{who.weak_at}", own, 30, 1_600, 1e-3),
        Recipe(who.student, f"{base}/step-{who.leaves_at}", upbringing(language), 120, 3_200, 2e-3),
    )


RECIPES = tuple(recipe for language in LANGUAGES for recipe in recipes_of(language))


def resolve(experiment: Experiment, directory: Place) -> Experiment:
    """The experiment with the path of a model or file of the built world in place of every
    `miniature:NAME`.
    """

    def path(text: str) -> str:
        if not text.startswith(MINIATURE):
            return text
        name = text.removeprefix(MINIATURE)
        return (
            str(directory / f"{name}.jsonl")
            if name in ("train", "evaluate")
            else str(directory / name / "model")
        )

    questions = experiment.questions.model_copy(
        update={"train": path(experiment.questions.train), "evaluate": path(experiment.questions.evaluate)}
    )
    teachers = tuple(
        t.model_copy(update={"path": path(t.path)}) if hasattr(t, "path") else t for t in experiment.teachers
    )
    students = tuple(s.model_copy(update={"path": path(s.path)}) for s in experiment.students)
    return experiment.model_copy(update={"questions": questions, "teachers": teachers, "students": students})


def build_world(run: Run, settings: Miniature, placement: Placement) -> Place:
    """Build the world, or find it in the store; returns its directory: `<model>/model`, `train.jsonl`,
    `evaluate.jsonl`.

    Raises:
        Unmade: in a plan, nobody has built it yet.
    """
    config = {
        "miniature": settings.model_dump(),
        "recipes": [r.__dict__ for r in RECIPES],
        "shape": [WIDTH, LAYERS, HEADS, VOCABULARY],
    }
    stage = run.store.stage("miniature", VERSION, config, {})
    run.note("miniature", "world", stage)
    if run.mode == "plan":
        steps = round(sum(r.steps for r in RECIPES) * settings.scale)
        left = None if stage.is_finished else f"{len(RECIPES)} models, {steps:,} steps"
        run.planned.append(Planned("miniature", "world", left, f"{placement.train_workers} train workers"))
        run.need("the miniature world", [stage])
    with run.claimed([stage]):
        if not stage.is_finished:
            make_world(run, settings, stage, placement)
    return stage.directory


def make_world(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the world's questions and train its models, as far as they are not there yet."""
    run.terminal.say(
        f"building the miniature world in {stage.directory}: {len(RECIPES)} small models are "
        "trained once, then cached"
    )
    held = draw_episodes(settings.train_questions + settings.evaluate_questions, settings.seed)
    write_questions(stage.directory / "train.jsonl", held[: settings.train_questions])
    write_questions(stage.directory / "evaluate.jsonl", held[settings.train_questions :])
    held_ids = frozenset(e.question_id for e in held)
    start = stage.directory / START
    made = stage.directory / "init/MADE"  # on an object store a directory appears file by file
    if not made.is_file():
        folder = start.scratch()
        make_initial_model(folder, settings.seed)
        start.take(folder)
        made.write_bytes(b"")
    renderer = Renderer(load_tokenizer(ModelSource(str(start))))
    jobs = []
    for k, recipe in enumerate(RECIPES):
        job = training_of(recipe, stage.directory, settings, k)
        if not Place(job.examples).is_file():
            write_examples(Place(job.examples), draw_examples(recipe, settings, renderer, held_ids, k))
        jobs.append(job)
    bases = [job for job, recipe in zip(jobs, RECIPES, strict=True) if recipe.is_base]
    run_queue(run, bases, placement)  # the others start from their exports
    run_queue(run, [job for job in jobs if job not in bases], placement)
    stage.finish([], models=len(jobs), questions=len(held))


def training_of(recipe: Recipe, directory: Place, settings: Miniature, k: int) -> TrainJob:
    """The training job of one recipe."""

    def scaled(steps: int) -> int:
        return max(2, round(steps * settings.scale))

    output = directory / recipe.name
    start = recipe.start
    if "/step-" in start:
        model, _, step = start.partition("/step-")
        start = f"{model}/step-{scaled(int(step))}"
    return TrainJob(
        job_id=f"{directory.name}-{recipe.name}",
        source=ModelSource(str(directory / start)),
        examples=str(output / f"examples{SUFFIX}"),
        output=str(output),
        seed=settings.seed * 1000 + k,
        settings=TrainSettings(
            learning_rate=recipe.learning_rate,
            steps=scaled(recipe.steps),
            batch_size=32,
            warmup_ratio=0.08 if recipe.is_base else 0.2,
            zero_stage=0,
            checkpoint_every=250,
            deepspeed={"optimizer": {"params": {"betas": [0.9, 0.98]}}},
        ),
        export_steps=tuple(scaled(step) for step in recipe.exports),
    )


def draw_examples(
    recipe: Recipe, settings: Miniature, renderer: Renderer, held: frozenset[str], k: int
) -> list[Example]:
    """Worked episodes of one to six operations in the recipe's dialects, none of them a question of the
    world.
    """
    rng = random.Random(settings.seed * 1000 + k)
    rows = max(64, round(recipe.rows * min(1.0, settings.scale)))
    episodes = draw_episodes(rows, settings.seed * 1000 + 500 + k, held, min_operations=1)
    dialects = rng.choices(list(recipe.dialects), list(recipe.dialects.values()), k=rows)
    examples = []
    for episode, dialect in zip(episodes, dialects, strict=True):
        rendered = renderer.conversation(episode.question, work_out(episode, dialect))
        examples.append(Example(rendered.ids, rendered.prompt_length, rendered.answer_end))
    return examples


def write_questions(place: Place, episodes: Sequence[Episode]) -> None:
    """Questions as JSONL: id, question, reference, family."""
    rows = [
        {"id": e.question_id, "question": e.question, "reference": e.result, "family": e.family}
        for e in episodes
    ]
    place.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
