"""Making the pretrained world: weights, questions, trainings, and the choice of its models."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.messages import plain
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.files.questions import Question
from jobs.miniature.full import WORLD, nearest
from jobs.miniature.making import accuracies_of, scaled
from jobs.miniature.pretrained.manners import MANNERS, SYSTEMS, UNTAUGHT
from jobs.miniature.pretrained.problems import Problem, draw_problems
from jobs.miniature.pretrained.recipe import (
    BASES,
    BATCH,
    LORA,
    MAX_NEW_TOKENS,
    PRACTICE,
    RATE,
    Line,
    first_lines,
    lines,
)
from jobs.miniature.pretrained.weights import SMOLLM2, dequantise, refuse_absent
from jobs.run.run import Run
from jobs.run.slices import Task, do_tasks
from jobs.run.store import Stage, digest
from jobs.stages.train import run_queue
from training.data import SUFFIX, Example, write_examples
from training.job import WEIGHTS, TrainJob
from training.settings import TrainSettings

BASE = "base"
STEPS = ("no step", "one step", "two steps", "three steps")


@dataclass(frozen=True)
class Member:
    """A model of the world.

    Attributes:
        weights: its directory, inside the world's.
        manner: of its solutions. Empty for the model as it comes.
        accuracy: on practice questions.
    """

    name: str
    weights: str
    base: str
    manner: str
    accuracy: float


def bases_here() -> list[str]:
    """The names of the pretrained models that a world made here has. A world that exists already needs no
    package.
    """
    return [name for name, model in BASES.items() if model is SMOLLM2 or model.is_installed]


def recipe_of(bases: Sequence[str]) -> object:
    """Everything that a world depends on except its seed and its numbers of questions."""
    sample = [draw_problems(600, 0, part) for part in ("train", "evaluate")]
    texts = [row_of(problem) for drawn in sample for problem in drawn]
    return [
        [asdict(line) for line in (*first_lines(bases), *lines(bases))],
        [BASES[name].sha256 for name in bases],
        [asdict(LORA), RATE, BATCH, PRACTICE, MAX_NEW_TOKENS],
        digest(texts),
    ]


def make_pretrained(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the world's questions, and make those of its models that do not exist yet."""
    bases, place = bases_here(), stage.directory
    held = write_held(place, settings)
    write_bases(run, place, bases)
    first, then = first_lines(bases), lines(bases)
    own = [*first, *then]
    kept_apart = held | {p.id for p in practice_of(settings, held)}
    train_lines(run, place, settings, own, first, kept_apart, one_by_one(placement), write_worked)
    # without the first ones: in a queue, what goes on from one training would share its lane
    train_lines(run, place, settings, own, then, kept_apart, placement, write_worked)
    choose_models(run, settings, stage, placement, own, bases, held)


def choose_models(
    run: Run,
    settings: Miniature,
    stage: Stage,
    placement: Placement,
    own: Sequence[Line],
    bases: Sequence[str],
    held: frozenset[str],
) -> None:
    """Measure all exports on practice questions, choose a world's models by it, and finish the world.

    Args:
        held: ids of the world's questions, none of which is a practice question.
    """
    place = stage.directory
    paths = {name: f"{BASE}/{name}/{WEIGHTS}" for name in bases}
    paths |= {name_of(line, step): export_of(line, step, settings) for line in own for step in line.exports}
    able = accuracies_of(
        run,
        {name: place / path for name, path in paths.items()},
        [as_question(p) for p in practice_of(settings, held)],
        MAX_NEW_TOKENS,
        "numeric",
        settings.seed,
        placement,
    )
    teachers, students, left_out = members(own, able, settings)
    as_it_comes = Member("smol", f"{BASE}/{SMOLLM2.name}/{WEIGHTS}", SMOLLM2.name, "", able[SMOLLM2.name])
    world = {
        "teachers": [asdict(member) for member in teachers],
        "students": [asdict(member) for member in [as_it_comes, *students]],
        "left_out": left_out,
        "accuracies": able,
    }
    (place / WORLD).write_bytes(json.dumps(world, indent=1).encode())
    for missing in left_out:
        run.terminal.say(f"left out of the world: {missing}")
    stage.finish([], models=len(able), teachers=len(teachers), students=1 + len(students))
    used = {member.weights for member in (*teachers, *students)}
    for line in own:
        for path in {export_of(line, step, settings) for step in line.exports} - used:
            (place / path).remove()  # each is half a gigabyte


