"""The loss on parts of an answer, and students judged by it."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.rendering import Renderer
from jobs.results.judged import Judged
from jobs.run.store import read_table
from selection.parts import Parts, parts_of
from selection.scoring import EmptySpan, Scorer
from tests.runs import run

ANSWER = "Add 12 to 30: 12+30=42, and 42*2=84.\nA: 84"
RESULTS = r"=(-?\d+)"


def scored(path: Path, pattern: str, answers: list[str]) -> tuple[list[Any], Renderer, Any]:
    model = load_model(ModelSource(str(path)), "cpu")
    renderer = Renderer(load_tokenizer(ModelSource(str(path))))
    parts = Parts(Scorer(model, renderer.special_ids), renderer.tokenizer, pattern)
    return parts.score([renderer.conversation("How much?", a) for a in answers]), renderer, model


def test_only_tokens_of_a_part_count_and_the_rest_is_context(tiny_model: Path) -> None:
    (found,), renderer, model = scored(tiny_model, RESULTS, [ANSWER])
    row = renderer.conversation("How much?", ANSWER)
    with torch.no_grad():
        log_p = torch.log_softmax(model(input_ids=torch.tensor([row.ids])).logits[0].double(), -1)
    at, want, n = 0, 0.0, 0
    places = {k for m in re.finditer(RESULTS, ANSWER) for k in range(*m.span(1))}
    for t in range(row.prompt_length, row.answer_end - 1):
        end = len(renderer.tokenizer.decode(row.ids[row.prompt_length : t + 1]))
        if places & set(range(at, end)):
            want, n = want - float(log_p[t - 1, row.ids[t]]), n + 1
        at = end
    assert found.n_answer == n > 1
    assert math.isclose(found.answer_loss, want, rel_tol=1e-5)


def test_a_pattern_of_everything_is_the_loss_of_the_whole_answer(tiny_model: Path) -> None:
    (found,), renderer, model = scored(tiny_model, r"(?s).*", [ANSWER])
    (whole,) = Scorer(model, renderer.special_ids).score([renderer.conversation("How much?", ANSWER)])
    assert found == whole


@pytest.mark.parametrize("pattern", [r"\((.+)\)|^(-?[\d.]+)$", r"\A-?\d+\Z", r"(?m)^.+$"])
def test_the_end_of_the_text_is_the_end_of_the_answer(tiny_model: Path, pattern: str) -> None:
    """`$` came after the token that ends a turn, so references that are a number were left out."""
    (found,), renderer, model = scored(tiny_model, pattern, ["114"])
    (whole,) = Scorer(model, renderer.special_ids).score([renderer.conversation("How much?", "114")])
    assert found == whole


def test_an_answer_without_a_part_fails_alone(tiny_model: Path) -> None:
    none, found = scored(tiny_model, RESULTS, ["No result.", ANSWER])[0]
    assert isinstance(none, EmptySpan)
    assert "matched" in str(none)
    assert found.n_answer > 0


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        (r"\d+", ["12", "30", "12", "30", "42", "42", "2", "84", "84"]),
        (RESULTS, ["42", "84"]),
        (r"A: (\d+)|=(\d+)", ["42", "84", "84"]),
        (r"x*", []),
    ],
)
def test_groups_are_the_parts_where_there_are_some(pattern: str, want: list[str]) -> None:
    assert [ANSWER[a:b] for a, b in parts_of(ANSWER, re.compile(pattern))] == want


def judged(world: dict[str, Any], folder: Path, **evaluate: Any) -> tuple[Any, Any]:
    arm = {"name": "random", "rule": "random"}
    return run(world, folder, arms=[arm], evaluate={"metric": "loss", **evaluate}, train={"steps": 1})


def test_students_are_judged_by_the_loss_on_parts(small_world: dict[str, Any], tmp_path: Path) -> None:
    """References of which one has no such part: it is left out, and the report's notes say so."""
    path = Path(small_world["questions"]["evaluate"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"reference": f"It is 1+1={row['reference']}."} for row in rows]
    rows[0]["reference"] = "no result"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, whole = judged(small_world, tmp_path / "whole")
    _, parts = judged(small_world, tmp_path / "parts", loss_on=r"=([^.]+)\.")
    before = next(iter(parts.start.before.values()))
    table = read_table(before.part("results"))
    everything = read_table(next(iter(whole.start.before.values())).part("results"))
    assert before.id != next(iter(whole.start.before.values())).id
    assert table["state"].tolist()[0] == "empty"
    assert set(table["state"][1:]) == {"scored"}
    assert table["tokens"].tolist()[0] == 0
    assert (table["tokens"][1:] < everything["tokens"][1:]).all()
    (note,) = [line for line in Judged(parts).notes() if "loss_on" in line]
    assert f"in {len(rows) - 1} of {len(rows)} references" in note


@pytest.mark.parametrize(
    ("evaluate", "says"),
    [
        ({"loss_on": "qq+"}, "matches no reference"),
        ({"loss_on": "(", "metric": "loss"}, "no regular expression"),
        ({"loss_on": "a", "metric": "accuracy"}, "metric=loss"),
    ],
)
def test_patterns_that_can_be_no_judge_are_refused(
    small_world: dict[str, Any], tmp_path: Path, evaluate: dict[str, str], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        judged(small_world, tmp_path, **evaluate)
