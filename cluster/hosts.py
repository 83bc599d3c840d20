"""Ray actors that hold one handler at a time. This is the only part of the pool that calls Ray.

An error that leaves a GPU broken ends the actor's process: nothing it computed afterwards could be trusted.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from cluster.engine.own import end_engine
from cluster.errors import TutelageError
from cluster.halving import breaks_device
from cluster.last_words import last_words
from cluster.memory import free_memory
from cluster.placement import KINDS, Needs, Node
from cluster.threads import wait_asleep

Handler = Callable[[Any], Any]
LEAVES_S = 60.0  # seconds in which a host ends what it keeps
BROKEN_DEVICE = 70  # exit code of a process whose GPU cannot be used any more


class Died(Exception):
    """A host is gone: its process or its node ended, or it ran out of memory."""


class Failed(Exception):
    """A handler raised. The message is the last line of its error."""


class Hosts(Protocol):
    """What the pool needs of hosts. Futures are what `call` returns; they are hashable."""

    def look(self) -> list[Node]:
        """The nodes that are there now."""

    def free(self) -> dict[str, float]:
        """The resources that neither we nor other tenants use now, for messages."""

    def start(self, needs: Needs) -> Any:
        """Ask for a new host. It may have to wait for room."""

    def call(self, host: Any, method: str, *arguments: Any) -> Any:
        """Call `here`, `load` or `run` of a host. Calls of one host run in order, `at_once` of them at the
        same time.
        """

    def wait(self, futures: Sequence[Any], timeout_s: float) -> list[Any]:
        """The futures that are done. Empty if the time is over."""

    def result(self, future: Any) -> Any:
        """The result of a call. Raises Died, Failed, or a TutelageError of the handler."""

    def end(self, host: Any) -> None:
        """End a host and what it runs."""

    def leave(self, hosts: Sequence[Any]) -> None:
        """Let idle hosts end what they keep between jobs, such as engines, and wait for that. What follows
        may need their memory.
        """

    def now(self) -> float:
        """The time in seconds, from any fixed moment."""


class Host:
    """The actor: holds one handler at a time."""

    def __init__(self) -> None:
        wait_asleep()  # needed on a node that was not started by us
        self._handler: Handler | None = None

    def here(self) -> None:
        """Return as soon as the cluster has given this actor a place."""

    def load(self, make: Callable[[], Handler]) -> None:
        self._handler = None
        free_memory()
        try:
            self._handler = make()
        except SystemExit as error:  # otherwise the process would end without a reason
            raise RuntimeError(f"SystemExit: {error}") from error

    def leave(self) -> None:
        """End what this process keeps between jobs."""
        self._handler = None
        end_engine()

    def run(self, payload: Any) -> Any:
        if self._handler is None:
            raise RuntimeError("the actor got a shard before it had a handler")
        try:
            return self._handler(payload)
        except Exception as error:
            if breaks_device(error):
                os._exit(BROKEN_DEVICE)
            raise


class RayHosts:
    """Hosts as Ray actors."""

    def look(self) -> list[Node]:
        """The nodes that are alive, with what they have when they are empty."""
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        return [
            Node({k: float(v) for k, v in n["Resources"].items() if k in KINDS}, dict(n["Labels"]))
            for n in alive
        ]

    def free(self) -> dict[str, float]:
        import ray

        return {k: float(v) for k, v in ray.available_resources().items() if k in ("CPU", "GPU")}

    def start(self, needs: Needs) -> Any:
        import ray

        options: dict[str, Any] = {"num_cpus": needs.num_cpus, "num_gpus": needs.num_gpus, "max_restarts": 0}
        # never inside the placement group of a Tune trial that starts it
        options["scheduling_strategy"] = "DEFAULT"
        if needs.memory_gib:
            options["memory"] = int(needs.amounts["memory"])
        if needs.labels:
            options["label_selector"] = dict(needs.labels)
        return ray.remote(Host).options(**options, max_concurrency=needs.at_once).remote()

    def call(self, host: Any, method: str, *arguments: Any) -> Any:
        return getattr(host, method).remote(*arguments)

    def wait(self, futures: Sequence[Any], timeout_s: float) -> list[Any]:
        import ray

        if not futures:
            time.sleep(timeout_s)
            return []
        return list(ray.wait(list(futures), num_returns=1, timeout=timeout_s)[0])

    def result(self, future: Any) -> Any:
        import ray

        try:
            return ray.get(future)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, TutelageError):
                raise error.cause from error
            raise Failed(str(error).strip().splitlines()[-1]) from error
        except ray.exceptions.RayError as error:
            said = last_words(error)
            raise Died(f"{f'it said last: {said}; ' if said else ''}{error}") from error

    def end(self, host: Any) -> None:
        import ray

        ray.kill(host, no_restart=True)

    def leave(self, hosts: Sequence[Any]) -> None:
        import ray

        with suppress(ray.exceptions.RayError):  # one is gone, or takes too long: it is ended anyhow
            ray.get([host.leave.remote() for host in hosts], timeout=LEAVES_S)

    def now(self) -> float:
        return time.monotonic()
