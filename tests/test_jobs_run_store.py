"""The store: ids by content, manifest last, torn files noticed, the same bytes."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cluster.errors import BadInput
from jobs.run.store import Store, write_atomically, write_table

TABLE = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


def test_an_id_follows_from_content_and_never_from_where_it_lies(tmp_path: Path) -> None:
    one = Store(tmp_path / "one").stage("score", 1, {"x": 1, "y": [1, 2]}, {"in": "abc"})
    two = Store(tmp_path / "two").stage("score", 1, {"y": [1, 2], "x": 1}, {"in": "abc"})
    assert one.id == two.id
    for other in (
        ("score", 2, {"x": 1, "y": [1, 2]}, {"in": "abc"}),
        ("score", 1, {"x": 2, "y": [1, 2]}, {"in": "abc"}),
    ):
        assert Store(tmp_path).stage(*other).id != one.id
    assert Store(tmp_path).stage("score", 1, {"x": 1, "y": [1, 2]}, {"in": "abd"}).id != one.id


def test_a_stage_is_finished_only_with_its_manifest_and_reads_what_was_written(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("verify", 1, {}, {})
    write_table(stage.part("000000"), TABLE)
    write_table(stage.part("stray"), TABLE)
    assert not stage.is_finished
    stage.finish(["000000"], answers=2)
    assert stage.is_finished
    pd.testing.assert_frame_equal(stage.read(), TABLE)
    manifest = stage.manifest()
    assert manifest["counts"] == {"answers": 2}
    assert manifest["parts"]["000000"]["rows"] == 2
    assert len(manifest["parts"]["000000"]["sha256"]) == 64
    assert manifest["packages"]["ray"].startswith("2.60")
    assert not stage.part("stray").is_file()


def test_a_torn_part_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("verify", 1, {}, {})
    write_table(stage.part("p"), TABLE)
    assert stage.has("p")
    stage.part("p").write_bytes(stage.part("p").read_bytes()[:-7])
    assert not stage.has("p")
    assert not stage.part("p").is_file()


def test_a_torn_manifest_is_named_with_what_to_remove(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("verify", 1, {}, {})
    (stage.directory / "manifest.json").write_bytes(b'{"counts": ')
    with pytest.raises(BadInput, match=r"manifest of verify.*damaged.*remove"):
        stage.manifest()


def test_the_same_table_gives_the_same_bytes_and_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    write_table(tmp_path / "1.parquet", TABLE)
    write_table(tmp_path / "2.parquet", TABLE.copy())
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "x", "not bytes")  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.parquet", "2.parquet"]


def test_a_manifest_is_plain_json(tmp_path: Path) -> None:
    stage = Store(tmp_path).stage("select", 1, {"cost": None}, {"scores": "s"})
    stage.finish([], chosen=0)
    content = json.loads((stage.directory / "manifest.json").read_text())
    assert (content["stage"], content["inputs"], content["config"]) == (
        "select",
        {"scores": "s"},
        {"cost": None},
    )
