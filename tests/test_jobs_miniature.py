"""The miniature world: exact tasks, dialects that tell the truth, nothing shared with the held-out questions,
a small build.
"""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.miniature import full, reading
from jobs.miniature.full import base_lines, members, raised_lines
from jobs.miniature.making import draw_examples, slipped, with_solution
from jobs.miniature.quick import LANGUAGES, RECIPES, STUDENTS, TEACHERS, recipes_of
from jobs.miniature.tasks import DIALECTS, FAMILIES, QUICK_FAMILIES, WORDY, draw_episodes, solve, work_out
from jobs.miniature.world import build_world, models_of
from jobs.run.progress import Terminal
from jobs.run.run import Run
from jobs.run.store import Store
from selection.verification import VerifySettings, judge
from tests.in_process import InProcess

ROOT = Path(__file__).resolve().parents[1]


def replay(family: str, state: str, operation: str) -> str:
    """One step, written again from the tasks' description."""
    if family in ("chain", "dial"):
        modulus = 10 if family == "chain" else 9
        k = int(operation[1:])
        return str({"+": int(state) + k, "-": int(state) - k, "*": int(state) * k}[operation[0]] % modulus)
    if family == "grid":
        x, y, k = "ABCDEFGH".index(state[0]), int(state[1]) - 1, int(operation[1])
        x += {"E": k, "W": -k}.get(operation[0], 0)
        y += {"N": k, "S": -k}.get(operation[0], 0)
        return "ABCDEFGH"[x % 8] + str(y % 8 + 1)
    if family == "week":
        return str((int(state) - 1 + int(operation)) % 7 + 1)
    if family == "belt":
        return state[1:] + operation[1] if operation[0] == "<" else operation[1] + state[:2]
    if family == "rules":
        return state.replace(operation[0], operation[2])
    if operation == "^":
        return state[1:] + state[0]
    if family == "lamps":
        flipped = range(3) if operation == "!" else [int(operation[1]) - 1]
        return "".join(str(1 - int(lamp)) if i in flipped else lamp for i, lamp in enumerate(state))
    if operation == "~":
        return state[::-1]
    i, j = int(operation[1]) - 1, int(operation[2]) - 1
    cups = list(state)
    cups[i], cups[j] = cups[j], cups[i]
    return "".join(cups)


def test_every_state_follows_from_the_one_before() -> None:
    for episode in draw_episodes(800, seed=5, families=tuple(FAMILIES)):
        for before, operation, after in zip(
            episode.states[:-1], episode.operations, episode.states[1:], strict=True
        ):
            assert replay(episode.family, before, operation) == after, (episode, operation)


def test_a_quick_world_s_question_is_solved_from_its_text_and_nothing_else_is() -> None:
    for episode in draw_episodes(800, seed=7, min_operations=1):
        assert solve(episode.question) == episode.result
        for odd in ("x", " t", "9", " z+1"):
            assert solve(episode.question + odd) is None
    for odd in (
        "",
        "chain",
        "chain: ",
        "chain: 3",
        "cups: 6689 t^",
        "dial: 9 t+1",
        "lamps: 010 t^",
        "grid: I1 tN1",
    ):
        assert solve(odd) is None


def test_questions_are_all_different_evenly_spread_and_need_at_least_four_steps() -> None:
    episodes = draw_episodes(800, seed=6, families=tuple(FAMILIES))
    assert len({e.question for e in episodes}) == 800
    assert {f: sum(e.family == f for e in episodes) for f in FAMILIES} == dict.fromkeys(FAMILIES, 100)
    assert {len(e.operations) for e in episodes} == {4, 5, 6}
    assert draw_episodes(800, seed=6, families=tuple(FAMILIES)) == episodes


