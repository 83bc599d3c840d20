"""Experiment files: defaults, overrides, unknown keys with the nearest known one, a round trip."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cluster.errors import BadInput
from cluster.placement import Needs
from jobs.experiment.parsing import load_experiment, parse_experiment, resolved
from jobs.experiment.placement import Placement, TrainPlacement
from jobs.miniature import full, reading
from jobs.miniature.pretrained import recipe
from jobs.study.parts import cells_of, load_study, members_of

HERE = Path(__file__).resolve().parents[1]
# The full world's members, were every band reached.
FULL = {
    "teacher": [f"{line.recipe.name}-{band}" for line in full.base_lines() for band in full.STRENGTHS],
    "student": [
        f"{language}-{width}-kin-{kinship}-{band}"
        for language in full.LANGUAGES
        for width in full.WIDTHS
        for kinship in (33, 50, 75, 100)
        for band in full.COMPETENCES
    ],
}
READING = {
    "teacher": [name for strong, weak, _ in reading.LANGUAGES.values() for name in (strong, weak)],
    "student": [student for *_, student in reading.LANGUAGES.values()],
}
LINES = [*recipe.first_lines(list(recipe.BASES)), *recipe.lines(list(recipe.BASES))]
PRETRAINED = {
    "teacher": [name for line in LINES if not line.is_student for name in line.bands],
    "student": ["smol", *(name for line in LINES if line.is_student for name in line.bands)],
}
EVERYBODY = {"full": FULL, "reading": READING, "pretrained": PRETRAINED}


READY = sorted((HERE / "experiments").glob("*.yaml"))
STUDIES = [file for file in READY if "\nparts:" in file.read_text()]


@pytest.mark.parametrize("file", [f for f in READY if f not in STUDIES], ids=lambda p: p.name)
def test_every_ready_experiment_is_valid_and_reads_back_to_itself(file: Path) -> None:
    experiment = load_experiment(file)
    tree = resolved(experiment)
    assert parse_experiment(json.loads(json.dumps(tree))) == experiment


@pytest.mark.parametrize("file", STUDIES, ids=lambda p: p.name)
def test_every_ready_study_is_valid_in_every_part(file: Path) -> None:
    study = load_study(file)
    world = (study.experiment.get("miniature") or {}).get("world", "full")
    members = members_of(study, EVERYBODY.get(world, {"teacher": [], "student": []}))
    for name in study.parts:
        assert cells_of(study, name, members)
    with pytest.raises(BadInput, match="is a study"):
        load_experiment(file)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rat=3", "unknown key train.learning_rat; did you mean learning_rate?"),
        ("train.lora={r: 4, alfa: 3}", "unknown key train.lora.alfa; did you mean alpha?"),
        ("arms.0.lambada=3", "did you mean lambda?"),
        ("arms.0.ramp=3", "unknown key arms.0.ramp; it belongs to another kind, or elsewhere in arms"),
        ("arms.0.kind=other", "'other' is no kind of arm; known are select, ogls_sd"),
        ("teachers.0.pathh=1", "did you mean path?"),
        ("seedz=1", "unknown key seedz; did you mean seed?"),
        ("verify.metod=exact", "did you mean method?"),
        ("ray.num_cpu=1", "did you mean num_cpus?"),
        ("generate.samples=0", "generate.samples does not fit; got 0"),
        ("arms.0.lambda=2", "less than or equal to 1"),
        ("arms.0.rule=random", "rule random reads no cost"),
        ("generate.samples=3", "several samples at temperature 0"),
        ("evaluate.baseline=x", "evaluate.baseline x is no arm"),
        ("name=../escape", "name does not fit"),
        ("train.epochs", "an override has no value"),
        ("arms.9.k=1", "an index from 0 to"),
    ],
)
def test_a_wrong_override_is_refused_with_what_to_do(override: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_experiment(HERE / "experiments" / "quickstart.yaml", [override])
    assert message in str(caught.value)


def test_overrides_reach_lists_sections_and_new_keys(small_world: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    (tmp_path / "e.yaml").write_text(yaml.safe_dump(small_world))
    e = load_experiment(
        tmp_path / "e.yaml", ["arms.0.lambda=0.25", "train.lora={r: 2}", "score.max_length=77", "rounds=3"]
    )
    assert (e.arms[0].scas_lambda, e.score.max_length, e.rounds) == (0.25, 77, 3)
    assert e.train.lora is not None
    assert e.train.lora.r == 2


def test_a_missing_file_and_broken_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no experiment file there"):
        load_experiment(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: [")
    with pytest.raises(BadInput, match="is not YAML"):
        load_experiment(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(BadInput, match="holds no experiment"):
        load_experiment(tmp_path / "list.yaml")


def test_a_teacher_named_twice_is_refused(small_world: dict[str, Any]) -> None:
    small_world["teachers"].append(small_world["teachers"][0])
    with pytest.raises(BadInput, match="teachers named twice: ann"):
        parse_experiment(small_world)


def test_a_train_worker_gets_whole_gpus_and_what_else_the_student_gets_unless_told_otherwise() -> None:
    """Half a GPU is enough to score with; two workers of one group on one GPU fail under NCCL."""
    plain = Placement(num_gpus=0.5, num_cpus=0.0, memory_gib=8, labels={"zone": "a"})
    assert plain.needs == Needs(0.0, 0.5, 8, (("zone", "a"),))
    assert plain.train_needs == Needs(0.1, 1.0, 8, (("zone", "a"),))
    assert Placement(num_cpus=0.5).train_needs == Needs(1.0)
    own = TrainPlacement(num_gpus=2, memory_gib=64, labels={"zone": "b"}, num_cpus=4)
    assert plain.model_copy(update={"train": own}).train_needs == Needs(4.0, 2.0, 64, (("zone", "b"),))
    with pytest.raises(ValidationError, match="num_gpus"):
        TrainPlacement(num_gpus=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("students", "arms"),
    [
        (("kid", "kid-low"), ("low-scas", "scas")),
        (("a b", "a"), ("c", "b c")),
        (("kid",), ("mean loss", "mean-loss")),
    ],
)
def test_paths_that_would_be_called_alike_are_refused(
    small_world: dict[str, Any], students: tuple[str, ...], arms: tuple[str, ...]
) -> None:
    """An export wrote one over the other, and a report took one for the other."""
    path = small_world["students"][0]["path"]
    tree = small_world | {
        "students": [{"name": name, "path": path} for name in students],
        "arms": [{"name": name, "rule": "random"} for name in arms],
    }
    with pytest.raises(BadInput, match="would both be called"):
        parse_experiment(tree)
    tree["arms"][-1]["name"] = "another"
    assert len(parse_experiment(tree).arms) == len(arms)
