"""Launching the training loop with Ray Train: one worker group for a queue of jobs. Their metrics files show
the progress.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.placement import GIB, Needs, Node, check_fits
from cluster.storage import Place
from cluster.threads import waiting
from training.checkpoints import keep_newest, mend_snapshot
from training.fitting import TrainingFailed, fit, progress_of, torch_trainer
from training.job import TrainJob, paused_name
from training.waiting import BEGUN, START_DEADLINE_S, Start

ONE_CPU = Needs()


@dataclass(frozen=True)
class WorkerGroup:
    """How a worker group is placed and kept alive.

    Attributes:
        needs: the resources of each worker. GPUs are whole numbers.
        max_failures: how often a lost group is started again.
        environment: further variables for the workers.
        start_deadline_s: how long the group may take to begin work, waiting for room included. It holds for
            the first start and for every restart.
    """

    workers: int = 1
    needs: Needs = ONE_CPU
    max_failures: int = 3
    environment: Mapping[str, str] = field(default_factory=dict)
    start_deadline_s: float = START_DEADLINE_S


ONE_WORKER = WorkerGroup()


def train_jobs(
    jobs: Sequence[TrainJob],
    *,
    name: str,
    storage: Place,
    group: WorkerGroup = ONE_WORKER,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> None:
    """Train every job that is not done yet, in order, on one Ray Train worker group.

    A further call with the same `name` and `storage` continues from the newest checkpoint.

    Args:
        name: the name of the Ray Train run. It must follow from the jobs, so that a restart finds its
            checkpoints.
        storage: a directory that every node sees, or a URI. Checkpoints stay there until every job of the
            queue has ended.
        on_progress: called with (optimizer steps done, steps of the queue) about twice a second.
        on_wait: called with what a training waits for, if it does not begin.

    Raises:
        TrainingFailed: with the worker's own error.
        NotBegun: the worker group got no place, or did not get to work, within its deadline.
    """
    checkpoints, pending = storage / name, [job for job in jobs if not job.is_done]
    for job in pending:
        job.forget_failure()
    if pending:
        begun = checkpoints / BEGUN
        start = Start(group.workers, group.needs, begun, group.start_deadline_s, on_wait)
        trainer = _trainer(jobs, name, storage, group)
        begun.unlink()
        fit(trainer, start, progress_of(pending, on_progress))
    refuse_failed(pending)
    missing = [job.job_id for job in jobs if not job.is_done]
    if missing:
        raise TrainingFailed(
            "training ended without finishing every job", ", ".join(missing), "a DONE file each", "run again"
        )
    if all(job.has_ended for job in jobs):
        checkpoints.remove()


def refuse_failed(jobs: Sequence[TrainJob]) -> None:
    """Raise the reason why a training failed.

    Raises:
        TrainingFailed: one did.
    """
    for job in jobs:
        if job.failure:
            raise TrainingFailed(f"training {job.job_id}", job.failure)


def train_lanes(
    jobs: Sequence[TrainJob],
    lanes: int,
    *,
    name: str,
    storage: Place,
    group: WorkerGroup = ONE_WORKER,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> None:
    """Train jobs on several worker groups side by side, each with its own share of the jobs (`dealt`). Small
    trainings are faster in this way than with more workers each.

    Raises:
        TrainingFailed: a lane failed. It is raised after the other lanes have ended.
    """
    shares = dealt(jobs, lanes)
    lanes = len(shares)
    if lanes <= 1:
        train_jobs(jobs, name=name, storage=storage, group=group, on_progress=on_progress, on_wait=on_wait)
        return
    done = [(0, 0)] * lanes
    failures: list[BaseException] = []

    def train(lane: int) -> None:
        def tell(steps: int, total: int) -> None:
            done[lane] = steps, total
            if on_progress is not None:
                on_progress(sum(s for s, _ in done), sum(t for _, t in done))

        try:
            own = f"{name}-{lane}-{lanes}"
            train_jobs(
                shares[lane], name=own, storage=storage, group=group, on_progress=tell, on_wait=on_wait
            )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=train, args=(lane,), daemon=True) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def dealt(jobs: Sequence[TrainJob], lanes: int) -> list[list[TrainJob]]:
    """Divide jobs into at most `lanes` lanes, none of them empty.

    A job that starts from another job's result follows it in the same lane. Such chains are dealt longest
    first, each to the lane with the fewest steps of whole trainings. Finished steps and the end of an attempt
    do not count. So the next attempt has the same lanes and finds their checkpoints.
    """
    chains: list[list[TrainJob]] = []
    chain_of: dict[str, list[TrainJob]] = {}  # by the outputs of its jobs
    for job in jobs:
        chain = chain_of.get(job.source.path.rpartition("/")[0])
        if chain is None:
            chain = []
            chains.append(chain)
        chain.append(job)
        chain_of[job.output] = chain
    steps = [sum(replace(job, until=None).steps for job in chain) for chain in chains]
    shares: list[list[TrainJob]] = [[] for _ in range(min(max(1, lanes), len(chains)))]
    totals = [0] * len(shares)
    for k in sorted(range(len(chains)), key=lambda k: (-steps[k], k)):
        lane = min(range(len(shares)), key=lambda lane: (totals[lane], lane))
        shares[lane] += chains[k]
        totals[lane] += steps[k]
    return shares


def _trainer(jobs: Sequence[TrainJob], name: str, storage: Place, group: WorkerGroup) -> Any:
    """Ray's trainer for a queue. Files of an earlier attempt are put in order first."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig

    from training.loop import train_worker  # imports torch, which a command that trains nothing does not need

    checkpoints, needs = storage / name, group.needs
    pauses = any(job.until is not None or Place(job.output).glob(paused_name("*")) for job in jobs)
    if pauses:
        keep_newest(checkpoints, [job.job_id for job in jobs])
    if mend_snapshot(checkpoints):
        logging.getLogger(__name__).warning(
            "Ray's list of checkpoints in %s was torn; going on from the checkpoints themselves", checkpoints
        )
    system, path = storage.opened()
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    return torch_trainer()(
        train_worker,
        train_loop_config={"jobs": list(jobs), "checkpoints": str(checkpoints)},
        scaling_config=ScalingConfig(
            num_workers=group.workers,
            use_gpu=needs.num_gpus > 0,
            resources_per_worker=worker_resources(needs),
            label_selector=dict(needs.labels) or None,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=None if storage.is_local else system,
            failure_config=FailureConfig(max_failures=group.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=None if pauses else 2),
            worker_runtime_env={"env_vars": worker_environment(needs.num_gpus > 0) | dict(group.environment)},
        ),
    )


def check_train_room(workers: int, needs: Needs, nodes: Sequence[Node]) -> None:
    """Refuse a worker group that can never be placed. Ray Train would wait for ever.

    Raises:
        NoRoom: with what it asks for and what there is.
    """
    check_fits(f"{workers} train workers", needs, nodes, workers)


def worker_resources(needs: Needs) -> dict[str, float]:
    """The resources of each worker, by Ray's names. Resources that are not needed are left out."""
    asked = {"CPU": needs.num_cpus, "GPU": needs.num_gpus, "memory": float(int(needs.memory_gib * GIB))}
    return {kind: amount for kind, amount in asked.items() if amount or kind == "CPU"}


def worker_environment(on_gpu: bool) -> dict[str, str]:
    """Environment of a train worker: DeepSpeed told which accelerator, no hub, no compile chatter."""
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "DS_LOG_LEVEL": "warning",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        **waiting(),
    }
    if not on_gpu:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment
