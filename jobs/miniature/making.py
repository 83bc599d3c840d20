"""Making a world's models and questions, in the same way for all worlds."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.messages import plain
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Evaluate, Score
from jobs.experiment.students import Student
from jobs.files.questions import Question
from jobs.miniature.initial_model import make_initial_model
from jobs.miniature.recipes import BATCH, NEW_QUESTION, START, STYLE, Recipe
from jobs.miniature.tasks import Episode, draw_episodes, work_out
from jobs.run.run import Run
from jobs.run.slices import Task, do_tasks
from jobs.stages.check import Checks
from jobs.stages.evaluate import Judging, evaluate_students
from jobs.stages.states import first_state
from jobs.stages.train import run_queue
from selection.verification import Method, VerifySettings
from training.data import SUFFIX, Example, write_examples
from training.job import TrainJob
from training.settings import TrainSettings

SHOWS = "{question}\n{solution}"  # how a question shows a solution in worlds whose models read
RIGHT_SHOWN = 0.75


class Workshop:
    """Where a world is made.

    Args:
        families: of its questions.
        held: ids of questions that no model may practise on.
    """

    def __init__(
        self, run: Run, settings: Miniature, directory: Place, families: Sequence[str], held: frozenset[str]
    ) -> None:
        self.run, self.settings, self.directory = run, settings, directory
        self.families, self.held = families, held

    def start(self, width: int) -> None:
        """Make the untrained model of a width, unless it exists."""
        place = self.directory / f"{START}/{width}"
        made = self.directory / f"{START}/{width}.made"  # on an object store a directory appears file by file
        if not made.is_file():
            folder = place.scratch()
            make_initial_model(folder, self.settings.seed, width, self.families)
            place.take(folder)
            made.write_bytes(b"")

    def train(self, recipes: Iterable[tuple[int, Recipe]], placement: Placement) -> None:
        """Train those models that do not exist yet.

        Args:
            recipes: with their numbers in the world, from which seeds follow. A recipe that continues from
                another model comes after that one.
        """
        jobs: list[TrainJob] = []
        tasks: list[tuple[str, Task]] = []
        tokenizers: dict[str, ModelSource] = {}  # a model's is that of the one it goes on from
        for k, recipe in recipes:
            job = training_of(recipe, self.directory, self.settings, k)
            base = recipe.start.partition("/")[0]
            tokenizers[recipe.name] = tokenizers.get(base, ModelSource(job.source.path))
            if not Place(job.examples).is_file():
                about = (recipe, self.settings, tokenizers[recipe.name], self.held, k, self.families)
                tasks.append((recipe.name, Task(write_drawn, (Place(job.examples), *about))))
            jobs.append(job)
        do_tasks(self.run, "draw", "the world's examples", tasks)
        run_queue(self.run, jobs, placement)


def accuracies_of(
    run: Run,
    places: Mapping[str, Place],
    questions: Sequence[Question],
    max_new_tokens: int,
    method: Method,
    seed: int,
    placement: Placement,
) -> dict[str, float]:
    """The share of questions that each model gets right, greedily.

    Args:
        places: the models' directories by name.
        method: how answers are verified.
    """
    judging = Judging(Evaluate(max_new_tokens=max_new_tokens), Checks(VerifySettings(method)), Score(), seed)
    states = {name: first_state(Student(name=name, path=str(place))) for name, place in places.items()}
    stages = evaluate_students(run, states, questions, judging, placement)
    return {name: float(stage.manifest()["counts"]["value"]) for name, stage in stages.items()}


def scaled(steps: int, settings: Miniature) -> int:
    """A number of steps at the scale of a world."""
    return max(2, round(steps * settings.scale))


def place_of(model: str, settings: Miniature) -> str:
    """The place of a model or an export in a world's directory, at the world's scale."""
    name, mark, step = model.partition("/step-")
    return f"{name}{mark}{scaled(int(step), settings)}" if mark else model


def training_of(recipe: Recipe, directory: Place, settings: Miniature, k: int) -> TrainJob:
    """The training job of one recipe."""
    output = directory / recipe.name
    return TrainJob(
        job_id=f"{directory.name}-{recipe.name}",
        source=ModelSource(str(directory / place_of(recipe.start, settings))),
        examples=str(output / f"examples{SUFFIX}"),
        output=str(output),
        seed=settings.seed * 1000 + k,
        settings=TrainSettings(
            learning_rate=recipe.learning_rate,
            steps=scaled(recipe.steps, settings),
            batch_size=BATCH,
            warmup_ratio=0.08 if recipe.is_base else 0.2,
            schedule="constant" if recipe.is_constant else "cosine",
            zero_stage=0,
            checkpoint_every=250,
            deepspeed={"optimizer": {"params": {"betas": [0.9, 0.98]}}},
        ),
        export_steps=tuple(scaled(step, settings) for step in recipe.exports),
    )


def write_drawn(
    place: Place,
    recipe: Recipe,
    settings: Miniature,
    tokenizer: ModelSource,
    held: frozenset[str],
    k: int,
    families: Sequence[str],
) -> None:
    """Runs in a worker. Draws a recipe's examples and writes them."""
    renderer = Renderer(load_tokenizer(tokenizer))
    write_examples(place, draw_examples(recipe, settings, renderer, held, k, families))


