"""What a test does on a cluster, in a process of its own: where actors with labels land, or a choice without training."""

import json
import sys
from pathlib import Path
from typing import Any

from cluster.errors import TutelageError
from cluster.placement import Needs
from cluster.pool import Job, Pool
from cluster.session import RaySettings, connect


class TellZone:
    """A handler that says in which zone its actor lives."""

    def __call__(self, _: Any) -> str:
        import ray

        own = ray.get_runtime_context().get_node_id()
        return next(str(node["Labels"]["zone"]) for node in ray.nodes() if node["NodeID"] == own)


def where(address: str) -> None:
    """Print where jobs with labels ran, and how an impossible label is refused."""
    with connect(RaySettings(address=address)), Pool() as pool:
        jobs = [Job(zone, TellZone, [(f"{zone}{k}", k) for k in range(3)], 1, Needs(1.0, labels=(("zone", zone),))) for zone in "cab"]
        found = sorted({(result.job, result.value) for result in pool.run(jobs)})
        try:
            list(pool.run([Job("lost", TellZone, [("x", 0)], 1, Needs(1.0, labels=(("zone", "z"),)))]))
            refused = ""
        except TutelageError as error:
            refused = str(error)
    print(json.dumps({"found": found, "refused": refused}))


def train(address: str, model: str, folder: str) -> None:
    """Print in which zone a worker trained whose needs name one, and how memory that no node has is refused."""
    from cluster.loading import ModelSource
    from cluster.placement import Node, check_fits
    from cluster.storage import Place
    from training.data import Example, write_examples
    from training.loop import DONE, TrainJob
    from training.settings import TrainSettings
    from training.trainer import train_jobs

    write_examples(Place(f"{folder}/examples.arrow"), [Example(tuple(range(3, 30)), 6, 27)] * 4)
    job = TrainJob("t", ModelSource(model), f"{folder}/examples.arrow", f"{folder}/t", 0, TrainSettings(steps=1, batch_size=2))
    needs = Needs(1.0, memory_gib=0.2, labels=(("zone", "b"),))
    with connect(RaySettings(address=address)) as cluster:
        import ray

        train_jobs([job], name="t", storage=Place(f"{folder}/ray"), needs=needs)
        node = json.loads(Path(f"{folder}/t/{DONE}").read_text())["node"]
        zone = next(n["Labels"]["zone"] for n in ray.nodes() if n["NodeID"] == node)
        try:
            check_fits("a train worker", Needs(1.0, memory_gib=9999.0), [Node(n.resources, n.labels) for n in cluster.nodes])
            refused = ""
        except TutelageError as error:
            refused = str(error)
    print(json.dumps({"zone": zone, "refused": refused}))


def choose(tree: str) -> None:
    """Run an experiment up to the first round's choice, and print the choice's parts."""
    from tests.test_pipeline import choose as choose_here

    stages = choose_here(json.loads(Path(tree).read_text()), Path(tree).parent)
    print(json.dumps({name: stage.manifest()["parts"] for name, stage in stages.items()}))


if __name__ == "__main__":
    {"where": where, "choose": choose, "train": train}[sys.argv[1]](*sys.argv[2:])
