"""The quick world, in which the demo runs. It combines strength and mother tongue.

It has three languages. Each is a dialect that a model learns from nothing. From that model come a strong
teacher, a weak teacher, and a student. The student leaves it early, and then meets its mother tongue in half
of its examples and each other language in a quarter. So the strongest teacher speaks one student's mother
tongue and is foreign to the others. Nothing here depends on the result of a selector. `docs/miniature.md`
records what was tried.
"""

from dataclasses import dataclass

from jobs.miniature.recipes import START, Recipe, upbringing

WIDTH, KINSHIP = 96, 0.5


@dataclass(frozen=True)
class Language:
    """A dialect that is some student's mother tongue, and the models that speak it.

    Attributes:
        steps: the steps of its base. `weak_at` and `leaves_at` are the steps at which the weak teacher and
            the student leave it. Languages are learned at different speeds. These numbers make the weak
            teachers about equally able, and the students too.
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
    """The recipes of a language: its base, which starts from nothing, and the models that continue
    from it.
    """
    who, base, own = LANGUAGES[language], f"base-{language}", {language: 1.0}
    mixture = upbringing(language, list(LANGUAGES), KINSHIP)
    return (
        Recipe(base, f"{START}/{WIDTH}", own, who.steps, 12_000, 4e-3, (who.leaves_at, who.weak_at)),
        Recipe(who.strong, f"{base}/model", own, 40, 1_600, 1e-3),
        Recipe(who.weak, f"{base}/step-{who.weak_at}", own, 30, 1_600, 1e-3),
        Recipe(who.student, f"{base}/step-{who.leaves_at}", mixture, 120, 3_200, 2e-3),
    )


RECIPES = tuple(recipe for language in LANGUAGES for recipe in recipes_of(language))
