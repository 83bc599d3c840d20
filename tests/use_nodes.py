"""What a test does on a cluster, in a process of its own: where actors with labels land, or a choice without training."""

import json
import sys
from pathlib import Path
from typing import Any

from cluster.errors import TutelageError
from cluster.pool import Job, Needs, Pool
from cluster.session import RaySettings, connect


class TellZone:
    """A handler that says in which zone its actor lives."""

    def __call__(self, _: Any) -> str:
        import ray

        own = ray.get_runtime_context().get_node_id()
        return next(str(node["Labels"]["zone"]) for node in ray.nodes() if node["NodeID"] == own)


def where(address: str) -> None:
    """Print where jobs with labels ran, and how an impossible label is refused."""
    with connect(RaySettings(address=address)) as cluster, Pool(cluster.resources, nodes=cluster.nodes) as pool:
        jobs = [Job(zone, TellZone, [(f"{zone}{k}", k) for k in range(3)], 1, Needs(1.0, labels=(("zone", zone),))) for zone in "cab"]
        found = sorted({(result.job, result.value) for result in pool.run(jobs)})
        try:
            list(pool.run([Job("lost", TellZone, [("x", 0)], 1, Needs(1.0, labels=(("zone", "z"),)))]))
            refused = ""
        except TutelageError as error:
            refused = str(error)
    print(json.dumps({"found": found, "refused": refused}))


def choose(tree: str) -> None:
    """Run an experiment up to the first round's choice, and print the choice's parts."""
    from tests.test_pipeline import choose as choose_here

    stages = choose_here(json.loads(Path(tree).read_text()), Path(tree).parent)
    print(json.dumps({name: stage.manifest()["parts"] for name, stage in stages.items()}))


if __name__ == "__main__":
    {"where": where, "choose": choose}[sys.argv[1]](sys.argv[2])
