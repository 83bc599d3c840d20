"""Making the world of authors: a teacher made from SmolLM2 that writes new word problems when it is asked for
them, and solves them in the manner that the system text names. Without a system text it takes any of its
manners. ARTE needs such a teacher (`docs/arte.md`).

The steps and shares were fixed before any arm ran in this world.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.miniature.making import scaled
from jobs.miniature.pretrained.manners import MANNERS, SYSTEMS
from jobs.miniature.pretrained.problems import Problem, draw_problems
from jobs.miniature.pretrained.recipe import BATCH, SCHOOLED, SCHOOLING, Line
from jobs.miniature.pretrained.weights import SMOLLM2
from jobs.miniature.pretrained.world import (
    STEPS,
    Base,
    choose_models,
    practice_of,
    train_lines,
    write_bases,
    write_held,
)
from jobs.run.run import Run
from jobs.run.store import Stage, digest
from training.data import Example, write_examples

AUTHOR, LAST = "author", 120  # the teacher, and the steps of its training
WRITES, NAMED = 0.25, 0.75  # the share of new problems, and of solutions whose manner is named
SHOWN = 2  # problems that it is shown when it is asked for a new one
WRITE = "Write a new word problem of {steps}, like these:\n{examples}"


def lines() -> list[Line]:
    """The author's training, and the schooled student's."""
    author = Line(AUTHOR, SMOLLM2.name, tuple(MANNERS), (LAST,), {AUTHOR: (0.0, 1.0)})
    own = {"schooled": SCHOOLED}
    return [author, Line("schooled", SMOLLM2.name, ("sentences",), SCHOOLING, own, None, True)]


def recipe_of_authors() -> object:
    """Everything that a world depends on except its seed and its numbers of questions."""
    texts = [p.question for part in ("train", "evaluate") for p in draw_problems(600, 0, part)]  # type: ignore[arg-type]
    solved = [[write(p) for write in MANNERS.values()] for p in draw_problems(60, 0, "train")]
    about = [SMOLLM2.sha256, SYSTEMS, WRITES, NAMED, SHOWN, WRITE]
    return [[asdict(line) for line in lines()], about, digest([texts, solved])]


def make_authors(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the world's questions, and make its teacher and its students."""
    place, own = stage.directory, lines()
    held = write_held(place, settings)
    write_bases(run, place, [SMOLLM2.name])
    kept_apart = held | {p.id for p in practice_of(settings, held)}
    train_lines(run, place, settings, own, own, kept_apart, placement, write_authored)
    choose_models(run, settings, stage, placement, own, [SMOLLM2.name], held)


def write_authored(
    place: Place, line: Line, settings: Miniature, base: Base, held: frozenset[str], k: int
) -> None:
    """Runs in a worker. Writes a line's examples: solutions, and the author's new problems."""
    renderer = Renderer(load_tokenizer(ModelSource(str(base.weights))))
    rows = BATCH * scaled(max(line.exports), settings)  # each example once
    rng, examples = random.Random(settings.seed * 1000 + k), list[Example]()
    problems = draw_problems(rows, settings.seed * 1000 + 500 + k, "train", held)
    is_author = len(line.manners) > 1
    for problem in problems:
        if is_author and rng.random() < WRITES:
            asked, system, said = request(problem, problems, rng), None, problem.question
        else:
            manner = rng.choice(line.manners)
            system = SYSTEMS[manner] if is_author and rng.random() < NAMED else None
            asked, said = problem.question, MANNERS[manner](problem)
        rendered = renderer.conversation(asked, said, system)
        examples.append(Example(rendered.ids, rendered.prompt_length, rendered.answer_end))
    write_examples(place, examples)


def request(wanted: Problem, problems: Sequence[Problem], rng: random.Random) -> str:
    """What asks for a problem: others of as many steps are shown."""
    alike = [p for p in problems if len(p.steps) == len(wanted.steps) and p is not wanted]
    shown = rng.sample(alike, min(SHOWN, len(alike)))
    return WRITE.format(
        steps=STEPS[len(wanted.steps)], examples="\n".join(problem.question for problem in shown)
    )
