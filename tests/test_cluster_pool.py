"""The pool on a real Ray: waves, deaths, errors, refusals, and results that do not depend on workers."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from cluster.errors import BadInput, NoRoom, ShardFailed
from cluster.job import Job
from cluster.metrics import Tally
from cluster.placement import Needs
from cluster.pool import ActorPool
from cluster.session import Cluster, RaySettings, connect
from tests.patience import Patience


class Doubler:
    """Doubles numbers; dies, raises, or notes its process as told."""

    def __init__(
        self,
        notes: str,
        die_once_at: int | None = None,
        always_die_at: int | None = None,
        fail_at: int | None = None,
    ) -> None:
        self.notes, self.die_once_at, self.always_die_at, self.fail_at = (
            Path(notes),
            die_once_at,
            always_die_at,
            fail_at,
        )
        (self.notes / f"load-{os.getpid()}-{time.monotonic_ns()}").touch()

    def __call__(self, number: int) -> int:
        mark = self.notes / f"died-{number}"
        if number == self.always_die_at or (number == self.die_once_at and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.fail_at:
            raise ValueError(f"cannot double {number}")
        if number == -1:
            raise BadInput("a number we do not take", number, "0 or more", "give another")
        return 2 * number


def shards(count: int) -> list[tuple[str, int]]:
    return [(f"s{i}", i) for i in range(count)]


def job(
    name: str, folder: Path, count: int = 12, replicas: int = 2, needs: Needs | None = None, **options: int
) -> Job:
    return Job(name, partial(Doubler, str(folder), **options), shards(count), replicas, needs or Needs(1.0))


def doubled(pool: ActorPool, jobs: list[Job]) -> dict[tuple[str, str], int]:
    return {(r.job, r.shard): r.value for r in pool.run(jobs)}


def test_every_shard_comes_back_once_whatever_the_number_of_workers(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    with ActorPool() as pool:
        results = [doubled(pool, [job("d", tmp_path, replicas=n)]) for n in (1, 2)]
    assert results[0] == results[1] == {("d", f"s{i}"): 2 * i for i in range(12)}


def test_ten_jobs_go_through_room_for_two_in_waves_on_reused_actors(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    with ActorPool() as pool:
        got = doubled(pool, [job(f"teacher{k}", tmp_path, count=3, replicas=1) for k in range(10)])
    assert len(got) == 30
    loads = [p.name.split("-") for p in tmp_path.glob("load-*")]
    assert len(loads) == 10  # each handler was built once
    assert len({pid for _, pid, _ in loads}) <= 2  # by two processes


@pytest.mark.long
def test_jobs_of_different_sizes_take_turns_instead_of_hanging(ray_cluster: Cluster, tmp_path: Path) -> None:
    sizes = [Needs(2.0), Needs(1.0), Needs(0.5), Needs(2.0), Needs(0.0)]
    with ActorPool() as pool:
        got = doubled(
            pool, [job(f"j{k}", tmp_path, count=4, replicas=3, needs=n) for k, n in enumerate(sizes)]
        )
    assert len(got) == 20


def test_a_killed_actor_is_replaced_and_its_shard_run_again(ray_cluster: Cluster, tmp_path: Path) -> None:
    with ActorPool() as pool:
        got = doubled(pool, [job("d", tmp_path, die_once_at=5)])
    assert got == {("d", f"s{i}"): 2 * i for i in range(12)}
    assert (tmp_path / "died-5").exists()


def test_a_shard_that_kills_its_actor_every_time_stops_the_stage_with_its_name(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    with ActorPool(retries=1) as pool, pytest.raises(ShardFailed, match=r"died 2 times on shard s5"):
        doubled(pool, [job("d", tmp_path, replicas=1, always_die_at=5)])


def test_an_error_in_our_code_stops_the_stage_with_the_shards_name_and_the_pool_stays_usable(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    with ActorPool() as pool:
        with pytest.raises(ShardFailed, match=r"d failed in shard s7.*cannot double 7"):
            doubled(pool, [job("d", tmp_path, fail_at=7)])
        assert len(doubled(pool, [job("again", tmp_path)])) == 12


def test_an_error_the_user_can_mend_comes_through_as_itself(ray_cluster: Cluster, tmp_path: Path) -> None:
    bad = Job("d", partial(Doubler, str(tmp_path)), [("s", -1)])
    with ActorPool() as pool, pytest.raises(BadInput, match="a number we do not take; got -1"):
        doubled(pool, [bad])


def test_what_can_never_be_placed_is_refused_before_anything_starts(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    with ActorPool() as pool:
        for needs in (Needs(99.0), Needs(1.0, 1.0)):
            with pytest.raises(NoRoom, match=r"cannot be placed.*at most 2 CPU"):
                doubled(pool, [job("ok", tmp_path), job("big", tmp_path, needs=needs)])
    assert not list(tmp_path.glob("load-*"))


def test_more_cpus_than_the_machine_has_are_refused_before_ray_starts() -> None:
    with pytest.raises(NoRoom, match=r"ray\.num_cpus"), connect(RaySettings(num_cpus=10_000)):
        pass


def test_it_says_what_it_waits_for_when_the_cluster_is_busy(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr("cluster.pool.WAIT_NOTICE_S", 0.3)

    @ray.remote(num_cpus=2)
    class Hog:
        def ready(self) -> bool:
            return True

    hog = Hog.remote()
    assert ray.get(hog.ready.remote())
    said: list[str] = []

    def on_wait(text: str) -> None:
        said.append(text)
        ray.kill(hog)

    with ActorPool(on_wait=on_wait) as pool:
        assert len(doubled(pool, [job("d", tmp_path)])) == 12
    assert "d (1 CPU)" in said[0]
    assert "free now" in said[0]


def test_shards_are_drawn_lazily(ray_cluster: Cluster, tmp_path: Path) -> None:
    drawn = []

    def many() -> object:
        for i in range(1000):
            drawn.append(i)
            yield f"s{i}", i

    with ActorPool() as pool:
        results = pool.run([Job("d", partial(Doubler, str(tmp_path)), many(), 2)])  # type: ignore[arg-type]
        for _ in range(10):
            next(results)
        assert len(drawn) <= 10 + 2 * 2 + 2
        results.close()  # type: ignore[attr-defined]


class Busy:
    """A handler whose shards amount to something."""

    def __call__(self, payload: int) -> Tally:
        return Tally(items=payload, tokens=10 * payload, quarantined=1, spend_usd=0.25)


def test_what_shards_amount_to_is_on_the_prometheus_endpoint_by_stage_and_job(ray_cluster: Cluster) -> None:
    import urllib.request

    import ray

    with ActorPool() as pool:
        assert len(list(pool.run([Job("count these", Busy, [(str(k), k) for k in (1, 2, 3)])]))) == 3
    (node,) = [n for n in ray.nodes() if n["Alive"]]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {"shards": 3.0, "items": 6.0, "tokens": 60.0, "quarantined": 3.0, "spend_usd": 0.75}
    found: dict[str, float] = {}
    patience = Patience(60)
    while found != wanted and not patience.is_over:
        time.sleep(0.2)  # polls a condition with a deadline: Ray exports every few seconds
        with urllib.request.urlopen(address) as response:
            lines = [
                line
                for line in response.read().decode().splitlines()
                if 'stage="count"' in line and 'job="count these"' in line
            ]
        found = {
            line.partition("{")[0].removeprefix("ray_tutelage_").removesuffix("_total"): float(
                line.split()[-1]
            )
            for line in lines
        }
    assert found == wanted


def test_on_a_cluster_that_grows_more_is_asked_for_than_is_there_and_nothing_blocks(
    ray_cluster: Cluster,
) -> None:
    jobs = [
        Job(f"job{k}", Busy, [(f"{k}-{i}", i) for i in range(3)], 1) for k in range(6)
    ]  # six actors at once, on two cores
    with ActorPool(grows=True) as pool:
        pool.check([Job("huge", Busy, [], 1, Needs(999.0))])
        assert len(list(pool.run(jobs))) == 18


def test_two_jobs_beside_a_tenant_who_keeps_half_of_the_cluster_both_end(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    """The other's actor waited for the room that an idle one of the first job held, for ever."""
    import ray

    @ray.remote(num_cpus=1)
    class Tenant:
        def ready(self) -> bool:
            return True

    tenant = Tenant.remote()
    assert ray.get(tenant.ready.remote())
    with ActorPool() as pool:
        got = doubled(
            pool,
            [
                job("a", tmp_path, count=4),
                job("b", tmp_path, count=4),
                job("half", tmp_path, count=2, needs=Needs(0.5)),
            ],
        )
    ray.kill(tenant)
    assert len(got) == 10


class Breaks:
    """A handler whose device breaks on one shard, the first time."""

    def __init__(self, note: str) -> None:
        self.note = Path(note)

    def __call__(self, number: int) -> int:
        import torch

        if number == 2 and not self.note.exists():
            self.note.touch()
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return number


def test_a_broken_device_ends_its_process_and_the_shard_runs_elsewhere(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    with ActorPool() as pool:
        results = pool.run(
            [Job("d", partial(Breaks, str(tmp_path / "note")), [(str(k), k) for k in range(5)], 1)]
        )
        assert sorted(r.value for r in results) == [0, 1, 2, 3, 4]
