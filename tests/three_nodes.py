"""A Ray cluster of three nodes on this machine, for tests: prints its address, ends when its standard input
closes.

Lines on standard input kill a node (`kill ZONE`) in between; the answer is `killed ZONE`.
"""

import os
import sys

from cluster.session import LOOPBACK_ONLY

os.environ.update(LOOPBACK_ONLY)

from ray.cluster_utils import Cluster


def main() -> None:
    options = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(
        initialize_head=True, head_node_args={**options, "labels": {"zone": "a"}, "include_dashboard": False}
    )
    nodes = {zone: cluster.add_node(**options, labels={"zone": zone}) for zone in ("b", "c")}
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        zone = line.split()[1]
        cluster.remove_node(nodes.pop(zone), allow_graceful=False)
        print(f"killed {zone}", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