@pytest.mark.parametrize("dialect", [*DIALECTS, *WORDY])
def test_an_answer_in_every_dialect_is_verified_and_a_changed_one_is_not(dialect: str) -> None:
    for episode in draw_episodes(40, seed=7):
        text = work_out(episode, dialect)
        assert judge(text, episode.result, VerifySettings("exact")).state == "correct"
        assert judge(text + "0", episode.result, VerifySettings("exact")).state == "wrong"


def test_no_model_practises_on_a_question_of_the_world(tiny_model: Path) -> None:
    renderer = Renderer(load_tokenizer(ModelSource(str(tiny_model))))
    held = draw_episodes(300, seed=0)
    ids = frozenset(e.question_id for e in held)
    asked = {tuple(renderer.prompt(e.question)) for e in held}
    settings = Miniature(scale=0.1)
    for k, recipe in enumerate(RECIPES):
        examples = draw_examples(recipe, settings, renderer, ids, k, QUICK_FAMILIES)
        assert not asked & {e.ids[: e.loss_start] for e in examples}


def test_dialects_differ_in_length_as_the_design_asks() -> None:
    episodes = draw_episodes(100, seed=1)
    mean = {d: sum(len(work_out(e, d)) for e in episodes) / 100 for d in DIALECTS}
    assert mean["terse"] < mean["running"] < mean["equations"] < mean["wordy"]


@pytest.mark.long
def test_a_world_at_a_hundredth_of_its_steps_is_built_and_found_again(tmp_path: Path) -> None:
    settings = Miniature(train_questions=8, evaluate_questions=8, scale=0.01)
    place = Placement(train_workers=2)
    with Run(Store(tmp_path), Place(str(tmp_path / "run")), Terminal(), InProcess()) as here:
        directory = build_world(here, settings, place)
        manifest = {p: p.stat().st_mtime_ns for p in directory.path.rglob("*.safetensors")}
        assert build_world(here, settings, place) == directory
    assert {p: p.stat().st_mtime_ns for p in directory.path.rglob("*.safetensors")} == manifest
    for name in (*TEACHERS, *STUDENTS):
        Renderer(load_tokenizer(ModelSource(str(directory / name / "model")))).prove()
    prints = {
        name: (directory / name / "model" / "model.safetensors").read_bytes()
        for name in (*TEACHERS, *STUDENTS)
    }
    assert len(set(prints.values())) == len(prints)


def test_strength_and_mother_tongue_are_crossed() -> None:
    """Each language has a strong teacher, a weak one and a student, made alike; none is everybody's."""
    whole = {language: recipes_of(language) for language in LANGUAGES}
    for language, (base, strong, weak, student) in whole.items():
        assert base.is_base
        assert [r.dialects for r in (base, strong, weak)] == [{language: 1.0}] * 3
        assert student.dialects == {other: 0.5 if other == language else 0.25 for other in LANGUAGES}
        assert {r.start.split("/")[0] for r in (strong, weak, student)} == {base.name}
    after = [[(r.steps, r.rows, r.learning_rate) for r in own[1:]] for own in whole.values()]
    assert after.count(after[0]) == len(after)
    assert len({*TEACHERS, *STUDENTS}) == 9


def test_the_full_world_is_crossed_and_bands_nobody_reaches_are_named() -> None:
    bases = base_lines()
    crossed = Counter((line.language, line.width) for line in bases if not line.wordy)
    assert crossed == {(language, width): 1 for language in LANGUAGES for width in (64, 96)}
    assert len(bases) == 10
    assert len({(line.recipe.steps, line.recipe.rows, line.recipe.exports) for line in bases}) == 1
    raised = raised_lines({line.recipe.name: f"{line.recipe.name}/step-300" for line in bases})
    assert Counter(line.kinship for line in raised) == {1 / 3: 6, 1 / 2: 6, 3 / 4: 6, 1.0: 6}
    for line in raised:
        assert line.recipe.dialects[line.language] == pytest.approx(line.kinship)
        assert len(set(line.recipe.dialects.values()) - {line.recipe.dialects[line.language]}) <= 1
    one = bases[0]
    able = dict.fromkeys(one.annealings, 0.1) | {
        f"{one.recipe.name}-at-300": 0.4,
        f"{one.recipe.name}-at-400": 0.36,
    }
    found, left_out = members([one], able, full.STRENGTHS)
    assert [(m.name, m.path, m.accuracy) for m in found] == [
        ("equations-64-weak", "equations-64-at-400", 0.36)
    ]
    assert [line.split(":")[0] for line in left_out] == ["equations-64, able", "equations-64, strong"]


