"""The full world, in which the study runs. It has thirty teachers and six students in many states. They are
all combinations of a few properties, so nobody chose them by hand.

Teachers: ten trainings from nothing (language x width x filler), each kept at three strengths. Students: two
widths x three mother tongues. A student leaves its base early. From then on it meets its mother tongue with a
share (the kinship) of one third, one half, three quarters or all. Each such upbringing is kept at three
levels of competence.

Strength and competence are bands of accuracy on practice questions. A training runs at a constant rate, and
its exports are annealed. Of those that fall into a band, the one nearest to the middle of the band stands for
it. A band without any export is left out and named. Nothing here depends on the result of a selector.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from cluster.models.messages import plain
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.files.questions import Question
from jobs.miniature.making import Workshop, accuracies_of, write_questions
from jobs.miniature.recipes import START, Recipe, upbringing
from jobs.miniature.tasks import FAMILIES, Episode, draw_episodes
from jobs.run.run import Run
from jobs.run.store import Stage
from training.job import WEIGHTS

LANGUAGES = ("equations", "running", "prefix")
WIDTHS = (64, 96)
# Languages that are taught with filler too.
WORDY = (("equations", 96), ("running", 96), ("prefix", 96), ("prefix", 64))
KINSHIPS = (1 / 3, 1 / 2, 3 / 4, 1.0)
STRENGTHS = {"weak": (0.25, 0.45), "able": (0.5, 0.7), "strong": (0.8, 1.0)}
COMPETENCES = {"low": (0.03, 0.2), "middle": (0.3, 0.5), "high": (0.6, 0.8)}
LEAVES = (0.1, 0.3)  # the accuracy of the base at which a student leaves it
# Steps, rows, learning rate.
BASE, ANNEAL = (1200, 24_000, 4e-3), (40, 1_600, 1e-3)
RAISE_ROWS, RAISE_RATE = 8_000, 2e-3
# By kinship. Mixed languages take longer to learn, and each kinship needs all levels of competence.
RAISE_STEPS = {1 / 3: 720, 1 / 2: 720, 3 / 4: 720, 1.0: 480}
BASE_EXPORTS, RAISE_EXPORTS = tuple(range(200, 1201, 100)), (1 / 12, 1 / 4, 1 / 2, 3 / 4, 1)
PRACTICE = 160  # questions on which accuracy is measured
MAX_NEW_TOKENS = 240
WORLD = "world.json"


@dataclass(frozen=True)
class Member:
    """A model of the world.

    Attributes:
        band: the strength of a teacher, or the competence of a student.
        kinship: the mother tongue's share of a student's later upbringing. 1 for teachers.
        accuracy: on practice questions.
    """

    name: str
    path: str
    language: str
    width: int
    wordy: bool
    band: str
    kinship: float
    accuracy: float


@dataclass(frozen=True)
class Line:
    """A training that is kept at many exports. Each export is annealed."""

    recipe: Recipe
    language: str
    width: int
    wordy: bool = False
    kinship: float = 1.0

    @property
    def annealings(self) -> dict[str, Recipe]:
        """The recipe that anneals each export, by name."""
        return {
            name: Recipe(
                name,
                f"{self.recipe.name}/step-{step}",
                self.recipe.dialects,
                *ANNEAL,
                reading=self.recipe.reading,
                reads=self.recipe.reads,
            )
            for step in self.recipe.exports
            for name in [f"{self.recipe.name}-at-{step}"]
        }


def base_lines() -> list[Line]:
    """The ten trainings from nothing."""
    plain = [(language, width, False) for width in WIDTHS for language in LANGUAGES]
    lines = []
    for language, width, wordy in [*plain, *((*pair, True) for pair in WORDY)]:
        name = f"{language}-{width}{'-wordy' if wordy else ''}"
        dialect = {f"{language}-wordy" if wordy else language: 1.0}
        recipe = Recipe(name, f"{START}/{width}", dialect, *BASE, BASE_EXPORTS, is_constant=True)
        lines.append(Line(recipe, language, width, wordy))
    return lines


def raised_lines(leaves: Mapping[str, str]) -> list[Line]:
    """The students' upbringings.

    Args:
        leaves: base -> the export at which its student leaves it.
    """
    lines = []
    for language in LANGUAGES:
        for width in WIDTHS:
            start = leaves.get(f"{language}-{width}")
            for kinship in KINSHIPS if start is not None else ():
                name = f"{language}-{width}-kin-{round(100 * kinship)}"
                mixture = upbringing(language, LANGUAGES, kinship)
                steps = RAISE_STEPS[kinship]
                exports = tuple(round(share * steps) for share in RAISE_EXPORTS)
                about = (mixture, steps, RAISE_ROWS, RAISE_RATE, exports)
                recipe = Recipe(name, str(start), *about, is_constant=True)
                lines.append(Line(recipe, language, width, kinship=kinship))
    return lines


def nearest(accuracies: Mapping[str, float], band: tuple[float, float]) -> str | None:
    """The name of the value in a band that is nearest to its middle. If several are equally near, the first
    one.

    >>> nearest({"a": 0.2, "b": 0.44, "c": 0.36}, (0.25, 0.45))
    'c'
    """
    low, high = band
    inside = [name for name, accuracy in accuracies.items() if low <= accuracy <= high]
    return min(inside, key=lambda name: abs(accuracies[name] - (low + high) / 2), default=None)


def make_full(run: Run, settings: Miniature, stage: Stage, placement: Placement) -> None:
    """Write the full world's questions, and make those of its models that do not exist yet."""
    count = settings.train_questions + settings.evaluate_questions
    drawn = draw_episodes(count + PRACTICE, settings.seed, families=tuple(FAMILIES))
    practice, held = drawn[:PRACTICE], drawn[PRACTICE:]
    write_questions(stage.directory / "train.jsonl", held[: settings.train_questions])
    write_questions(stage.directory / "evaluate.jsonl", held[settings.train_questions :])
    shop = Workshop(run, settings, stage.directory, tuple(FAMILIES), frozenset(e.question_id for e in drawn))
    for width in WIDTHS:
        shop.start(width)
    bases = base_lines()
    made = train_lines(shop, bases, 0, placement)
    able = judge(shop, made, practice, placement)
    leaves = {line.recipe.name: leaving(line, able) for line in bases}
    raised = raised_lines({base: export for base, export in leaves.items() if export is not None})
    made_students = train_lines(shop, raised, 1000, placement)
    able |= judge(shop, made_students, practice, placement)
    teachers, no_teachers = members(bases, able, STRENGTHS)
    students, no_students = members(raised, able, COMPETENCES)
    left_out = [*no_teachers, *no_students]
    world = {
        "teachers": [asdict(member) for member in teachers],
        "students": [asdict(member) for member in students],
        "left_out": left_out,
        "accuracies": able,
    }
    (stage.directory / WORLD).write_bytes(json.dumps(world, indent=1).encode())
    for line in left_out:
        run.terminal.say(f"left out of the world: {line}")
    stage.finish([], models=len(able), teachers=len(teachers), students=len(students))


