"""What a study claims follows from the values that it publishes: every interval, read back from its files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cluster.storage import Place
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.schema import BEFORE
from jobs.experiment.study import Study
from jobs.miniature.full import WORLD
from jobs.report.study import render_study, with_earlier, write_study
from jobs.results.strongest import baselines_of, strongest_lines
from jobs.results.values import Values, interval_of, pool_of, rows_of, unjudged_lines
from jobs.study.comparisons import (
    Design,
    compared_tables,
    corrected,
    corrected_over_all,
    corrected_together,
)
from jobs.study.published import compared_again, described
from jobs.study.running import Found, world_table
from jobs.study.summary import strongest_lines_of, study_lines
from jobs.study.tables import Tables
from training.comparison import holm

STUDENTS, ARMS = ("a-low", "a-high", "b-low"), ("scas", "only t", "only u", "strongest")
LINEAGES = {"a-low": "a", "a-high": "a", "b-low": "b"}
SETTINGS = ("steps=1", "steps=2")
DESIGN = Design(ARMS, ("strongest", "only t"), ("only t", "only u"), LINEAGES, seed=0)


def drawn(metric: str, setting: int, seeds: int = 3, questions: int = 40) -> Values:
    """Values of a part's experiment; some questions could not be judged."""
    rng = np.random.default_rng([setting, seeds])
    paths = {(s, BEFORE): rng.random((1, questions)) for s in STUDENTS}
    paths |= {(s, arm): rng.random((seeds, questions)) for s in STUDENTS for arm in ARMS}
    if metric == "accuracy":
        paths = {path: (table < 0.6).astype(float) for path, table in paths.items()}
    paths["a-low", "scas"][0, 3] = np.nan
    tokens = {s: rng.integers(1, 60, questions).astype(float) for s in STUDENTS}
    names = [f"{k:016x}" for k in rng.permutation(questions)]
    families = np.array(["x", "y"] * (questions // 2), dtype=object)
    return Values(metric, names, families, paths, tokens if metric == "loss" else {})


def tables_of(metric: str) -> Tables:
    cells = [({"part": "p", "setting": s}, drawn(metric, k), DESIGN) for k, s in enumerate(SETTINGS)]
    found = compared_tables(cells)
    rows = pd.concat([rows_of(v).assign(**head) for head, v, _ in cells], ignore_index=True)
    values = pd.DataFrame([("p", "", "a-low", "scas", 0, 1, 0.5)])
    values.columns = pd.Index(["part", "setting", "student", "arm", "seed", "round", "value"])
    return Tables(
        values=values,
        questions=described(rows, metric, dict.fromkeys(SETTINGS, DESIGN)),
        families=found["families"],
        comparisons=corrected(found["comparisons"]),
        contrasts=found["contrasts"],
        metric=metric,
    )


def a_study(metric: str) -> Study:
    part = {"arms": [{"name": "random", "rule": "random"}], "set": {"evaluate.metric": metric}}
    return Study.model_validate({"name": "s", "experiment": {}, "parts": {"p": part, "q": part}})


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_published_values_give_every_published_interval_again(metric: str, tmp_path: Path) -> None:
    found = Found(a_study(metric))
    found.tables["p"] = tables_of(metric)
    write_study(found, Place(str(tmp_path)))
    again = compared_again(tmp_path / "p-questions.parquet")
    for name in ("families", "comparisons", "contrasts"):
        published = pd.read_csv(tmp_path / f"p-{name}.csv", keep_default_na=False, na_values=[""])
        assert len(published) == len(again[name]) > 0
        for column in published.columns.intersection(again[name].columns):
            if published[column].dtype.kind == "f":
                assert published[column].to_numpy() == pytest.approx(
                    again[name][column].to_numpy(float), rel=1e-4, nan_ok=True
                )
            elif column != "verdict":
                assert published[column].tolist() == again[name][column].tolist()


def test_the_pool_is_that_of_all_paths_of_all_experiments_of_the_part() -> None:
    """An independent way: every path of both settings, but those before training and hindsight."""
    every = [drawn("accuracy", k) for k in range(2)]
    cells = [({"setting": s}, v, DESIGN) for s, v in zip(SETTINGS, every, strict=True)]
    row = compared_tables(cells)["comparisons"].query("student == 'b-low' and arm == 'scas'").iloc[0]
    s2, noise, paths = 0.0, 0.0, 0
    for v in every:
        for (_, arm), table in v.paths.items():
            if arm == BEFORE:
                continue
            y = table[:, np.isfinite(table).all(axis=0)]
            rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
            s2 += y.mean(1).var(ddof=1)
            noise += (rest**2).sum() / (2 * (y.shape[1] - 1)) / y.shape[1]
            paths += 1
    assert paths == 24
    d = every[0].paths["b-low", "scas"].mean(0) - every[0].paths["b-low", "strongest"].mean(0)
    between = d.var(ddof=1) / 40
    variance = max(between + 2 / 3 * (s2 - noise) / paths, between / 2)
    freedom = variance**2 / (between**2 / 39 + (2 / 3 * s2 / paths) ** 2 / 48)
    width = (row["high"] - row["low"]) / 2
    assert width == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(variance))


def test_a_training_that_two_experiments_share_is_pooled_once() -> None:
    """Seen: `strongest` was trained on the same answers under two settings, and counted as two."""
    first, second = drawn("accuracy", 0), drawn("accuracy", 1)
    shared = ("b-low", "strongest")
    second = replace(second, paths={**second.paths, shared: first.paths[shared]})
    assert pool_of([first, second]).freedom == (12 + 11) * 2
    alone = replace(second, paths={p: t for p, t in second.paths.items() if p != shared})
    assert pool_of([first, second]) == pool_of([first, alone])


def test_each_pair_is_compared_once_and_hindsight_with_every_baseline() -> None:
    table = compared_tables([({"setting": ""}, drawn("accuracy", 0), DESIGN)])["comparisons"]
    own = table[table["student"] == "a-low"]
    assert list(zip(own["arm"], own["against"], strict=True)) == [
        ("scas", "strongest"),
        ("only t", "strongest"),
        ("only u", "strongest"),
        ("scas", "only t"),
        ("only u", "only t"),
        ("in hindsight", "strongest"),
        ("in hindsight", "only t"),
    ]


def test_all_students_together_are_two_lineages_and_two_claims(tmp_path: Path) -> None:
    tables = tables_of("accuracy")
    row = tables.contrasts.iloc[0]
    assert (row["students"], row["lineages"], row["questions"], row["seeds"]) == (3, 2, 39, 3)
    own = tables.comparisons.query("arm == 'scas' and against == 'strongest' and setting == 'steps=1'")
    kept = np.arange(40) != 3  # the question that one student could not be judged on
    values = drawn("accuracy", 0)
    means = [(values.paths[s, "scas"] - values.paths[s, "strongest"])[:, kept].mean() for s in own["student"]]
    assert row["difference"] == pytest.approx(np.mean(means))
    for p in ("p_students", "p_these"):
        assert tables.contrasts[f"{p}_corrected"].tolist() == holm(tables.contrasts[p].tolist())
    lines = "\n".join(study_lines(Found(a_study("accuracy"), {"p": tables})))
    assert "students like these (2 lineages)" in lines
    assert "these 3 students" in lines
    assert "All students together" in render_study(Found(a_study("accuracy"), {"p": tables}), {})


def test_over_the_whole_study_more_is_corrected_and_the_lines_say_both(tmp_path: Path) -> None:
    part = corrected(pd.DataFrame({"difference": [0.1, 0.1], "p": [0.02, 0.9]}))
    other = pd.DataFrame({"difference": [0.1] * 8, "p": [0.5] * 8})
    assert part["called"].tolist() == ["better", "cannot tell"]
    whole = corrected_over_all({"p": part, "q": other, "r": pd.DataFrame()})
    assert whole["p"]["called"].tolist() == ["cannot tell"] * 2
    assert whole["p"]["p_corrected"].iloc[0] == pytest.approx(0.2)
    tables = tables_of("accuracy")
    found = Found(a_study("accuracy"), {"p": tables, "q": tables})
    assert any("; in brackets over all parts" in line for line in study_lines(found))


def test_all_students_together_are_corrected_over_all_parts_too() -> None:
    tables = tables_of("accuracy")
    found = Found(a_study("accuracy"), {"p": tables, "q": tables, "r": Tables()})
    whole = corrected_over_all({"p": tables.contrasts, "q": tables.contrasts}, corrected_together)
    for p in ("p_students", "p_these"):
        assert (
            whole["q"][f"{p}_corrected"].tolist() == holm(tables.contrasts[p].tolist() * 2)[len(whole["p"]) :]
        )
    row, study = tables.contrasts.iloc[0], whole["p"].iloc[0]
    about = "scas [steps=1] against strongest: "
    line = next(line for line in study_lines(found) if about in line and "students like these" in line)
    for p in ("p_students", "p_these"):
        own, over_all = row[f"{p}_corrected"], study[f"{p}_corrected"]
        assert f"[p {row[p]:.3f}, corrected {own:.3f}, over all parts {over_all:.3f}]" in line
    assert line.endswith("(39 questions, 1 left out that could not be judged of all; 3 seeds)")
    alone = "\n".join(study_lines(Found(found.study, {"p": tables})))
    assert "over all parts" not in alone


@pytest.mark.parametrize("seeds", [1, 2])
def test_with_one_training_seed_a_study_says_once_what_it_compares(seeds: int) -> None:
    found = Found(a_study("accuracy"))
    for part in "pq":
        compared = compared_tables([({"part": part, "setting": ""}, drawn("accuracy", 0, seeds), DESIGN)])
        values = tables_of("accuracy").values
        found.tables[part] = Tables(
            values, comparisons=corrected(compared["comparisons"]), contrasts=compared["contrasts"]
        )
    claim = "one training seed in p, q: this compares these trained models, not the ways of choosing"
    for told in ("\n".join(study_lines(found)), render_study(found, {})):
        assert told.count(claim) == told.count("ways of choosing") == int(seeds == 1)


@pytest.mark.parametrize(
    ("is_strongest", "said"),
    [
        (
            [True, False, False],
            "a (90.0 %); the next is b (85.0 %), behind it by 5.0 points (1.0 to 9.0)",
        ),
        (
            [True, False, True],
            "a (90.0 %); not told from it: c (80.0 %); the next is b (85.0 %), behind it by 5.0 points "
            "(1.0 to 9.0)",
        ),
        ([True, True, True], "a (90.0 %); not told from it: b (85.0 %), c (80.0 %)"),
    ],
)
def test_who_comes_next_to_the_strongest_teacher_is_said_with_its_interval(
    is_strongest: list[bool], said: str
) -> None:
    """Seen: "and no other comes near", said of every one that p 0.049 tells from it."""
    columns = {"teacher": list("abc"), "accuracy": [0.9, 0.85, 0.8], "behind": [0.0, 0.05, 0.1]}
    columns |= {"low": [0.0, 0.01, 0.02], "high": [0.0, 0.09, 0.18], "is_strongest": is_strongest}
    table = pd.DataFrame({"setting": "", **columns})
    assert list(strongest_lines_of(Tables(strongest=table))) == [f"  the strongest teacher is {said}"]


@pytest.mark.parametrize("place", ["path", "weights"])
def test_models_of_a_world_are_published_without_the_places_of_their_weights(
    place: str, tmp_path: Path
) -> None:
    """Seen: a study in the pretrained world trained for an hour and ended without its page."""
    models = {
        "teachers": [{"name": "tom", "base": "b", place: "tom/model", "accuracy": 0.5}],
        "students": [{"name": "sue", "base": "b", place: "sue/model", "accuracy": 0.1}],
    }
    (tmp_path / WORLD).write_text(json.dumps(models))
    found = Found(a_study("accuracy"), world=world_table(Place(str(tmp_path))))
    found.tables["p"] = tables_of("accuracy")
    page, *places = write_study(found, Place(str(tmp_path)))
    assert tmp_path / "world.csv" in [Path(str(one)) for one in places]
    published = pd.read_csv(tmp_path / "world.csv")
    assert published.columns.tolist() == ["kind", "name", "base", "accuracy"]
    assert published["name"].tolist() == ["tom", "sue"]
    assert "tom/model" not in Path(str(page)).read_text()


def test_values_of_an_earlier_part_are_read_again_and_stay_as_they_were(tmp_path: Path) -> None:
    found = Found(a_study("loss"))
    found.tables["p"] = tables_of("loss")
    write_study(found, Place(str(tmp_path)))
    before = (tmp_path / "p-questions.parquet").read_bytes()
    other = Found(found.study)
    other.tables["q"] = tables_of("loss")
    write_study(other, Place(str(tmp_path)))
    assert (tmp_path / "p-questions.parquet").read_bytes() == before
    again = with_earlier(Found(found.study), Place(str(tmp_path)))[0].tables["p"]
    assert len(again.questions) == len(found.tables["p"].questions)


def strongest(**is_strongest: bool) -> pd.DataFrame:
    rows = [
        {"teacher": t, "accuracy": 0.9, "is_strongest": same, "answered": 1.0}
        for t, same in is_strongest.items()
    ]
    return pd.DataFrame(rows)


def test_who_cannot_be_told_from_the_strongest_teacher_is_a_baseline_too(small_world: dict[str, Any]) -> None:
    small_world["arms"] = [
        {"name": "scas", "rule": "groups", "cost": "scas"},
        {"name": "strongest", "rule": "strongest"},
        *({"name": f"only {t}", "rule": "teacher", "teacher": t} for t in ("ann", "bob", "cat")),
    ]
    e = parse_experiment(small_world)
    twins = strongest(cat=True, ann=True, bob=False)
    assert baselines_of(e, "strongest", twins) == ["strongest", "only ann"]
    assert baselines_of(e, "only cat", twins) == ["only cat", "only ann"]
    assert baselines_of(e, "only bob", twins) == ["only bob"]  # no claim about the strongest
    assert baselines_of(e, "scas", twins) == ["scas"]
    every = [f"t{k}" for k in range(9)]
    small_world["arms"][2:] = [{"name": f"only {t}", "rule": "teacher", "teacher": t} for t in every]
    small_world["teachers"] = [small_world["teachers"][0] | {"name": t} for t in every]
    many = parse_experiment(small_world)
    tied = strongest(**dict.fromkeys(every, True))
    assert baselines_of(many, "strongest", tied) == ["strongest", "only t1", "only t2", "only t3"]
    assert baselines_of(e, "strongest", strongest(cat=True, ann=False, bob=False)) == ["strongest"]


def halved(metric: str) -> Values:
    """Two seeds of one student's arm, each judged on the other half of the questions."""
    values = drawn(metric, 0)
    path = values.paths["a-low", "only u"]
    path[0, ::2], path[1, 1::2] = np.nan, np.nan
    return values


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_a_path_that_cannot_be_judged_has_no_interval_and_ends_nothing(metric: str) -> None:
    values = halved(metric)
    found = compared_tables([({"setting": ""}, values, DESIGN)])
    table = corrected(found["comparisons"])
    is_hit = (table["student"] == "a-low") & (table["arm"] == "only u")
    assert is_hit.sum() == 2
    assert table.loc[is_hit, ["difference", "low", "high", "p", "p_corrected"]].isna().all(axis=None)
    assert (table.loc[is_hit, "called"] == "cannot tell").all()
    assert table.loc[~is_hit, ["low", "high", "p_corrected"]].notna().all(axis=None)
    assert len(found["contrasts"])
    some, line = unjudged_lines([values])
    assert some == "1 of 40 questions could not be judged of a-low scas: they count for nothing"
    assert line.startswith("no question could be judged of a-low only u under every seed")
    assert np.isnan(interval_of(values, ("a-low", "only u"), pool_of([values])).value)


def test_holm_counts_no_comparison_that_could_not_be_made() -> None:
    table = corrected(pd.DataFrame({"difference": [0.1, np.nan, 0.1], "p": [0.02, np.nan, 0.5]}))
    assert table["p_corrected"].tolist()[::2] == pytest.approx([0.04, 0.5])
    assert table["called"].tolist() == ["better", "cannot tell", "cannot tell"]


def test_twins_that_are_not_compared_with_are_named(small_world: dict[str, Any]) -> None:
    single = [{"name": f"only {k}", "rule": "teacher", "teacher": t} for k, t in enumerate(["ann"] * 5)]
    small_world["arms"] = [{"name": "strongest", "rule": "strongest"}, *single]
    e = parse_experiment(small_world)
    table = strongest(cat=True, ann=True, bob=False)
    assert baselines_of(e, "strongest", table) == ["strongest", "only 0", "only 1", "only 2"]
    (line,) = strongest_lines(e, table)
    assert line.endswith("; only the best 3 of their arms are compared with, not only 3, only 4")


def test_a_teacher_without_answers_to_many_questions_is_named(small_world: dict[str, Any]) -> None:
    """It was called weak by more than chance, where half of its answers matched no question."""
    e = parse_experiment(small_world)
    table = strongest(big=True, small=False).assign(answered=[1.0, 0.5])
    assert any("small (50 %)" in line for line in strongest_lines(e, table))
    whole = strongest_lines(e, strongest(big=True, small=False))
    assert not any("fewer questions" in line for line in whole)
