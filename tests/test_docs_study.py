"""What README and `docs/study.md` say of all students together follows from the published tables, and the
study that is to be run next is one that can be run.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from jobs.study.parts import PLACEHOLDER, cells_of, load_study, members_of
from jobs.study.published import compared_again
from jobs.study.running import lineages_in
from tests.pages import words
from training.comparison import over_lineages

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "docs" / "study"
TWIN = "prefix-96-strong"


def together(part: str, arm: str, against: str, only: str = "") -> str:
    """The mean of students' differences and its interval over students, as the pages write it."""
    values = pd.read_csv(STUDY / f"{part}-values.csv")
    last = values[
        (values["round"] == values["round"].max()) & values["student"].str.contains(only, regex=True)
    ]
    means = last.groupby(["student", "arm"])["value"].mean().unstack()
    d = (means[arm] - means[against]).dropna()
    sure = over_lineages(d.to_numpy(), ["-".join(name.split("-")[:2]) for name in d.index])
    assert sure is not None
    found = sure.around(float(d.mean()))
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f}"


@pytest.mark.parametrize(
    ("pages", "part", "arm", "against", "only"),
    [
        (["docs/study.md", "README.md"], "selectors", "scas", "strongest", ""),
        (["docs/study.md"], "selectors", "mean loss", "strongest", ""),
        (["docs/study.md"], "kinship", "mean loss", "scas", ""),
        (["docs/study.md"], "kinship", "scas", "strongest without filler", ""),
        (["docs/study.md"], "kinship", "scas", "strongest without filler", "kin-50-middle"),
        (["docs/study.md"], "kinship", "scas", "strongest", ""),
        (["docs/study.md"], "kinship", "mean loss", "strongest", ""),
        (["docs/study.md"], "kinship", "mean loss", "strongest without filler", ""),
        (["docs/study.md"], "kinship", "scas", "strongest without filler", "middle"),
        (["docs/study.md"], "kinship", "mean loss", "scas", "middle"),
        (
            ["docs/study.md"],
            "kinship",
            "scas",
            "strongest without filler",
            "^prefix.*kin-(?:50|75|100)",
        ),
        (["docs/study.md"], "kinship", "scas", "strongest without filler", "^[er].*kin-50-middle"),
        (["docs/study.md"], "kinship", "scas", "strongest without filler", "^[er].*kin-100-middle"),
        (["docs/study.md"], "selectors", "excess_loss", "mean loss", ""),
        (["docs/study.md"], "selectors", "car", "strongest", ""),
        (["docs/study.md"], "matrix", f"only {TWIN}", "strongest", ""),
        (["docs/study.md"], "selectors", "mean loss", "scas", ""),
    ],
)
def test_what_is_said_of_all_students_together_follows_from_the_tables(
    pages: list[str], part: str, arm: str, against: str, only: str
) -> None:
    value, low, high = re.findall(r"-?\d+\.\d", together(part, arm, against, only))
    for page in pages:
        said = words(page)
        assert re.search(rf"{value}.{{0,40}}\({low} to {high}", said), (page, value, low, high)


SECOND = STUDY / "second"


def test_what_is_said_of_the_second_study_follows_from_its_questions() -> None:
    again = compared_again(SECOND / "tokens-questions.parquet")["contrasts"]
    published = pd.read_csv(SECOND / "tokens-contrasts.csv")
    named = ["setting", "arm", "against"]
    both = again.merge(published, on=named, suffixes=("", " published"))
    assert len(both) == len(again) == len(published) == 18
    for column in ("difference", "low_students", "high_students"):
        np.testing.assert_allclose(both[column], both[f"{column} published"], atol=1e-4)
    own = both[both["setting"].str.contains("=0.001")].set_index(["arm", "against"])
    readme, page = words("README.md"), words("docs/study.md")
    for arm, against, pages in (
        ("scas", "strongest", (readme, page)),
        ("scas", "random", (readme, page)),
        ("mean loss", "strongest", (page,)),
        ("mean loss", "random", (page,)),
        ("random", "strongest", (page,)),
        ("scas", "strongest without filler", (page,)),
    ):
        row = own.loc[(arm, against)]
        value, low, high = (100 * row[c] for c in ("difference", "low_students", "high_students"))
        for said in pages:
            assert f"{value:+.1f} " in said
            assert f"({low:.1f} to {high:.1f})" in said, (arm, against)
    values = pd.read_csv(SECOND / "tokens-values.csv")
    larger = values[values["setting"].str.contains("=0.001")]
    own = larger.groupby(["student", "arm"])["value"].mean().unstack()
    for arm in ("random", "scas", "mean loss", "strongest"):
        since = own[arm] - own["before training"]
        sure = over_lineages(since.to_numpy(), ["-".join(name.split("-")[:2]) for name in since.index])
        assert sure is not None
        found = sure.around(float(since.mean()))
        low, high = 100 * found.low, 100 * found.high
        value = re.escape(f"{100 * found.value:+.1f}")
        assert re.search(rf"{value}.{{0,10}}[ (]{low:.1f} to {high:.1f}[;)]", page), arm
    of_students = values.groupby(["setting", "student", "arm"])["value"].mean()
    means = 100 * of_students.groupby(["setting", "arm"]).mean()
    for rate in ("0.001", "3.1e-05"):
        for name, mean in means.loc[f"train.tokens=61000 train.learning_rate={rate}"].items():
            assert f"{mean:.1f} %" in page, (rate, name)


