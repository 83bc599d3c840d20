"""What the pages say of the systems beside choosing follows from the published questions."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from jobs.experiment.schema import BEFORE
from jobs.results.values import Values, compared, pool_of, values_from
from jobs.study.published import compared_again
from tests.pages import words
from training.evaluation import pool_seeds


def read_values(file: str) -> Values:
    """The values of a published file, right or wrong."""
    rows = pd.read_parquet(file)
    return values_from(
        rows.astype(dict.fromkeys(("student", "arm", "question", "family"), object)), "accuracy"
    )


def test_what_is_said_of_aligned_teachers_follows_from_the_questions() -> None:
    values = read_values("docs/arte/questions.parquet")
    pool, page = pool_of([values]), words("docs/arte.md")
    students = ("sue", "ron", "pam")
    for arm in {name for _, name in values.paths}:
        shown = "original: the teacher as it was" if arm == "original" else arm
        cells = [f"{100 * values.mean((student, arm)):.1f}" for student in students]
        assert " | ".join([shown, *cells]) in page, arm
    for other in ("original", "shuffled", "best scored", "scas"):
        cells = [f"arte - {other}" + (" (primary)" if other == "original" else "")]
        for student in students:
            d = compared(values, student, "arte", other, pool).difference
            told = "{:+.1f} ({:.1f} to {:.1f})".format(*(100 * x + 0.0 for x in (d.value, d.low, d.high)))
            cells.append(told.replace("-0.0 to", "0.0 to"))
        assert " | ".join(cells) in page, cells
    d = compared(values, "ron", "question only", "original", pool).difference
    assert f"by {100 * d.value:.1f} points ({100 * d.low:.1f} to {100 * d.high:.1f})" in page


def test_what_is_said_of_aligned_pretrained_teachers_follows_from_the_questions() -> None:
    values = read_values("docs/arte/pretrained-questions.parquet")
    assert len(values.questions) == 100
    pool, page = pool_of([values]), words("docs/arte.md")
    for (_, arm), table in values.paths.items():
        seeds = ", ".join(f"{100 * own.mean():.1f}" for own in table) if arm != BEFORE else ""
        shown = arm + (" (primary)" if arm == "original" else "")
        cells = [shown, f"{100 * table.mean():.1f}", seeds]
        if arm != "arte":
            d = compared(values, "schooled", "arte", arm, pool).difference
            cells.append(
                "{:+.1f} ({:.1f} to {:.1f})".format(*(100 * x + 0.0 for x in (d.value, d.low, d.high)))
            )
        said = re.sub(r"\s+", " ", " | ".join(cells)).replace("+0.0 (", "0.0 (")
        assert said in page, said


def test_what_is_said_of_the_router_follows_from_its_questions() -> None:
    file = Path("docs/routing/questions.parquet")
    means = 100 * pd.read_parquet(file).groupby(["student", "arm"])["value"].mean()
    found = compared_again(file)["comparisons"].set_index(["student", "arm"])
    page = words("docs/routing.md")
    for arm in ("router", "forced", "best", "at random", "all asked", "strongest"):
        cells = ["router (primary)" if arm == "router" else arm]
        for student in ("sue", "ron"):
            row = found.loc[(student, arm)] if arm != "all asked" else None
            told = (100 * row[c] for c in ("difference", "low", "high")) if row is not None else ()
            own = "{:+.1f} ({:.1f} to {:.1f})".format(*told) if row is not None else ""
            cells += [f"{means[student, arm]:.1f}", own]
        assert " | ".join(cells).replace("|  |", "| |").strip() in page, cells
    assert not (found.loc[[("sue", "router"), ("ron", "router")], "called"] != "cannot tell").any()


def test_what_is_said_of_calls_follows_from_the_questions() -> None:
    rows = pd.read_parquet("docs/training_wheels/questions.parquet")
    figures = pd.read_csv("docs/training_wheels/figures.csv")
    keys = list(dict.fromkeys(rows["question"]))
    paths = {
        ("sue", f"{arm}: {answers}"): np.stack(
            [own.set_index("question")["value"].loc[keys].to_numpy(float) for _, own in group.groupby("seed")]
        )
        for (arm, answers), group in rows.groupby(["arm", "answers"])
    }
    values = Values("accuracy", keys, np.array([""] * len(keys), dtype=object), paths, {})
    calls = 100 * figures.groupby(["arm", "answers"])["calls"].mean()
    page = words("docs/training_wheels.md")
    for arm, place in (
        ("wheels", ""),
        *(("cloning", p) for p in ("", "at random", "where a call is likeliest", "where unsure")),
        ("cloning", "farthest from the teacher"),
    ):
        names = [f"{b} in 100" + (f", {place}" if place else "") for b in (5, 10, 20, 40)]
        cells = [f"{100 * values.mean(('sue', f'{arm}: {n}')):.1f} ({calls[arm, n]:.0f})" for n in names]
        assert " | ".join([f"`{arm}`, {place or 'its own calls'}", *cells]) in page, cells
    alone = [f"`{arm}` {100 * values.mean(('sue', f'{arm}: alone')):.1f}" for arm in ("wheels", "cloning")]
    assert f"Without calls: {', '.join(alone)}" in page
    likely, others = "where a call is likeliest", ("at random", "where unsure", "farthest from the teacher")
    every = [
        paths["sue", f"{arm}: {mine}"] - paths["sue", f"{arm}: {theirs}"]
        for arm in ("wheels", "cloning")
        for b in (5, 10, 20, 40)
        for mine, theirs in (
            (f"{b} in 100", "alone"),
            *((f"{b} in 100, {likely}", f"{b} in 100, {place}") for place in others),
        )
    ]
    pool = pool_seeds(every)
    for budget, mine, theirs, sign in (
        (40, "where a call is likeliest", "at random", "+"),
        (5, "where unsure", "where a call is likeliest", ""),
        (10, "where unsure", "where a call is likeliest", ""),
    ):
        one, other = (f"cloning: {budget} in 100, {place}" for place in (mine, theirs))
        d = compared(values, "sue", one, other, pool, same_trainings=True).difference
        value, low, high = (100 * x for x in (d.value, d.low, d.high))
        assert re.search(rf"{re.escape(sign)}{value:.1f}( points)? \({low:.1f} to {high:.1f}\)", page), (
            value,
            low,
        )


def test_what_is_said_of_agents_teachers_follows_from_the_questions() -> None:
    page = words("docs/ranking.md")
    found = {}
    for part in ("rows", "tokens"):
        file = Path(f"docs/ranking/traces-{part}.parquet")
        means = 100 * pd.read_parquet(file).groupby("arm")["value"].mean()
        found[part] = {
            arm: f"{means[f'only {arm}']:.1f}" for arm in ("brief", "planned", "reasoned", "wordy")
        }
        table = compared_again(file)["comparisons"]
        behind = table[(table["against"] == "only brief") & table["arm"].str.startswith("only")]
        for row in behind.to_dict("records"):
            value, low, high = (-100 * row[c] for c in ("difference", "high", "low"))
            assert f"{value:.1f} ({low:.1f} to {high:.1f}" in page or f"{value:.1f} points" in page
        assert (behind["called"] == "worse").all() == (part == "tokens")
    for arm, own in found["rows"].items():
        assert re.search(rf"\| {arm} \| \d+ \| \d+ \| {own} \([^|]*\) \| {found['tokens'][arm]} \(", page), (
            arm
        )


def test_what_is_said_of_steered_arms_follows_from_the_questions() -> None:
    file = Path("docs/ogls_sd/arms.parquet")
    rows = pd.read_parquet(file)
    rows = rows.astype(dict.fromkeys(("student", "arm", "question", "family", "setting"), object))
    values, page = values_from(rows, "accuracy"), words("docs/ogls_sd.md")
    pool = pool_of([values])

    def told(student: str, arm: str, other: str) -> str:
        d = compared(values, student, arm, other, pool).difference
        return "{:+.1f} ({:.1f} to {:.1f})".format(*(100 * x for x in (d.value, d.low, d.high)))

    for student, before in (("rob", "49.0"), ("pia", "35.3")):
        assert f"{student} ({before} before)" in page
        assert f"{100 * values.mean((student, BEFORE)):.1f}" == before
        for arm in ("rejection sampling", "ogls", "ogls unclipped", "ogls per token", "shuffled"):
            clipped = ", two-sided clip" if arm in ("ogls", "shuffled") else ""
            cells = [arm + clipped, f"{100 * values.mean((student, arm)):.1f}", told(student, arm, BEFORE)]
            for other in ("rejection sampling", "shuffled"):
                cells.append(told(student, arm, other) if arm != other else "")
            assert " | ".join(cells).replace("|  |", "| |").strip() in page, cells
    assert "The clip costs rob 9.0 points** (5.4 to 12.6" in page
    assert told("rob", "ogls unclipped", "ogls") == "+9.0 (5.4 to 12.6)"
    assert f"Pia loses nothing ({told('pia', 'ogls unclipped', 'ogls')[:-1].replace(' (', ', ')})" in page
    found = compared_again(file)["comparisons"]
    called = found[found["called"] != "cannot tell"][["student", "arm", "against"]]
    assert len(found) == 24
    assert sorted(map(tuple, called.to_numpy().tolist())) == [
        ("rob", arm, other)
        for arm in ("ogls per token", "ogls unclipped")
        for other in ("opsd incorrect", "shuffled")
    ]


def test_what_is_said_of_arms_without_a_clip_follows_from_the_questions() -> None:
    file = Path("docs/ogls_sd/unclipped.parquet")
    rows = pd.read_parquet(file)
    rows = rows.astype(dict.fromkeys(("student", "arm", "question", "family", "setting"), object))
    values, page = values_from(rows, "accuracy"), words("docs/ogls_sd.md")
    pool = pool_of([values])
    for student in ("rob", "pia"):
        for arm in ("ogls", "opsd incorrect", "shuffled", "lambda zero"):
            own = f"{arm} unclipped"
            cells = [f"{student}, {own}", f"{100 * values.mean((student, own)):.1f}"]
            for other in (BEFORE, "shuffled unclipped", "lambda zero unclipped"):
                d = compared(values, student, own, other, pool).difference if other != own else None
                told = (100 * x for x in (d.value, d.low, d.high)) if d is not None else ()
                cells.append("{:+.1f} ({:.1f} to {:.1f})".format(*told) if d is not None else "")
            assert " | ".join(cells).replace("|  |", "| |").strip() in page, cells
    found = compared_again(file)["comparisons"]
    assert len(found) == 12
    assert (found["called"] == "cannot tell").all()


def test_what_is_said_of_the_control_by_rate_and_clip_follows_from_the_questions() -> None:
    rows = pd.read_parquet("docs/ogls_sd/control.parquet")
    rows = rows.astype(dict.fromkeys(("student", "arm", "question", "family", "setting"), object))
    clips = {
        "lambda zero": "two-sided",
        "one sided": "one-sided",
        "unclipped": "none",
        "per token": "per token",
    }
    page, stays = words("docs/ogls_sd.md"), set()
    for setting, own in rows.groupby("setting"):
        values = values_from(own, "accuracy")
        rate = float(str(setting).partition("=")[2])
        for arm, clip in clips.items():
            cells, holds = [f"{rate:.0e}".replace("e-0", "e-"), clip], []
            for student in ("rob", "pia"):
                d = compared(values, student, arm, BEFORE, pool_of([values])).difference
                told = "{:+.1f} ({:.1f} to {:.1f})".format(*(100 * x + 0.0 for x in (d.value, d.low, d.high)))
                cells += [f"{100 * values.mean((student, arm)):.1f}", told]
                holds.append(d.low <= 0 <= d.high)
            assert " | ".join(cells) in page, cells
            stays |= {(cells[0], clip)} if all(holds) else set()
    assert {rate for rate, clip in stays if clip == "two-sided"} == {"1e-4", "2e-5"}
    assert {rate for rate, clip in stays if clip == "one-sided"} <= {"2e-5"}
    assert {rate for rate, clip in stays if clip in ("none", "per token")} == {"5e-4", "1e-4", "2e-5"}
