"""What the pages say of pretrained students follows from the published questions."""

import re
from pathlib import Path

import pandas as pd
import pytest

from jobs.experiment.schema import BEFORE
from jobs.results.values import interval_of, pool_of, values_from
from jobs.study.published import compared_again
from tests.pages import words


def test_what_is_said_of_the_pretrained_run_follows_from_the_questions() -> None:
    rows = pd.read_parquet("docs/pretrained/questions.parquet")
    means = 100 * rows.groupby(["student", "arm", "round"])["value"].mean()
    page = words("docs/miniature.md")
    for student in ("smol", "schooled"):
        assert f"{student}, scas | {means[student, 'before training', 0]:.1f} (" in page
        for arm in ("scas", "random", "strongest"):
            (row,) = re.findall(rf"\| {student}, {arm} \|(.*?)\|(.*?)\|(.*?)\|", page)
            told = [cell.split("(")[0].strip() for cell in row[1:]]
            assert told == [f"{means[student, arm, number]:.1f}" for number in (1, 2)], (student, arm)
    found = compared_again(Path("docs/pretrained/questions.parquet"))["comparisons"]
    for row in found[found["arm"] == "scas"].to_dict("records"):
        told = "{:+.1f} ({:.1f} to {:.1f})".format(*(100 * row[c] for c in ("difference", "low", "high")))
        assert told in page
    assert not (found["called"] != "cannot tell").any()


def test_what_is_said_of_the_pretrained_study_follows_from_its_questions() -> None:
    file = Path("docs/pretrained/tokens-questions.parquet")
    of_seeds = 100 * pd.read_parquet(file).groupby(["arm", "seed"])["value"].mean()
    found = compared_again(file)["comparisons"].set_index(["arm", "against"])
    page = words("docs/miniature.md")
    for arm in ("scas", "mean loss", "random", "costliest group", "strongest"):
        own = of_seeds[arm]
        assert len(own) == 3
        assert " | ".join([arm, f"{own.mean():.1f}", ", ".join(f"{x:.1f}" for x in own)]) in page, arm
    assert f"{of_seeds[BEFORE].mean():.1f} % before training" in page
    for (arm, against), row in found.iterrows():
        told = "{:+.1f} ({:.1f} to {:.1f})".format(*(100 * row[c] for c in ("difference", "low", "high")))
        cells = [f"{arm} - {against}", told.replace("-0.0 to", "0.0 to"), f"{row['p_corrected']:.3f}"]
        assert " | ".join(cells) in page, cells


def test_what_is_said_of_twice_the_tokens_follows_from_its_questions() -> None:
    file = Path("docs/pretrained/twice-questions.parquet")
    of_seeds = 100 * pd.read_parquet(file).groupby(["arm", "seed"])["value"].mean()
    found, page = compared_again(file)["comparisons"], words("docs/miniature.md")
    for arm in ("scas", "mean loss", "random", "costliest group", "strongest"):
        own = of_seeds[arm]
        assert " | ".join([arm, f"{own.mean():.1f}", ", ".join(f"{x:.1f}" for x in own)]) in page, arm
    for row in found.to_dict("records"):
        name = f"{row['arm']} - {row['against']}"
        name += " (primary)" if name == "scas - strongest" else ""
        told = "{:+.1f} ({:.1f} to {:.1f})".format(*(100 * row[c] for c in ("difference", "low", "high")))
        told = told.replace("+0.0 (", "0.0 (").replace("-0.0 (", "0.0 (")
        assert " | ".join([name, told, f"{row['p_corrected']:.3f}"]) in page, name
    assert set(found["called"]) == {"cannot tell"}
    widest = of_seeds.groupby("arm").agg(lambda own: own.max() - own.min()).max()
    assert f"up to {widest:.0f} points apart" in page
    primary = found[(found["arm"] == "scas") & (found["against"] == "strongest")].iloc[0]
    told = "{:+.1f} points ({:.1f} to {:.1f})".format(
        *(100 * primary[c] for c in ("difference", "low", "high"))
    )
    assert told in words("README.md")


