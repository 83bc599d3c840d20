"""What a run writes down of a store is whole, and an attempt that was killed leaves nothing of it behind."""

from pathlib import Path

from cluster.storage import Place
from jobs.run.registry import Registration, read_registration


def test_what_a_killed_attempt_left_half_written_goes_at_the_runs_end_and_nobody_elses(
    tmp_path: Path,
) -> None:
    root = Place(str(tmp_path / "store"))
    own, other = (Registration(root, Place(str(tmp_path / name))) for name in ("a", "b"))
    own.name("train/1")
    own.save()
    left, foreign = (tmp_path / "store" / "runs" / f".{r.id}.json.0a1b2c3d.tmp" for r in (own, other))
    left.write_text("{")
    foreign.write_text("{")
    again = Registration(root, own.directory)
    again.name("train/1")
    again.save()
    again.settle()
    assert not left.exists()
    assert foreign.exists()
    assert read_registration(root / "runs" / f"{own.id}.json")["names"] == ["train/1"]


def test_two_attempts_of_one_run_forget_nothing_of_each_other(tmp_path: Path) -> None:
    """Each wrote what it knew: what the other had named in between was named by nobody."""
    root = Place(str(tmp_path / "store"))
    one, other = (Registration(root, Place(str(tmp_path / "run"))) for _ in range(2))
    one.name("train/0")
    one.save()
    other.name("train/0")
    other.save()
    one.name("train/1")
    one.save()
    other.name("train/2")
    other.save()
    named = read_registration(root / "runs" / f"{one.id}.json")["names"]
    assert named == ["train/0", "train/1", "train/2"]
    other.settle()
    assert read_registration(root / "runs" / f"{one.id}.json")["names"] == ["train/0", "train/2"]