def name_of(line: Line, step: int) -> str:
    """What a line's export is called in the list of accuracies."""
    return f"{line.name}-at-{step}"


def one_by_one(placement: Placement) -> Placement:
    """A placement in which one training has what the lanes have together. The others go on from it."""
    cpus = placement.train_lanes * placement.train_needs.num_cpus
    train = placement.train.model_copy(update={"num_cpus": cpus})
    return placement.model_copy(update={"train_lanes": 1, "train": train})


def export_of(line: Line, step: int, settings: Miniature) -> str:
    """Where a line's weights after a step are, inside the world's directory. After the last step they are the
    training's own.
    """
    folder = WEIGHTS if step == line.exports[-1] else f"step-{scaled(step, settings)}"
    return f"{line.name}/{folder}"


def members(
    own: Sequence[Line], able: Mapping[str, float], settings: Miniature
) -> tuple[list[Member], list[Member], list[str]]:
    """The teachers, the students, and the bands without a model."""
    teachers, students, left_out = list[Member](), list[Member](), list[str]()
    for line in own:
        reached = {step: able[name_of(line, step)] for step in line.exports}
        for name, band in line.bands.items():
            found = nearest({str(step): accuracy for step, accuracy in reached.items()}, band)
            if found is None:
                said = ", ".join(f"{100 * accuracy:.0f}" for accuracy in reached.values())
                left_out.append(f"{name}: its exports reach {said} %")
                continue
            manner = line.manners[0] if len(line.manners) == 1 else "any"
            weights = export_of(line, int(found), settings)
            member = Member(name, weights, line.base, manner, reached[int(found)])
            (students if line.is_student else teachers).append(member)
    return teachers, students, left_out


def as_question(problem: Problem) -> Question:
    """A problem as a question of an evaluation."""
    return Question(problem.id, plain(problem.question), (str(problem.result),), STEPS[len(problem.steps)])


def write_held(place: Place, settings: Miniature) -> frozenset[str]:
    """Write the world's questions. Returns their ids, on which no model may be trained."""
    train = draw_problems(settings.train_questions, settings.seed, "train")
    evaluate = draw_problems(settings.evaluate_questions, settings.seed, "evaluate")
    write_problems(place / "train.jsonl", train)
    write_problems(place / "evaluate.jsonl", evaluate)
    return frozenset(p.id for p in (*train, *evaluate))


def practice_of(settings: Miniature, held: frozenset[str]) -> list[Problem]:
    """Questions on which accuracies are measured. Nothing else is made from them."""
    return draw_problems(PRACTICE, settings.seed + 1, "train", held)


def write_problems(place: Place, problems: Sequence[Problem]) -> None:
    """Write problems as JSONL: id, question, reference, family, and a worked solution in each manner."""
    place.write_bytes("".join(json.dumps(row_of(p)) + "\n" for p in problems).encode())


def row_of(problem: Problem) -> dict[str, str]:
    """A problem as a row of a file."""
    p = problem
    row = {"id": p.id, "question": p.question, "reference": str(p.result), "family": STEPS[len(p.steps)]}
    return row | {f"in {manner}": write(p) for manner, write in {**MANNERS, **UNTAUGHT}.items()}


def write_bases(run: Run, place: Place, bases: Sequence[str]) -> None:
    """Write the pretrained models that are not there yet.

    Raises:
        BadInput: the package of one is not installed.
    """
    lacking = [name for name in bases if not base_of(place, name).is_there]
    for name in lacking:
        refuse_absent(BASES[name])
    tasks = [(name, Task(write_base, (place, name))) for name in lacking]
    do_tasks(run, "unpack", "pretrained models", tasks)