def train_lines(shop: Workshop, lines: Sequence[Line], first: int, placement: Placement) -> list[str]:
    """Train lines, then anneal all their exports. Returns the names of the annealed models."""
    shop.train(enumerate((line.recipe for line in lines), first), placement)
    annealings = [recipe for line in lines for recipe in line.annealings.values()]
    shop.train(enumerate(annealings, first + len(lines)), placement)
    return [recipe.name for recipe in annealings]


def leaving(line: Line, able: Mapping[str, float]) -> str | None:
    """The export at which a student leaves its base, by the accuracy of the annealed export."""
    own = {recipe.start: able[name] for name, recipe in line.annealings.items()}
    return None if line.wordy else nearest(own, LEAVES)


def judge(
    shop: Workshop, names: Iterable[str], practice: Sequence[Episode], placement: Placement
) -> dict[str, float]:
    """The share of practice questions that each model gets right."""
    questions = [Question(e.question_id, plain(e.question), (e.result,), e.family) for e in practice]
    places = {name: shop.directory / name / WEIGHTS for name in names}
    return accuracies_of(shop.run, places, questions, MAX_NEW_TOKENS, "exact", shop.settings.seed, placement)


def members(
    lines: Sequence[Line],
    able: Mapping[str, float],
    bands: Mapping[str, tuple[float, float]],
) -> tuple[list[Member], list[str]]:
    """The model for every line and band, and the bands without a model."""
    found, left_out = [], []
    for line in lines:
        own = {name: able[name] for name in line.annealings}
        for band, bounds in bands.items():
            name = nearest(own, bounds)
            if name is None:
                reached = ", ".join(f"{100 * accuracy:.0f}" for accuracy in own.values())
                left_out.append(f"{line.recipe.name}, {band}: its exports reach {reached} %")
                continue
            about = (line.language, line.width, line.wordy, band, line.kinship, able[name])
            found.append(Member(f"{line.recipe.name}-{band}", name, *about))
    return found, left_out
