"""What a test does on a cluster, in a process of its own: where actors with labels land, or a choice without
training.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import TutelageError
from cluster.job import Job
from cluster.models.loading import ModelSource
from cluster.placement import Needs
from cluster.pool import ActorPool
from cluster.session import RaySettings, connect
from cluster.storage import Place
from training.data import Example, write_examples
from training.job import DONE, TrainJob
from training.settings import TrainSettings
from training.trainer import WorkerGroup, check_train_room, train_jobs


class TellZone:
    """A handler that says in which zone its actor lives."""

    def __call__(self, _: Any) -> str:
        import ray

        own = ray.get_runtime_context().get_node_id()
        return next(str(node["Labels"]["zone"]) for node in ray.nodes() if node["NodeID"] == own)


def where(address: str, model: str, folder: str) -> None:
    """Print where jobs and train workers with labels ran, and how what no node has is refused."""
    with connect(RaySettings(address=address)) as cluster:
        with ActorPool() as pool:
            jobs = [
                Job(
                    zone,
                    TellZone,
                    [(f"{zone}{k}", k) for k in range(3)],
                    1,
                    Needs(1.0, labels=(("zone", zone),)),
                )
                for zone in "cab"
            ]
            found = sorted({(result.job, result.value) for result in pool.run(jobs)})
            lost = Job("lost", TellZone, [("x", 0)], 1, Needs(1.0, labels=(("zone", "z"),)))
            refused = refusal(lambda: list(pool.run([lost])))
        told = {"found": found, "refused": refused, "train_zone": train_zone(model, folder)}
        told["train_refused"] = refusal(
            lambda: check_train_room(1, Needs(1.0, memory_gib=9999.0), cluster.nodes)
        )
    print(json.dumps(told))


def refusal(call: Callable[[], Any]) -> str:
    """What a call says when it refuses."""
    try:
        call()
    except TutelageError as error:
        return str(error)
    return ""


def train_zone(model: str, folder: str) -> str:
    """The zone of a worker that trains in zone b."""
    import ray

    write_examples(Place(f"{folder}/examples.arrow"), [Example(tuple(range(3, 30)), 6, 27)] * 4)
    job = TrainJob(
        "t",
        ModelSource(model),
        f"{folder}/examples.arrow",
        f"{folder}/t",
        0,
        TrainSettings(steps=1, batch_size=2),
    )
    train_jobs(
        [job],
        name="t",
        storage=Place(f"{folder}/ray"),
        group=WorkerGroup(needs=Needs(1.0, memory_gib=0.2, labels=(("zone", "b"),))),
    )
    node = json.loads(Path(f"{folder}/t/{DONE}").read_text())["node"]
    return next(str(n["Labels"]["zone"]) for n in ray.nodes() if n["NodeID"] == node)


def choose(tree: str) -> None:
    """Run an experiment up to the first round's choice, and print the choice's parts."""
    from tests.runs import choose as choose_here

    stages, _ = choose_here(json.loads(Path(tree).read_text()), Path(tree).parent, on_ray=True)
    print(json.dumps({name: chosen.stage.manifest()["parts"] for name, chosen in stages.items()}))


if __name__ == "__main__":
    {"where": where, "choose": choose}[sys.argv[1]](*sys.argv[2:])