def test_the_table_of_all_selectors_follows_from_its_questions() -> None:
    again = compared_again(SECOND / "selectors-questions.parquet")["contrasts"]
    published = pd.read_csv(SECOND / "selectors-contrasts.csv")
    both = again.merge(published, on=["arm", "against"], suffixes=("", " published"))
    assert len(both) == len(again) == len(published) == 42
    for column in ("difference", "low_students", "high_students", "p_students_corrected"):
        np.testing.assert_allclose(both[column], both[f"{column} published"], atol=1e-3)
    page = words("docs/study.md")
    values = pd.read_csv(SECOND / "selectors-values.csv")
    after = values[values["round"] == 1]
    right = 100 * values.groupby(["student", "arm"])["value"].mean().groupby("arm").mean()
    lengths = (61_000 / (32 * after["steps"])).groupby(after["arm"]).mean()
    own = both[both["against"] == "strongest"].set_index("arm")
    shown = {name: name for name in right.index} | {"strongest without filler": "another strong teacher"}
    for name, value in right.items():
        cells = [shown[str(name)], f"{value:.1f} %"]
        if name in lengths.index:
            cells.append(f"{lengths[name]:.0f}")
        if name in own.index:
            row = own.loc[name]
            told = [100 * row[c] for c in ("difference", "low_students", "high_students")]
            cells.append("{:+.1f} ({:.1f} to {:.1f})".format(*told))
        assert " | ".join(cells) in page, (name, cells)
    of_random = both[both["against"] == "random"].set_index("arm")["p_students_corrected"]
    assert f"Among these 42 comparisons its p is {of_random['scas']:.3f}" in page
    cut = after.groupby("arm")["cut_off"].mean() / 300
    worst = 100 * cut[["ifd", "lark", "longest"]]
    assert f"in {worst.min():.0f} to {worst.max():.0f} % of their answers" in page


def test_the_strongest_won_by_one_question_and_without_filler_the_order_is_reversed() -> None:
    pairs = pd.read_csv(STUDY / "matrix-pairs.csv")
    right = (800 * pairs.groupby("teacher")["teacher accuracy"].mean()).sort_values().round()
    assert right.iloc[-2:].to_dict() == {TWIN: 765, "prefix-64-wordy-strong": 766}
    for shown, own in (("0.53, SCAS 0.37, mean loss 0.12", pairs[~pairs["teacher"].str.contains("wordy")]),):
        found = {}
        for cost, sign in (("teacher accuracy", 1), ("scas", -1), ("mean loss", -1)):
            each = [spearmanr(g["gain"], sign * g[cost]).statistic for _, g in own.groupby("student")]
            found[cost] = f"{np.mean(each):.2f}"
        assert shown == f"{found['teacher accuracy']}, SCAS {found['scas']}, mean loss {found['mean loss']}"
        assert "accuracy has 0.53, SCAS 0.37, mean loss 0.12" in words("docs/study.md")


def test_what_is_not_told_from_chance_is_called_so() -> None:
    """Without filler accuracy is ahead of SCAS by a difference whose interval holds 0."""
    pairs = pd.read_csv(STUDY / "matrix-pairs.csv")
    for own, shown in (
        (pairs[~pairs["teacher"].str.contains("wordy")], "0.16, -0.21 to 0.54"),
        (pairs, "-0.49, -0.78 to -0.20"),
    ):
        each = {s: g[["teacher accuracy", "scas", "gain"]] for s, g in own.groupby("student")}
        d = np.array(
            [
                spearmanr(g["gain"], g["teacher accuracy"]).statistic
                - spearmanr(g["gain"], -g["scas"]).statistic
                for g in each.values()
            ]
        )
        sure = over_lineages(d, list(each))
        assert sure is not None
        found = sure.around(float(d.mean()))
        assert shown == f"{found.value:.2f}, {found.low:.2f} to {found.high:.2f}"
        assert shown in words("docs/study.md")


def test_the_next_study_can_be_run_and_holds_both_strongest_teachers_in_every_part() -> None:
    world = pd.read_csv(STUDY / "world.csv")
    names = {kind: own["name"].tolist() for kind, own in world.groupby("kind")}
    study = load_study(ROOT / "experiments" / "study.yaml")
    members = members_of(study, names, lineages_in(world))
    lineages = {m["lineage"] for m in members["students"]}
    assert lineages == {f"{one}-{width}" for one in ("equations", "running", "prefix") for width in (64, 96)}
    assert {m["lineage"] for m in members["teachers"]} - lineages == {
        "equations-96-wordy",
        "running-96-wordy",
        "prefix-96-wordy",
        "prefix-64-wordy",
    }
    for name in study.parts:
        for cell in cells_of(study, name, members, learned={"matrix": PLACEHOLDER}):
            single = {arm.teacher for arm in cell.experiment.arms if arm.rule == "teacher"}
            assert TWIN in single, name
    (rate, *_) = cells_of(study, "rate", members)
    assert rate.experiment.questions.evaluate == "miniature:train"  # practice: nobody is judged by them later
    assert study.parts["selectors"].seeds == 5
    (few, _) = cells_of(study, "tokens", members)
    assert (few.experiment.train.tokens, few.experiment.train.steps) == (61_000, None)
