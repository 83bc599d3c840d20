"""The world of a teacher that writes. It writes new questions when it is asked for them, and answers in the
dialect that the system text names; without a system text it takes any of its dialects. Three students have
another mother tongue each. ARTE needs such a teacher (`docs/arte.md`).

The steps were fixed by the accuracies of teacher and students alone, before any arm ran in this world.
"""

import json
from dataclasses import replace

from cluster.models.messages import plain
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.files.questions import Question
from jobs.miniature.full import MAX_NEW_TOKENS, PRACTICE, WORLD
from jobs.miniature.making import Workshop, accuracies_of, write_questions
from jobs.miniature.recipes import START, Recipe, upbringing
from jobs.miniature.tasks import QUICK_FAMILIES, draw_episodes
from jobs.run.run import Run
from jobs.run.store import Stage
from training.job import WEIGHTS

WIDTH, TEACHER = 96, "tom"
DIALECTS = ("equations", "running", "prefix")
# the student of each language, and the step at which it leaves the base
STUDENTS = {"equations": ("sue", 300), "running": ("ron", 400), "prefix": ("pam", 220)}
STEPS, ROWS, RATE = 1800, 24_000, 4e-3
TOLD, WRITES, KINSHIP = 0.75, 0.2, 0.5


def recipes() -> list[Recipe]:
    """The teacher, annealed at its end, and the students with their bases."""
    every = dict.fromkeys(DIALECTS, 1.0)
    base = f"{TEACHER}-base"
    found = [
        Recipe(base, f"{START}/{WIDTH}", every, STEPS, ROWS, RATE, is_constant=True),
        Recipe(TEACHER, f"{base}/model", every, 60, 2_400, 1e-3),
    ]
    found = [replace(recipe, told=TOLD, writes=WRITES) for recipe in found]
    for language, (student, leaves) in STUDENTS.items():
        start, mixture = f"base-{language}", upbringing(language, DIALECTS, KINSHIP)
        found.append(
            Recipe(start, f"{START}/{WIDTH}", {language: 1.0}, leaves, 12_000, RATE, is_constant=True)
        )
        found.append(Recipe(student, f"{start}/model", mixture, 120, 3_200, 2e-3))
    return found


def make_writing(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the world's questions, and train those of its models that do not exist yet."""
    count = settings.train_questions + settings.evaluate_questions
    drawn = draw_episodes(count + PRACTICE, settings.seed, families=QUICK_FAMILIES)
    practice, held = drawn[:PRACTICE], drawn[PRACTICE:]
    write_questions(stage.directory / "train.jsonl", held[: settings.train_questions])
    write_questions(stage.directory / "evaluate.jsonl", held[settings.train_questions :])
    shop = Workshop(run, settings, stage.directory, QUICK_FAMILIES, frozenset(e.question_id for e in drawn))
    shop.start(WIDTH)
    shop.train(list(enumerate(recipes())), placement)
    students = [name for name, _ in STUDENTS.values()]
    places = {name: stage.directory / name / WEIGHTS for name in (TEACHER, *students)}
    asked = [Question(e.question_id, plain(e.question), (e.result,), e.family) for e in practice]
    able = accuracies_of(run, places, asked, MAX_NEW_TOKENS, "exact", settings.seed, placement)
    world = {
        "teachers": [{"name": TEACHER, "path": TEACHER, "accuracy": able[TEACHER]}],
        "students": [
            {"name": name, "path": name, "language": language, "accuracy": able[name]}
            for language, (name, _) in STUDENTS.items()
        ],
    }
    (stage.directory / WORLD).write_bytes(json.dumps(world, indent=1).encode())
    told = ", ".join(f"{name} {100 * accuracy:.0f} %" for name, accuracy in able.items())
    run.terminal.say(f"right on {PRACTICE} practice questions: {told}")
    stage.finish([], models=len(places))
