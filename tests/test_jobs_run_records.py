"""Records and parts of a store: what is read is what was written, or one line names the file."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import BadInput
from cluster.storage import Place
from jobs.run.garbage import find_garbage
from jobs.run.records import Damaged, is_torn, read_parts, read_record, record_or_nothing
from jobs.run.registry import RUNS, Registration
from jobs.run.store import FOLDERS, Another, Stage, Store, compare, read_fallbacks, write_table
from jobs.run.tables import Owner, Request, Table
from jobs.run.views import CUT, View

NO_OBJECTS = [b"", b"[]", b"null", b"3", b'"a"', b"{", bytes(range(256)), b"[" * 100_000, b"\xff\xfe{\0}\0"]


def finished(folder: Path, name: str = "select", value: int = 1) -> Stage:
    stage = Store(folder).stage(name, 1, {"value": value}, {})
    write_table(stage.part("chosen"), pd.DataFrame({"n": [value, 2, 3]}))
    stage.finish(["chosen"])
    return stage


@pytest.mark.parametrize("content", NO_OBJECTS)
def test_a_record_that_is_no_object_is_damaged(tmp_path: Path, content: bytes) -> None:
    place = Place(str(tmp_path / "record.json"))
    place.write_bytes(content)
    with pytest.raises(Damaged):
        read_record(place)
    assert record_or_nothing(place) == {}
    assert is_torn(place)


def test_a_record_that_is_not_there_is_not_damaged_and_a_folder_is(tmp_path: Path) -> None:
    assert not is_torn(Place(str(tmp_path / "nothing")))
    assert is_torn(Place(str(tmp_path)))
    with pytest.raises(FileNotFoundError):
        read_parts(Place(str(tmp_path / "nothing")))


@pytest.mark.parametrize("parts", [None, [], "a", {"a": None}, {"a": []}])
def test_a_record_whose_parts_are_none_is_torn(tmp_path: Path, parts: object) -> None:
    (tmp_path / "view.json").write_text(json.dumps({"parts": parts}))
    assert is_torn(Place(str(tmp_path / "view.json")))


@pytest.mark.parametrize("content", [*NO_OBJECTS, b"{}", b'{"parts": null}'])
def test_a_damaged_manifest_is_named_and_its_stage_can_be_finished_again(
    tmp_path: Path, content: bytes
) -> None:
    stage = finished(tmp_path)
    (stage.directory / "manifest.json").write_bytes(content)
    assert stage.is_torn
    with pytest.raises(BadInput, match=r"manifest.*remove"):
        stage.read()
    stage.reopen()
    assert stage.has("chosen")


@pytest.mark.parametrize("place", [0, 8, 100, -1, -9])
def test_a_flipped_byte_is_found_when_the_part_is_read(tmp_path: Path, place: int) -> None:
    stage = finished(tmp_path)
    file = stage.part("chosen").path
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))
    for read in (stage.read, lambda: stage.read("chosen"), lambda: stage.check("chosen")):
        with pytest.raises(BadInput, match=r"chosen\.parquet is damaged or gone.*remove"):
            read()


@pytest.mark.parametrize("harm", ["gone", "half", "empty", "a folder"])
def test_a_part_that_is_not_there_or_not_whole_is_named(tmp_path: Path, harm: str) -> None:
    stage = finished(tmp_path)
    file = stage.part("chosen").path
    content = file.read_bytes()
    file.unlink()
    if harm == "a folder":
        file.mkdir()
    elif harm != "gone":
        file.write_bytes(content[: len(content) // 2 if harm == "half" else 0])
    with pytest.raises(BadInput, match=r"chosen\.parquet is damaged or gone"):
        stage.read()


def test_another_arms_choice_in_this_ones_place_is_refused(tmp_path: Path) -> None:
    """It reads well, and is of other answers."""
    mine, theirs = finished(tmp_path, value=1), finished(tmp_path, value=7)
    assert list(mine.read()["n"]) == [1, 2, 3]
    mine.part("chosen").write_bytes(theirs.part("chosen").read_bytes())
    with pytest.raises(BadInput, match="sha256"):
        mine.read("chosen", ["n"])


def test_a_digest_is_computed_once_and_again_when_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, count = Place(str(tmp_path / "part")), []
    plain = Place.sha256
    monkeypatch.setattr(Place, "sha256", lambda self: count.append(self) or plain(self))
    place.write_bytes(b"one")
    about = {"sha256": plain(place)}
    for _ in range(3):
        compare(place, about)
    assert len(count) == 1
    place.write_bytes(b"another")
    with pytest.raises(Another):
        compare(place, about)
    compare(place, {})  # nothing was recorded


SQUARES = Owner("squares", 1, {"of": "numbers"}, {"name": "them"})


def view_of(folder: Path, values: list[int], owner: Owner = SQUARES) -> View:
    """A finished view of one part."""
    keys = sorted(n.to_bytes(16, "big") for n in range(len(values)))
    view = View(Table(Place(str(folder)), owner), Request(dict.fromkeys(keys)))
    view.table.introduce()
    name = f"{keys[0].hex()}-{keys[-1].hex()}-000000000000"
    view.table.write_part(name, keys, pd.DataFrame({"value": values}), {})
    view.finish(lambda rows: {"rows": len(rows)})
    return view


def test_another_owners_part_with_the_same_keys_is_refused_with_the_record_beside_it(tmp_path: Path) -> None:
    mine = view_of(tmp_path, [1, 2, 3])
    theirs = view_of(tmp_path, [4, 5, 6], Owner("squares", 1, {"of": "others"}))
    assert list(mine.read()["value"]) == [1, 2, 3]
    for file in theirs.table.directory.path.glob("*-*-*"):
        (mine.table.directory.path / file.name).write_bytes(file.read_bytes())
    for read in (mine.read, lambda: mine.finished.rows(mine.asked.keys), lambda: mine.read_slice(0)):
        with pytest.raises(BadInput, match=r"is damaged or gone.*view\.json"):
            read()


@pytest.mark.parametrize("harm", ["flipped", "its record is []", "its record is empty", "half", "gone"])
def test_a_part_that_is_not_what_was_written_counts_as_not_there(tmp_path: Path, harm: str) -> None:
    view = view_of(tmp_path, [1, 2, 3])
    part = next(view.table.directory.path.glob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    if harm.startswith("its"):
        part.with_suffix(".json").write_text("[]" if "[]" in harm else "")
    elif harm == "gone":
        part.unlink()
    else:
        part.write_bytes(bytes(content) if harm == "flipped" else bytes(content)[: len(content) // 2])
    view.reopen()
    assert view.missing() == view.asked.keys


@pytest.mark.parametrize("content", [*NO_OBJECTS, b"{}", b'{"ranges": null}', b'{"ranges": [["x"]]}'])
def test_a_damaged_cut_is_cut_anew(tmp_path: Path, content: bytes) -> None:
    view = view_of(tmp_path, [1, 2])
    (view.directory / CUT).write_bytes(content)
    assert view.known_cut() == []


@pytest.mark.parametrize("content", NO_OBJECTS)
def test_what_is_said_beside_rows_is_written_again_or_its_loss_told(tmp_path: Path, content: bytes) -> None:
    view = view_of(tmp_path, [1])
    owner = view.table.directory / "owner.json"
    owner.write_bytes(content)
    view.table.introduce()
    assert read_record(owner)["about"] == {"name": "them"}
    (view.directory / "fallbacks.json").write_bytes(content)
    assert "cannot be read" in str(read_fallbacks(view.directory))


@pytest.mark.parametrize(
    "content", [*NO_OBJECTS, b"{}", b'{"names": [1], "directory": "a"}', b'{"names": ["a"]}']
)
def test_garbage_is_not_looked_for_where_a_registration_cannot_be_read(
    tmp_path: Path, content: bytes
) -> None:
    root = Place(str(tmp_path))
    Registration(root, root / "run").save()
    (root / RUNS / "0.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"registration is damaged.*0\.json"):
        find_garbage(root, 0)


def test_a_registration_that_is_a_folder_is_named(tmp_path: Path) -> None:
    root = Place(str(tmp_path))
    registration = Registration(root, root / "run")
    (root / RUNS / f"{registration.id}.json").path.mkdir(parents=True)
    with pytest.raises(BadInput, match="is a directory"):
        registration.save()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_the_store_that_is_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(BadInput, match=f"{name}; expected a folder"):
        Store(tmp_path)
