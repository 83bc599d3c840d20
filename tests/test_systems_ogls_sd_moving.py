"""Teachers that follow their students between rounds."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.storage import Place
from jobs.experiment.arms.ogls_sd import OglsArm
from jobs.experiment.parsing import parse_experiment
from jobs.pipeline import run_pipeline
from jobs.systems.ogls_sd.moving import share_of, write_average
from tests.own_rollouts import arms, path_of
from tests.runs import open_here, run, tutelage, write_experiment
from tests.test_cluster_models_loading import random_model

RATE = 0.25


def weights_of(source: ModelSource) -> dict[str, torch.Tensor]:
    return {name: own.detach() for name, own in load_model(source).named_parameters()}


def one_arm(**about: Any) -> list[dict[str, Any]]:
    return [arm | about for arm in arms("opsd_incorrect")]


def test_a_teacher_goes_to_the_average_of_itself_and_its_student(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    """Two rounds of two steps: the second round's teacher is the first state, moved towards the student that
    the first round trained. A second run makes nothing again; another rate shares the first round.
    """
    tree = own_world | {"arms": [*one_arm(teacher_rate=RATE), *one_arm(name="stays")]}
    _, outcome = run(tree, tmp_path)
    path, stays = path_of(outcome, "opsd incorrect"), path_of(outcome, "stays")
    first, second = (outcome.rounds[path, n].trained for n in (1, 2))
    assert first is not None
    assert second is not None
    assert first.id == outcome.rounds[stays, 1].trained.id
    assert second.id != outcome.rounds[stays, 2].trained.id
    (folder,) = (tmp_path / "store" / "average").iterdir()
    steps = outcome.start.experiment.drawn.steps_per_round
    share = 1 - (1 - RATE) ** steps
    start = weights_of(outcome.start.students["kid"].source)
    trained = weights_of(outcome.start.students["kid"].after(first).source)
    teacher = weights_of(ModelSource(str(folder / "model")))
    assert max(float((trained[n] - start[n]).abs().max()) for n in start) > 0
    for name, own in start.items():
        torch.testing.assert_close(teacher[name], own + share * (trained[name] - own), rtol=1e-5, atol=1e-7)
    again, _ = run(tree, tmp_path)
    assert again.cached == len(again.stages)
    assert ("average", "kid opsd incorrect seed 0 round 1") in again.stages


def test_a_plan_stops_before_a_teacher_that_does_not_exist_and_says_so(
    own_world: dict[str, Any], tmp_path: Path
) -> None:
    tree = own_world | {"arms": one_arm(teacher_rate=RATE)}
    _, outcome = run(tree, tmp_path)
    (folder,) = (tmp_path / "store" / "average").iterdir()
    whole = {file.name: file.read_bytes() for file in (folder / "model").iterdir()}
    shutil.rmtree(folder)
    with open_here(tree, tmp_path, mode="plan") as plan:
        run_pipeline(plan, parse_experiment(tree))
    left = [one.kind for one in plan.planned if one.remaining is not None]
    assert left == ["average"]
    assert tutelage("plan", write_experiment(tree, tmp_path)).returncode == 0
    _, again = run(tree, tmp_path)
    assert {file.name: file.read_bytes() for file in (folder / "model").iterdir()} == whole
    path = path_of(outcome, "opsd incorrect")
    assert again.rounds[path, 2].trained.id == outcome.rounds[path, 2].trained.id


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_the_average_of_models_with_tied_and_with_own_heads_is_loaded_again_as_it_was(
    kind: str, tmp_path: Path, tiny_model: Path
) -> None:
    """Tied weights are one tensor and are moved once."""
    paths = []
    for seed in (1, 2):
        model = random_model(kind)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.save_pretrained(tmp_path / str(seed))
        load_tokenizer(ModelSource(str(tiny_model))).save_pretrained(tmp_path / str(seed))
        paths.append(ModelSource(str(tmp_path / str(seed))))
    write_average(*paths, 0.3, Place(str(tmp_path / "average")))
    own, other, got = (weights_of(one) for one in (*paths, ModelSource(str(tmp_path / "average"))))
    assert any(float((own[name] - other[name]).abs().max()) > 0.1 for name in own)
    for name in own:
        torch.testing.assert_close(got[name], 0.7 * own[name] + 0.3 * other[name], rtol=1e-5, atol=1e-7)


def test_models_of_two_kinds_have_no_average(tmp_path: Path, tiny_model: Path) -> None:
    sources = []
    for kind in ("llama", "gpt2"):
        random_model(kind).save_pretrained(tmp_path / kind)
        sources.append(ModelSource(str(tmp_path / kind)))
    with pytest.raises(BadInput, match="differ in kind"):
        write_average(*sources, 0.3, Place(str(tmp_path / "average")))


def test_a_share_follows_from_a_rate_and_steps() -> None:
    """As many single moves towards weights that stay."""
    moved = 0.0
    for _ in range(7):
        moved += RATE * (1.0 - moved)
    assert share_of(RATE, 7) == pytest.approx(moved)
    assert share_of(1.0, 3) == 1.0


def test_sdpo_has_the_published_rate_unless_it_was_saved_before_there_was_one() -> None:
    def rate(**about: Any) -> float:
        return OglsArm.model_validate(
            {"kind": "ogls_sd", "name": "x", "target": "sdpo", **about}
        ).teacher_rate

    assert rate() == 0.05
    assert rate(teacher_rate=0) == 0
    saved = OglsArm.model_validate({"kind": "ogls_sd", "name": "x", "target": "sdpo"}).model_dump(
        by_alias=True
    )
    assert rate(**saved) == 0.05
    older = {name: value for name, value in saved.items() if name != "teacher_rate"}
    assert rate(**older) == 0
    with pytest.raises(ValueError, match="gkd reads no teacher_rate"):
        OglsArm.model_validate(
            {"kind": "ogls_sd", "name": "x", "target": "gkd", "teacher": "pat", "teacher_rate": 0.1}
        )