@pytest.mark.slow
def test_a_full_world_of_one_language_at_a_hundredth_of_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its models can do: all bands are one, so that somebody stands for each."""
    monkeypatch.setattr(full, "BASE_EXPORTS", (600, 1200))
    monkeypatch.setattr(full, "RAISE_EXPORTS", (1,))
    monkeypatch.setattr(full, "KINSHIPS", (0.5,))
    monkeypatch.setattr(full, "WIDTHS", (64,))
    monkeypatch.setattr(full, "WORDY", ())
    every = full.base_lines()[2:]
    monkeypatch.setattr(full, "base_lines", lambda: every)
    for name in ("STRENGTHS", "COMPETENCES"):
        monkeypatch.setattr(full, name, {"any": (0.0, 1.0)})
    monkeypatch.setattr(full, "LEAVES", (0.0, 1.0))
    monkeypatch.setattr(full, "PRACTICE", 8)
    settings = Miniature(world="full", train_questions=8, evaluate_questions=8, scale=0.01)
    with Run(Store(tmp_path), Place(str(tmp_path / "run")), Terminal(), InProcess()) as here:
        directory = build_world(here, settings, Placement(train_workers=1))
        stages = len(here.stages)
    models = models_of(directory)
    assert {kind: list(some) for kind, some in models.items()} == {
        "teacher": ["prefix-64-any"],
        "student": ["prefix-64-kin-50-any"],
    }
    for path in [path for some in models.values() for path in some.values()]:
        Renderer(load_tokenizer(ModelSource(str(directory / path)))).prove()
    assert stages > 1
    families = {json.loads(line)["family"] for line in (directory / "train.jsonl").read_text().splitlines()}
    assert families == set(FAMILIES)


def test_models_that_read_are_shown_right_solutions_and_slips_that_end_wrong() -> None:
    rng = random.Random(1)
    right = 0
    for episode in draw_episodes(200, seed=9):
        shown = with_solution(episode, "running", rng)
        assert shown.startswith(episode.question + "\n")
        is_right = shown.endswith(f"A:{episode.result}")
        verdict = judge(shown, episode.result, VerifySettings("exact")).state
        assert verdict == ("correct" if is_right else "wrong")
        right += is_right
        slip = slipped(episode, rng)
        assert slip.operations == episode.operations
        assert slip.result != episode.result
        assert slip.states[0] == episode.states[0]
    assert 120 < right < 180  # three of four


@pytest.mark.slow
def test_a_reading_world_at_a_hundredth_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "EXPORTS", {"prefix": (1000,)})
    monkeypatch.setattr(reading, "LANGUAGES", {"prefix": ("pat", "peg", "pia")})
    monkeypatch.setattr(reading, "BANDS", dict.fromkeys(reading.BANDS, (0.0, 1.0)))
    monkeypatch.setattr(reading, "PRACTICE", 8)
    settings = Miniature(world="reading", train_questions=8, evaluate_questions=8, scale=0.01)
    with Run(Store(tmp_path), Place(str(tmp_path / "run")), Terminal(), InProcess()) as here:
        directory = build_world(here, settings, Placement(train_workers=1))
    assert {k: list(v) for k, v in models_of(directory).items()} == {
        "teacher": ["pat", "peg"],
        "student": ["pia"],
    }
    rows = [json.loads(line) for line in (directory / "train.jsonl").read_text().splitlines()]
    assert all(row["solution"].endswith(f"A:{row['reference']}") for row in rows)