def draw_examples(
    recipe: Recipe,
    settings: Miniature,
    renderer: Renderer,
    held: frozenset[str],
    k: int,
    families: Sequence[str],
) -> list[Example]:
    """Draw worked episodes of one to six operations in the recipe's dialects. None of them is a question of
    the world.
    """
    rng = random.Random(settings.seed * 1000 + k)
    rows = max(64, round(recipe.rows * min(1.0, settings.scale)))
    seed = settings.seed * 1000 + 500 + k
    episodes = draw_episodes(rows, seed, held, min_operations=1, families=families)
    dialects = rng.choices(list(recipe.dialects), list(recipe.dialects.values()), k=rows)
    shown = [rng.random() < recipe.reading for _ in episodes] if recipe.reading else [False] * rows
    examples = []
    for episode, dialect, reads in zip(episodes, dialects, shown, strict=True):
        question = with_solution(episode, rng.choice(recipe.reads), rng) if reads else episode.question
        prompt, text = plain(question), work_out(episode, dialect)
        if recipe.writes and rng.random() < recipe.writes:
            prompt, text = plain(NEW_QUESTION.format(family=episode.family)), episode.question
        elif recipe.told and rng.random() < recipe.told:
            prompt = prompt.told(STYLE.format(dialect=dialect))
        rendered = renderer.conversation(prompt, text)
        examples.append(Example(rendered.ids, rendered.prompt_length, rendered.answer_end))
    return examples


def with_solution(episode: Episode, dialect: str, rng: random.Random) -> str:
    """A question that shows a worked solution. Three of four solutions are right; see `SHOWS`."""
    is_right = rng.random() < RIGHT_SHOWN
    worked = episode if is_right else slipped(episode, rng)
    return SHOWS.replace("{question}", episode.question).replace("{solution}", work_out(worked, dialect))


def slipped(episode: Episode, rng: random.Random) -> Episode:
    """The same operations with a wrong result. From some step on, the states are those of another episode."""
    while True:
        (other,) = draw_episodes(1, rng.randrange(2**31), min_operations=1, families=(episode.family,))
        at = rng.randint(1, len(episode.operations))
        found = [*episode.states[:at], *(rng.choice(other.states) for _ in episode.states[at:])]
        if found[-1] != episode.result:
            return Episode(episode.family, episode.operations, tuple(found))


def write_questions(place: Place, episodes: Sequence[Episode], worked_in: str | None = None) -> None:
    """Write questions as JSONL: id, question, reference, family.

    Args:
        worked_in: the dialect of the worked solution in the field `solution`.
    """
    rows = [
        {"id": e.question_id, "question": e.question, "reference": e.result, "family": e.family}
        | ({} if worked_in is None else {"solution": work_out(e, worked_in)})
        for e in episodes
    ]
    place.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
