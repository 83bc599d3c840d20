"""The quick world, which the demo runs in: strength and mother tongue are crossed.

Three languages, each a dialect that a model of its own learns from nothing; each gives a strong teacher, a
weak one, and a student that leaves it early and goes on with half of its mother tongue and a quarter of each
of the others. So the strongest teacher is one student's kin and a stranger to the others. Nothing here looks
at a selector's outcome; `docs/miniature.md` records what was tried.
"""

from dataclasses import dataclass

from jobs.miniature.recipes import START, Recipe, upbringing

WIDTH, KINSHIP = 96, 0.5


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


def recipes_of(language: str) -> tuple[Recipe, ...]:
    """A language's base, which starts from nothing, and the models that go on from it."""
    who, base, own = LANGUAGES[language], f"base-{language}", {language: 1.0}
    mixture = upbringing(language, list(LANGUAGES), KINSHIP)
    return (
        Recipe(base, f"{START}/{WIDTH}", own, who.steps, 12_000, 4e-3, (who.leaves_at, who.weak_at)),
        Recipe(who.strong, f"{base}/model", own, 40, 1_600, 1e-3),
        Recipe(who.weak, f"{base}/step-{who.weak_at}", own, 30, 1_600, 1e-3),
        Recipe(who.student, f"{base}/step-{who.leaves_at}", mixture, 120, 3_200, 2e-3),
    )


RECIPES = tuple(recipe for language in LANGUAGES for recipe in recipes_of(language))