@dataclass(frozen=True)
class Base:
    """A pretrained model in a world's directory."""

    weights: Place
    mark: Place

    @property
    def is_there(self) -> bool:
        """Whether it is whole. On an object store a directory appears file by file, so a mark follows."""
        return self.mark.is_file()


def base_of(place: Place, name: str) -> Base:
    return Base(place / f"{BASE}/{name}/{WEIGHTS}", place / f"{BASE}/{name}.made")


def write_base(place: Place, name: str) -> None:
    """Runs in a worker. Writes one pretrained model."""
    base = base_of(place, name)
    dequantise(BASES[name], base.weights)
    base.mark.write_bytes(b"")


def train_lines(
    run: Run,
    place: Place,
    settings: Miniature,
    own: Sequence[Line],
    wanted: Sequence[Line],
    held: frozenset[str],
    placement: Placement,
    write: Callable[[Place, Line, Miniature, "Base", frozenset[str], int], None],
) -> None:
    """Train some of a world's lines, as far as they are not trained yet.

    Args:
        own: all lines of the world. Seeds follow from a line's place among them.
        held: ids of questions that no line may practise on.
        write: draws a line's examples and writes them, in a worker.
    """
    by_name = {line.name: line for line in own}
    jobs, tasks = list[TrainJob](), list[tuple[str, Task]]()
    for k, line in enumerate(own):
        if line not in wanted:
            continue
        job = training_of(line, by_name, place, settings, k)
        jobs.append(job)
        if not Place(job.examples).is_file():
            about = (Place(job.examples), line, settings, base_of(place, line.base), held, k)
            tasks.append((line.name, Task(write, about)))
    do_tasks(run, "draw", "the world's examples", tasks)
    run_queue(run, jobs, placement)


def training_of(
    line: Line, by_name: Mapping[str, Line], place: Place, settings: Miniature, k: int
) -> TrainJob:
    """The training job of one line.

    Args:
        by_name: the lines that it may go on from.
    """
    output, steps = place / line.name, [scaled(step, settings) for step in line.exports]
    start = base_of(place, line.base).weights
    if line.start is not None:
        name, step = line.start
        start = place / export_of(by_name[name], step, settings)
    return TrainJob(
        job_id=f"{place.name}-{line.name}",
        source=ModelSource(str(start)),
        examples=str(output / f"examples{SUFFIX}"),
        output=str(output),
        seed=settings.seed * 1000 + k,
        settings=TrainSettings(
            learning_rate=RATE,
            steps=steps[-1],
            batch_size=BATCH,
            warmup_ratio=0.1,
            schedule="constant" if line.start is None else "cosine",
            lora=LORA,
            zero_stage=0,
            checkpoint_every=10,
            deepspeed={"optimizer": {"params": {"betas": [0.9, 0.98]}}},
        ),
        export_steps=tuple(steps[:-1]),
    )


def write_worked(
    place: Place, line: Line, settings: Miniature, base: "Base", held: frozenset[str], k: int
) -> None:
    """Runs in a worker. Draws a line's problems and writes their solutions as examples."""
    renderer = Renderer(load_tokenizer(ModelSource(str(base.weights))))
    rows = BATCH * scaled(max(line.exports), settings)  # each example once
    rng, examples = random.Random(settings.seed * 1000 + k), list[Example]()
    for problem in draw_problems(rows, settings.seed * 1000 + 500 + k, "train", held):
        manner = rng.choice(line.manners)
        system = SYSTEMS[manner] if len(line.manners) > 1 else None
        rendered = renderer.conversation(problem.question, MANNERS[manner](problem), system)
        examples.append(Example(rendered.ids, rendered.prompt_length, rendered.answer_end))
    write_examples(place, examples)