def test_what_is_said_of_each_teacher_alone_follows_from_its_questions() -> None:
    file = Path("docs/pretrained/teachers-untaught-questions.parquet")
    rows = pd.read_parquet(file)
    rows = rows.astype(dict.fromkeys(("student", "arm", "question", "family", "setting"), object))
    values = values_from(rows, "loss")
    pool, page = pool_of([values]), words("docs/miniature.md")
    found = compared_again(file)["comparisons"]
    found = found[found["against"] == "strongest"].set_index("arm")
    for student, arm in values.paths:
        i = interval_of(values, (student, arm), pool)
        cells = [f"{-i.value:.3f} ({-i.high:.3f} to {-i.low:.3f})"]
        if arm in found.index:
            told = (found.loc[arm, name] for name in ("difference", "low", "high"))
            cells.append("{:+.3f} ({:.3f} to {:.3f})".format(*told))
        name = arm.removeprefix("only ")
        assert re.search(rf"\| `?{name}[^|]*\| {re.escape(' | '.join(cells))} \|", page), (arm, cells)
    assert len(compared_again(file)["comparisons"]) == 13
    assert found.loc["only listed-strong", "p_corrected"] < 0.0015


def test_what_is_said_of_an_untaught_manner_follows_from_its_questions() -> None:
    file = Path("docs/pretrained/untaught-questions.parquet")
    rows = pd.read_parquet(file)
    rows = rows.astype(dict.fromkeys(("student", "arm", "question", "family", "setting"), object))
    values, page = values_from(rows, "loss"), words("docs/miniature.md")
    found = compared_again(file)["comparisons"].set_index(["arm", "against"])
    for arm in ("random", "scas", "mean loss", "costliest group"):
        row = found.loc[(arm, "strongest")]
        p = "below 0.001" if row["p_corrected"] < 0.001 else f"{row['p_corrected']:.3f}"
        less = "{:.3f} ({:.3f} to {:.3f})".format(*(row[c] for c in ("difference", "low", "high")))
        own = -values.mean(("smol", arm))
        assert re.search(rf"\| {arm} \| {own:.3f} \([^|]*\) \| {re.escape(less)} \| {p} \|", page), arm
    assert f"strongest | {-values.mean(('smol', 'strongest')):.3f} (" in page
    assert f"before training | {-values.mean(('smol', BEFORE)):.3f} (" in page
    for arm in ("scas", "costliest group"):
        row = found.loc[(arm, "random")]
        assert f"by {-row['difference']:.3f}, {-row['high']:.3f} to {-row['low']:.3f}" in page
        assert row["p_corrected"] < 0.001


@pytest.mark.parametrize("file", sorted(Path("docs/pretrained").glob("gsm8k-*-questions.parquet")))
def test_what_is_said_of_gsm8k_follows_from_its_questions(file: Path) -> None:
    rows = pd.read_parquet(file)
    rows = rows.astype(dict.fromkeys(("student", "arm", "question", "family", "setting"), object))
    values, page = values_from(rows, "loss"), words("docs/miniature.md")
    pool, found = pool_of([values]), compared_again(file)["comparisons"].set_index(["arm", "against"])
    for _, arm in values.paths:
        own = interval_of(values, ("smol", arm), pool)
        cells = [arm, f"{-own.value:.3f} ({-own.high:.3f} to {-own.low:.3f})"]
        for other in ("strongest", "random"):
            row = found.loc[(arm, other)] if (arm, other) in found.index else None
            if row is None:
                cells += ["", ""]
                continue
            cells += ["{:+.3f} ({:.3f} to {:.3f})".format(*(row[c] for c in ("difference", "low", "high")))]
            cells += [f"{row['p_corrected']:.3f}"]
        assert " | ".join(cells).replace("|  |", "| |").replace("|  |", "| |").strip() in page, cells
    assert set(found["called"]) == {"cannot tell"}
