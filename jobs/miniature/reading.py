"""The world of models that can read. Part of what each model learned from nothing shows a worked solution in
the question, right or wrong. So these models understand a solution in a prompt. Only OGLS-SD needs that
(`docs/ogls_sd.md`).

There are two languages. Each is learned by a base of its own, which can read both. Its exports are annealed,
and those nearest to stated accuracies become the strong teacher, the weak teacher and the student. Nothing
here depends on the result of an arm.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict

from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.miniature.full import PRACTICE, WORLD, Line, Member, judge, nearest, train_lines
from jobs.miniature.making import Workshop, write_questions
from jobs.miniature.recipes import START, Recipe
from jobs.miniature.tasks import QUICK_FAMILIES, draw_episodes
from jobs.run.run import Run
from jobs.run.store import Stage

WIDTH = 96
READS = 0.8  # if two of five episodes showed a solution, models learned to ignore it
LANGUAGES = {"running": ("rex", "ria", "rob"), "prefix": ("pat", "peg", "pia")}  # strong, weak, student
ROWS, RATE = 24_000, 4e-3
# `prefix` is learned between steps 400 and 500: of exports every 100 steps none was in the student's band
EXPORTS = {"running": tuple(range(500, 1301, 100)), "prefix": (*range(400, 501, 20), 600, 700, 800, 900)}
BANDS = {"strong": (0.8, 1.0), "weak": (0.5, 0.7), "student": (0.25, 0.5)}


def lines() -> list[Line]:
    """The bases of both languages."""
    found = []
    for language in LANGUAGES:
        about = (EXPORTS[language][-1], ROWS, RATE, EXPORTS[language])
        name = f"{language}-reads"
        start = f"{START}/{WIDTH}"
        reads = (language, *LANGUAGES)  # its mother tongue twice as often as any other
        recipe = Recipe(name, start, {language: 1.0}, *about, is_constant=True, reading=READS, reads=reads)
        found.append(Line(recipe, language, WIDTH))
    return found


def make_reading(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the world's questions with worked solutions, and make those models that do not exist yet."""
    count = settings.train_questions + settings.evaluate_questions
    drawn = draw_episodes(count + PRACTICE, settings.seed, families=QUICK_FAMILIES)
    practice, held = drawn[:PRACTICE], drawn[PRACTICE:]
    write_questions(stage.directory / "train.jsonl", held[: settings.train_questions], "running")
    write_questions(stage.directory / "evaluate.jsonl", held[settings.train_questions :], "running")
    shop = Workshop(run, settings, stage.directory, QUICK_FAMILIES, frozenset(e.question_id for e in drawn))
    shop.start(WIDTH)
    bases = lines()
    able = judge(shop, train_lines(shop, bases, 0, placement), practice, placement)
    found, left_out = members(bases, able)
    world: dict[str, object] = {kind: [asdict(m) for m in own] for kind, own in found.items()}
    world |= {"left_out": left_out, "accuracies": able}
    (stage.directory / WORLD).write_bytes(json.dumps(world, indent=1).encode())
    for line in left_out:
        run.terminal.say(f"left out of the world: {line}")
    stage.finish([], models=len(able))


def members(bases: list[Line], able: Mapping[str, float]) -> tuple[dict[str, list[Member]], list[str]]:
    """The model for each role, and the roles that no model is able to fill."""
    found: dict[str, list[Member]] = {"teachers": [], "students": []}
    left_out = []
    for line in bases:
        own = {name: able[name] for name in line.annealings}
        for name, (band, bounds) in zip(LANGUAGES[line.language], BANDS.items(), strict=True):
            path = nearest(own, bounds)
            if path is None:
                reached = ", ".join(f"{100 * accuracy:.0f}" for accuracy in own.values())
                left_out.append(f"{name} ({line.language}, {band}): exports reach {reached} %")
                continue
            member = Member(name, path, line.language, WIDTH, False, band, 1.0, able[path])
            found["students" if band == "student" else "teachers"].append(member)
    return found, left_out
