"""Ray actors that hold one handler at a time, as the pool uses them; the only part of it that calls Ray.

An error that leaves a GPU broken ends the actor's process: nothing it computed afterwards could be trusted.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cluster.errors import TutelageError
from cluster.halving import breaks_device
from cluster.last_words import last_words
from cluster.memory import free_memory
from cluster.placement import KINDS, Needs, Node
from cluster.threads import wait_asleep

Handler = Callable[[Any], Any]
BROKEN_DEVICE = 70  # exit code of a process whose GPU cannot be used any more


class Died(Exception):
    """A host is gone, with its process, its node or its memory."""


class Failed(Exception):
    """A handler raised; the message is the last line of what it said."""


class Hosts(Protocol):
    """Where handlers live. Futures are whatever `call` gives; they can be keys."""

    def look(self) -> list[Node]:
        """The nodes that are there now."""

    def free(self) -> dict[str, float]:
        """What nobody uses now, other tenants included; for people to read."""

    def start(self, needs: Needs) -> Any:
        """Ask for a new host; it may have to wait for room."""

    def call(self, host: Any, method: str, *arguments: Any) -> Any:
        """Call `here`, `load` or `run` of a host; calls of one host run in their order, `at_once` of them
        side by side.
        """

    def wait(self, futures: Sequence[Any], timeout_s: float) -> list[Any]:
        """Futures that are done; none when the time is over."""

    def result(self, future: Any) -> Any:
        """What a call gave. Raises Died, Failed, or a TutelageError of the handler's."""

    def end(self, host: Any) -> None:
        """End a host and what it runs."""

    def now(self) -> float:
        """Seconds since some moment."""


class Host:
    """The actor: holds one handler at a time."""

    def __init__(self) -> None:
        wait_asleep()  # on a node that others started
        self._handler: Handler | None = None

    def here(self) -> None:
        """Answer when there is a place for it."""

    def load(self, make: Callable[[], Handler]) -> None:
        self._handler = None
        free_memory()
        try:
            self._handler = make()
        except SystemExit as error:  # else the process would end, and nobody would know why
            raise RuntimeError(f"SystemExit: {error}") from error

    def run(self, payload: Any) -> Any:
        if self._handler is None:
            raise RuntimeError("the actor was asked to run a shard before it was given a handler")
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
        # never inside the placement group of a Tune trial that asks
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

    def now(self) -> float:
        return time.monotonic()
