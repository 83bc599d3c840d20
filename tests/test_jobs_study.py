"""Studies: crossed parts over one store, values that a part fixes, tables that hold every seed, going on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_model
from jobs.experiment.study import Learns, Study
from jobs.study.comparisons import corrected
from jobs.study.learning import learn
from jobs.study.pairs import rank_correlation
from jobs.study.parts import cells_of, load_study, members_of, taken
from jobs.study.running import check_learns, needed_by, shared_experiment
from jobs.study.tables import Tables
from selection.costs import FEATURES
from tests.runs import tutelage

WORLD = {"teacher": ["a-64", "a-96", "b-64"], "student": ["s-low", "s-high"]}


def small_study(small_world: dict[str, Any], tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """Two students, three teachers, two rates of which one is fixed, a matrix and a part that compares."""
    twin = tmp_path / "twin"
    model = load_model(ModelSource(str(tiny_model)))
    model.lm_head.weight.data += 0.02
    model.save_pretrained(twin)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tiny_model / name).is_file():
            (twin / name).write_bytes((tiny_model / name).read_bytes())
    shared = {k: v for k, v in small_world.items() if k not in ("arms", "name")}
    shared["evaluate"] = {"metric": "loss"}
    shared["students"] = [*shared["students"], {"name": "lad", "path": str(twin)}]
    return {
        "name": "who",
        "experiment": shared,
        "parts": {
            "rate": {
                "students": ["kid"],
                "arms": [{"name": "random", "rule": "random"}],
                "cross": {"train.learning_rate": [1e-3, 1e-2]},
                "fixes": {"train.learning_rate": "random"},
            },
            "matrix": {
                "about": "Is the strongest teacher the best one?",
                "each_teacher": {"most_questions": 8},
                "arms": [{"name": "strongest", "rule": "strongest", "most_questions": 8}],
                "seeds": 2,
                "baseline": "strongest",
                "learns": {"students": ["kid"], "families": ["chain", "dial"]},
            },
            "arms": {
                "students": ["*", "!lad"],
                "arms": [
                    {"name": "scas", "rule": "groups", "cost": "scas"},
                    {"name": "random", "rule": "random"},
                    {"name": "strongest", "rule": "strongest"},
                    {"name": "learned", "rule": "minimum", "cost": "learned", "coefficients": "matrix"},
                ],
                "baseline": "strongest",
                "compare_with": ["random"],
                "cross": {"teachers": [["*"], ["*", "!cat"]]},
            },
        },
    }


def write_study(tree: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False))
    return file


@pytest.mark.long
def test_a_study_runs_its_parts_and_a_second_time_finds_everything(
    small_world: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    file = write_study(small_study(small_world, tmp_path, tiny_model), tmp_path)
    out = tmp_path / "tables"
    listed = tutelage("study", file, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert "matrix: 1 experiments, 16 trainings" in listed.stdout
    part = tutelage("study", file, "--dry-run", "--part", "rate")
    assert [line.split(":")[0] for line in part.stdout.splitlines() if line[0] != " "] == ["rate"]
    assert not (tmp_path / "store").exists()
    done = tutelage("study", file, "--out", out)
    assert done.returncode == 0, done.stderr
    fixed = float(done.stdout.partition("rate fixed train.learning_rate at ")[2].split()[0])

    rates = pd.read_csv(out / "rate-values.csv")
    after = rates[rates["round"] == 1].groupby("setting")["value"].mean()
    assert float(str(after.idxmax()).partition("=")[2]) == fixed
    for part in ("matrix", "arms-0"):
        resolved = yaml.safe_load((tmp_path / "runs" / "who" / part / "experiment.yaml").read_text())
        assert resolved["train"]["learning_rate"] == fixed
        assert (tmp_path / "runs" / "who" / part / "report.html").is_file()

    values = pd.read_csv(out / "matrix-values.csv")
    trained = values[values["round"] == 1]
    assert len(trained) == 2 * 4 * 2  # students, arms, seeds
    assert set(trained["examples"]) == {8}
    assert set(trained["steps"]) == {2}
    assert (values["arm"] == "before training").sum() == 2

    pairs = pd.read_csv(out / "matrix-pairs.csv")
    assert set(map(tuple, pairs[["student", "teacher"]].to_numpy())) == {
        (s, t) for s in ("kid", "lad") for t in ("ann", "bob", "cat")
    }
    kid = trained[(trained["student"] == "kid") & (trained["arm"] == "only ann")]["value"].mean()
    before = values[(values["student"] == "kid") & (values["round"] == 0)]["value"].item()
    gain = pairs[(pairs["student"] == "kid") & (pairs["teacher"] == "ann")]["gain"].item()
    assert gain == pytest.approx(kid - before, abs=1e-3)
    assert gain > 0.01  # nats
    assert pairs[pairs["student"] == "kid"]["mean loss"].nunique() == 3

    compared = pd.read_csv(out / "arms-comparisons.csv")
    # each pair once, per experiment
    assert list(zip(compared["arm"], compared["against"], strict=True)) == 2 * [
        ("scas", "strongest"),
        ("random", "strongest"),
        ("learned", "strongest"),
        ("scas", "random"),
        ("learned", "random"),
    ]
    assert (compared["p_corrected"] >= compared["p"]).all()
    assert compared["setting"].nunique() == 2
    page = (out / "study.html").read_text()
    assert "Is the strongest teacher the best one?" in page
    assert (out / "matrix-gains.svg").read_text().startswith("<svg")

    again = tutelage("study", file, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    made = [line for line in again.stdout.splitlines() if "stages made" in line]
    assert len(made) == 5
    assert all(line.startswith("0 stages made") for line in made)
    for table in out.glob("*.csv"):
        assert (tmp_path / "again" / table.name).read_bytes() == table.read_bytes(), table.name
    # one part alone takes the value that the first one fixed
    alone = tutelage("study", file, "--part", "arms", "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert {p.name.partition("-")[0] for p in (tmp_path / "alone").glob("*.csv")} == {
        "rate",
        "matrix",
        "arms",
    }
    learned = pd.read_csv(out / "matrix-coefficients.csv").set_index("feature")["coefficient"]
    asked = yaml.safe_load((tmp_path / "runs" / "who" / "arms-0" / "experiment.yaml").read_text())
    arm = next(a for a in asked["arms"] if a["name"] == "learned")
    assert dict(arm["coefficients"]) == pytest.approx(learned.to_dict(), rel=1e-4)
    judged = pd.read_csv(out / "matrix-judged.csv")
    assert set(judged["student"]) == {"lad"}
    assert {"learned", "scas", "mean loss", "teacher accuracy"} <= set(judged["cost"])


def test_a_learned_cost_is_fitted_on_some_students_and_families_and_judged_on_the_others() -> None:
    """Gains follow minus the mean loss, but on the families to judge by only for students to judge by."""
    teachers = [f"t{i}" for i in range(9)]
    pairs = pd.DataFrame(
        [
            {"part": "p", "setting": "", "student": s, "teacher": t, "gain": 0.0, "teacher accuracy": 0.5}
            | dict.fromkeys(FEATURES, 1.0)
            | {"lineage": t, "mean_loss": float(i)}
            for s in ("a", "b")
            for i, t in enumerate(teachers)
        ]
    )

    def value(student: str, family: str, i: int) -> float:
        return -0.1 * i if (student == "a") == (family == "x") else 0.1 * i

    families = pd.DataFrame(
        [
            {"student": s, "arm": arm, "family": f, "value": value(s, f, i)}
            for s in ("a", "b")
            for f in ("x", "y")
            for arm, i in [("before training", 0), *((f"only {t}", i) for i, t in enumerate(teachers))]
        ]
    )
    found, coefficients = learn(
        Tables(pairs=pairs, families=families), Learns(students=("a",), families=("x",)), 0
    )
    assert coefficients["mean_loss"] < -0.05
    judged = found.judged.set_index("cost")["rank_correlation"]
    assert judged["learned"] == pytest.approx(1.0)  # b on y falls with the loss, as a did on x
    assert set(found.judged["student"]) == {"b"}
    with pytest.raises(BadInput, match="others to judge it on"):
        learn(Tables(pairs=pairs, families=families), Learns(students=("*",), families=("x",)), 0)


def test_what_cannot_be_a_study_is_refused_before_anything_runs(
    small_world: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    tree = small_study(small_world, tmp_path, tiny_model)
    for change, said in (
        ({"fixes": {"train.epochs": "random"}}, "not crossed"),
        ({"fixes": {"train.learning_rate": "scas"}}, "has not"),
        ({"students": ["nobody"]}, "nobody"),
        ({"cross": {"train.learning_rate": []}, "fixes": {}}, "no value"),
        ({"cross": {"train.learning_rat": [1]}, "fixes": {}}, "did you mean learning_rate"),
        ({"compare_with": ["scas"]}, "compares with no arm"),
        ({"seed": 3}, "known keys"),
        ({"learns": {"students": ["kid"], "families": ["chain"]}}, "needs each_teacher"),
        ({"arms": []}, "needs arms"),
        ({"cross": {"train": [{"steps": 3}]}, "fixes": {}}, "would replace the whole section"),
        ({"set": {"ray.num_cpus": 7}}, "is shared by all parts"),
        ({"cross": {"store": ["a", "b"]}, "fixes": {}}, "is shared by all parts"),
    ):
        parts = tree["parts"] | {"rate": tree["parts"]["rate"] | change}
        file = write_study(tree | {"parts": parts}, tmp_path)
        done = tutelage("study", file)
        assert done.returncode == 2, (change, done.stderr)
        assert said in done.stderr, (change, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
    shared = tree["experiment"] | {"arms": tree["parts"]["arms"]["arms"]}
    done = tutelage("study", write_study(tree | {"experiment": shared}, tmp_path))
    assert "arms belong to parts" in done.stderr
    twin = tree["parts"] | {"arms-1": tree["parts"]["rate"] | {"cross": {}, "fixes": {}}}
    done = tutelage("study", write_study(tree | {"parts": twin}, tmp_path))
    assert "parts arms and arms-1 would share a directory" in done.stderr
    assert not (tmp_path / "store").exists()
    done = tutelage("study", write_study(tree, tmp_path), "--part", "nothing")
    assert "no such part" in done.stderr


def test_over_a_world_members_are_its_own_and_patterns_take_and_leave() -> None:
    study = Study.model_validate(
        {
            "name": "s",
            "experiment": {
                "miniature": {"world": "full"},
                "questions": {"train": "miniature:train", "evaluate": "miniature:evaluate"},
            },
            "parts": {
                "one": {
                    "students": ["*-low"],
                    "each_teacher": {"most_questions": 4},
                    "cross": {"teachers": [["*", "!*-64"], ["*"]]},
                }
            },
        }
    )
    members = members_of(study, WORLD)
    cells = cells_of(study, "one", members)
    assert [[t.name for t in c.experiment.teachers] for c in cells] == [["a-96"], ["a-64", "a-96", "b-64"]]
    assert [a.name for a in cells[0].experiment.arms] == ["only a-96"]
    assert cells[0].experiment.students[0].path == "miniature:s-low"
    assert cells[0].label == "teachers=* !*-64"
    with pytest.raises(BadInput, match="fits no member"):
        taken(members["students"], ["x*"], "students")
    odd = [{"name": n} for n in ("qwen[7b]", "qwen7", "a?")]
    assert [m["name"] for m in taken(odd, ["qwen[7b]"], "it")] == ["qwen[7b]"]
    assert [m["name"] for m in taken(odd, ["*", "!a?"], "it")] == ["qwen[7b]", "qwen7"]


def test_seeds_and_baseline_are_the_shared_ones_and_a_part_s_own_members_stay() -> None:
    arms = ({"name": "random", "rule": "random"}, {"name": "strongest", "rule": "strongest"})
    part = {"arms": arms, "teachers": ["big"], "fixes": {}, "cross": {"train.steps": [1]}}
    study = Study.model_validate(
        {
            "name": "s",
            "experiment": {
                "seeds": 3,
                "evaluate": {"baseline": "strongest"},
                "questions": {"train": "t", "evaluate": "e"},
                "teachers": [{"name": "big", "path": "b"}, {"name": "small", "path": "s"}],
                "students": [{"name": "kid", "path": "k"}],
            },
            "parts": {"one": part, "two": part | {"seeds": 2, "baseline": "random"}},
        }
    )
    members = members_of(study, {})
    fixed = (("teachers", ["small"]), ("train.batch_size", 4))
    (one,), (two,) = (cells_of(study, name, members, fixed) for name in ("one", "two"))
    assert (one.experiment.seeds, one.experiment.evaluate.baseline) == (3, "strongest")
    assert (two.experiment.seeds, two.experiment.evaluate.baseline) == (2, "random")
    assert [t.name for t in one.experiment.teachers] == ["big"]
    assert one.experiment.train.batch_size == 4
    assert shared_experiment(study).seeds == 3


def test_coefficients_come_from_an_earlier_part_that_learned_them() -> None:
    learned = {"name": "l", "rule": "minimum", "cost": "learned", "coefficients": "matrix"}
    learns = {"students": ["a"], "families": ["x"]}
    matrix = {"each_teacher": {}, "learns": learns}
    shared = {"experiment": {"questions": {"train": "t", "evaluate": "e"}}, "name": "s"}
    with pytest.raises(ValueError, match="no earlier part that learns"):
        Study.model_validate(shared | {"parts": {"use": {"arms": [learned]}, "matrix": matrix}})
    study = Study.model_validate(
        shared
        | {
            "parts": {
                "matrix": matrix,
                "use": {"arms": [learned], "cross": {"train.steps": [1]}, "fixes": {"train.steps": "l"}},
                "end": {"arms": [{"name": "r", "rule": "random"}]},
            }
        }
    )
    assert needed_by(study, ["end"]) == {"end", "use", "matrix"}
    members = {
        "teachers": [{"name": "t", "path": "t"}],
        "students": [{"name": "a", "path": "a"}, {"name": "b", "path": "b"}],
    }
    assert cells_of(study, "use", members)  # before anything is run
    with pytest.raises(BadInput, match="has not learned"):
        cells_of(study, "use", members, (), {})
    (cell,) = cells_of(study, "matrix", members)
    with pytest.raises(BadInput, match="cannot learn a cost"):
        check_learns("matrix", study.parts["matrix"], cell)


def test_overrides_reach_parts_and_the_experiment(tmp_path: Path) -> None:
    part = {"arms": [{"name": "r", "rule": "random"}]}
    file = write_study({"name": "s", "experiment": {"train": {"steps": 3}}, "parts": {"a": part}}, tmp_path)
    study = load_study(file, ["experiment.train.steps=5", "parts.a.seeds=4"])
    assert study.experiment["train"]["steps"] == 5
    assert study.parts["a"].seeds == 4
    inside = load_study(file, ["parts.a.set.train.batch_size=4", "parts.a.cross.train.epochs=[1, 2]"])
    assert inside.parts["a"].set == {"train.batch_size": 4}
    assert inside.parts["a"].cross == {"train.epochs": (1, 2)}
    with pytest.raises(BadInput, match="would replace the whole section"):
        load_study(file, ["parts.a.set={train: {epochs: 2}}"])
    with pytest.raises(BadInput, match="not YAML"):
        load_study(file, ["experiment.train=["])
    with pytest.raises(BadInput, match="no study file there"):
        load_study(tmp_path / "missing.yaml")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30))
def test_rank_correlations_are_spearmans(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    rho, low, high = rank_correlation(one, other)
    if len(set(one)) < 2 or len(set(other)) < 2:
        assert np.isnan(rho)
        return
    assert rho == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-9)
    assert np.isnan(low) == (len(pairs) < 8)
    if len(pairs) >= 8 and not np.isnan(low):
        assert low - 1e-9 <= high


def test_a_difference_is_called_by_its_corrected_p_alone() -> None:
    """Four differences whose intervals leave out 0: after Holm's correction the third is not called."""
    rows = pd.DataFrame(
        {
            "difference": [0.2, -0.1, 0.1, 0.1],
            "low": [0.1, -0.2, 0.01, -0.1],
            "high": [0.3, -0.05, 0.2, 0.3],
            "p": [0.001, 0.01, 0.03, 0.4],
        }
    )
    found = corrected(rows)
    assert found["p_corrected"].tolist() == pytest.approx([0.004, 0.03, 0.06, 0.4])
    assert found["called"].tolist() == ["better", "worse", "cannot tell", "cannot tell"]
