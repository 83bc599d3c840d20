"""A study's files are read again as they were written, whatever its members are called."""

from pathlib import Path

import pandas as pd
import pytest

from cluster.storage import Place
from jobs.experiment.study import Study
from jobs.report.study import gains_picture, with_earlier, write_study
from jobs.study.running import Found
from jobs.study.summary import best_teachers
from jobs.study.tables import Tables

NAMES = ("NA", "7", "None", "nan", "1e3", "true")
ARM = {"name": "random", "rule": "random"}


def pairs_of(
    students: tuple[str, ...], teachers: tuple[str, ...], settings: tuple[str, ...] = ("",)
) -> pd.DataFrame:
    """Teachers from the last to the first by what they give, all of them equally strong."""
    rows = [
        ("p", setting, student, teacher, 0.01 * k, 0.5, 1.0 + k)
        for setting in settings
        for student in students
        for k, teacher in enumerate(teachers)
    ]
    return pd.DataFrame(
        rows, columns=["part", "setting", "student", "teacher", "gain", "teacher accuracy", "mean loss"]
    )


def values_of(students: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        [("p", "", s, "random", 0, 1, 0.25, 8) for s in students],
        columns=["part", "setting", "student", "arm", "seed", "round", "value", "examples"],
    )


def study(**part: object) -> Study:
    parts = {"p": {"arms": [ARM], **part}, "q": {"arms": [ARM]}}
    return Study.model_validate({"name": "s", "experiment": {"evaluate": None}, "parts": parts})


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path: Path) -> None:
    found = Found(study())
    found.tables["p"] = Tables(values=values_of(NAMES), pairs=pairs_of(NAMES, NAMES))
    write_study(found, Place(str(tmp_path)))
    again = with_earlier(Found(found.study), Place(str(tmp_path)))[0].tables["p"]
    pd.testing.assert_frame_equal(again.values, found.tables["p"].values)
    pd.testing.assert_frame_equal(again.pairs, found.tables["p"].pairs, check_dtype=False)
    page, *_ = write_study(Found(found.study), Place(str(tmp_path)))
    assert all(f">{name}<" in page.read_text() for name in NAMES)


def test_files_of_an_earlier_part_stay_as_they_were_written(tmp_path: Path) -> None:
    """Whole numbers beside empty places were read as fractions and written again with five digits."""
    values = values_of(("a", "b"))
    values["answer_tokens"] = pd.array([123456, None], dtype="Int64")
    found = Found(study())
    found.tables["p"] = Tables(values=values)
    write_study(found, Place(str(tmp_path)))
    first = (tmp_path / "p-values.csv").read_bytes()
    assert b"123456" in first
    other = Found(study())
    other.tables["q"] = Tables(values=values_of(("a",)))
    write_study(other, Place(str(tmp_path)))
    assert (tmp_path / "p-values.csv").read_bytes() == first


def test_files_of_another_study_or_definition_are_no_part_of_the_page(tmp_path: Path) -> None:
    found = Found(study())
    found.tables["p"] = Tables(values=values_of(("a",)))
    write_study(found, Place(str(tmp_path)))
    same, others = with_earlier(Found(study()), Place(str(tmp_path)))
    assert (set(same.tables), others) == ({"p"}, [])
    for changed in (
        study(seeds=2),
        study().model_copy(update={"name": "t"}),
        study().model_copy(update={"experiment": {"evaluate": {"metric": "loss"}}}),
    ):
        later = Found(changed)
        later.tables["q"] = Tables(values=values_of(("b",)))
        seen, others = with_earlier(later, Place(str(tmp_path)))
        assert (set(seen.tables), others) == ({"q"}, ["p"])
        page, *_ = write_study(later, Place(str(tmp_path)))
        assert "part p is left out" in page.read_text()
    elsewhere = study().model_copy(update={"experiment": {"evaluate": None, "store": "other", "ray": {}}})
    seen, others = with_earlier(Found(elsewhere), Place(str(tmp_path)))
    assert (set(seen.tables), others) == ({"p"}, ["q"])  # where a study runs is no part of its definition


def test_an_earlier_part_has_its_own_metric(tmp_path: Path) -> None:
    found = Found(study(set={"evaluate.metric": "loss"}))
    found.tables["p"] = Tables(values=values_of(("a",)), metric="loss")
    write_study(found, Place(str(tmp_path)))
    again, _ = with_earlier(Found(found.study), Place(str(tmp_path)))
    assert again.tables["p"].unit == (1.0, "nats per answer token")


def test_a_table_that_is_empty_now_leaves_no_file_of_before(tmp_path: Path) -> None:
    found = Found(study())
    found.tables["p"] = Tables(values=values_of(("a",)), pairs=pairs_of(("a",), ("t", "u")))
    write_study(found, Place(str(tmp_path)))
    assert (tmp_path / "p-pairs.csv").is_file()
    found.tables["p"] = Tables(values=values_of(("a",)))
    write_study(found, Place(str(tmp_path)))
    assert not (tmp_path / "p-pairs.csv").exists()


def test_of_equally_strong_teachers_the_first_by_name_is_the_strongest_in_table_and_picture() -> None:
    pairs = pairs_of(("a",), ("qwen-chat", "qwen", "b"))
    picture = gains_picture(pairs, 100.0, "points")
    places = [picture.index(f"{name} (50 %)") for name in ("qwen-chat", "qwen", "b")]
    assert places == sorted(places)  # the strongest is the last
    assert best_teachers(Tables(pairs=pairs))["strongest teacher"].tolist() == ["b"]


def test_hindsight_stays_beside_its_student_where_only_some_settings_have_it() -> None:
    """Of two crossed settings one has a single teacher, so no hindsight and no pair of it."""
    arms = (("x", "in hindsight"), ("x", "r"), ("y", "r"))
    compared = pd.DataFrame(
        [("p", s, "a", arm, 0.1, 0.0, 0.2, 0.03) for s, arm in arms],
        columns=["part", "setting", "student", "arm", "difference", "low", "high", "p_corrected"],
    )
    best = best_teachers(Tables(pairs=pairs_of(("a",), ("t", "u"), ("x",)), comparisons=compared))
    assert best["hindsight"].tolist() == pytest.approx([0.1])
    assert best["student"].tolist() == ["a [x]"]
