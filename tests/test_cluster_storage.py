"""Places by path and by URI: whole files, no way out of a directory, one fetch a change; S3 against a real
server on loopback.
"""

import multiprocessing as mp
import pickle
import time
from pathlib import Path

import pytest

from cluster.errors import BadInput
from cluster.locks import held, is_held
from cluster.storage import Place, local_copy
from tests.patience import wait_until


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A directory on each file system."""
    if request.param == "local":
        return Place(str(tmp_path))
    bucket: str = request.getfixturevalue("s3_bucket")
    return Place(f"{bucket}/{tmp_path.name}")


def test_what_is_written_is_read_listed_and_removed(place: Place) -> None:
    file = place / "a/b.json"
    assert not file.is_file()
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    file.write_bytes(b"one")
    file.write_bytes(b"two")
    (place / "a/c.txt").write_bytes(b"")
    assert pickle.loads(pickle.dumps(file)).read_text() == "two"
    assert [p.name for p in (place / "a").glob("*.json")] == ["b.json"]
    assert place.files() == {"a/b.json": 3, "a/c.txt": 0}
    file.unlink()
    file.unlink()
    assert place.files() == {"a/c.txt": 0}
    (place / "a").remove()
    (place / "a").remove()
    assert place.files() == {}
    assert (place / "none").glob("*") == []
    with pytest.raises(TypeError):
        file.write_bytes("not bytes")  # type: ignore[arg-type]
    assert place.files() == {}


def test_a_directory_is_taken_in_place_of_what_was_there(place: Place) -> None:
    target = place / "model"
    for content in ("old", "new"):
        folder = target.scratch()
        (folder / "sub").mkdir()
        (folder / "sub" / content).write_text(content)
        target.take(folder)
        assert not folder.exists()
    assert target.files() == {"sub/new": 3}


@pytest.mark.parametrize("name", ["../other", "a/../../b", "/etc/passwd", "", "a\0b"])
def test_a_name_that_climbs_out_of_its_directory_is_refused(place: Place, name: str) -> None:
    with pytest.raises(BadInput, match="leads out of its directory"):
        place / name


def test_a_uri_is_fetched_once_and_again_when_it_changes(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    source = Place(f"{s3_bucket}/{tmp_path.name}/data")
    (source / "q.jsonl").write_bytes(b"1")
    (source / "deep/x").write_bytes(b"2")
    first = local_copy(str(source))
    assert {p.relative_to(first).as_posix(): p.read_text() for p in first.rglob("*") if p.is_file()} == {
        "q.jsonl": "1",
        "deep/x": "2",
    }
    made = first.stat().st_mtime_ns
    assert (local_copy(str(source)), first.stat().st_mtime_ns) == (first, made)
    assert local_copy(str(source / "q.jsonl")).read_text() == "1"
    (source / "q.jsonl").write_bytes(b"changed")
    assert (local_copy(str(source)) / "q.jsonl").read_text() == "changed"
    with pytest.raises(BadInput, match="nothing there"):
        local_copy(str(source / "none"))
    assert local_copy("plain/path") == Path("plain/path")


def test_a_key_in_a_uri_is_refused_without_being_repeated() -> None:
    with pytest.raises(BadInput) as raised:
        Place("s3://AKIASECRET:hush@bucket/store")
    assert "hush" not in str(raised.value)
    with pytest.raises(BadInput, match="an unknown parameter; got secret"):
        Place("s3://bucket/x?secret=1").exists()


def test_a_server_that_is_not_there_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, s3_bucket: str) -> None:
    from jobs.run.store import Store

    with pytest.raises(BadInput, match=r"the store cannot be reached; got s3://no-such"):
        Store("s3://no-such/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")


def hold(lock: str, said: str, until: str) -> None:
    """Hold a lock from when `said` appears until `until` is there."""
    with held(Path(lock)):
        Path(said).touch()
        while not Path(until).exists():
            time.sleep(0.01)  # polls for the word of the process that started this one


def test_a_lock_file_stays_and_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    """Unlinked on release, NFS could show two processes two files of one name, each locked."""
    lock, said, until = tmp_path / "locks" / "l", tmp_path / "said", tmp_path / "until"
    with held(lock):
        first = lock.stat().st_ino
        assert is_held(lock)
    assert lock.stat().st_ino == first
    assert not is_held(lock)
    process = mp.get_context("spawn").Process(target=hold, args=(str(lock), str(said), str(until)))
    process.start()
    wait_until(said.exists, 60)
    waited: list[bool] = []
    with held(lock, on_wait=lambda: (waited.append(is_held(lock)), until.touch())):
        assert lock.stat().st_ino == first
    assert waited == [True]
    process.join()
    assert process.exitcode == 0


def test_a_lock_goes_with_its_process_however_that_ends(tmp_path: Path) -> None:
    lock, said = tmp_path / "l", tmp_path / "said"
    process = mp.get_context("spawn").Process(
        target=hold, args=(str(lock), str(said), str(tmp_path / "never"))
    )
    process.start()
    wait_until(said.exists, 60)
    assert is_held(lock)
    process.kill()
    process.join()
    assert not is_held(lock)
    assert lock.exists()
