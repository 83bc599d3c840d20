"""A journal of paid answers: written as calls return, read by whoever starts again, gone once they are all in
parts. A driver or an actor that is killed pays again for no more than the calls that were under way.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from cluster.storage import Place

FLUSH_S = 5.0  # between uploads where the journal is on an object store, which cannot append


class Journal:
    """Records by key, several where limits differed, of the processes before this one."""

    def __init__(self, place: Place) -> None:
        self.place, self.known = place, dict[str, list[dict[str, Any]]]()
        for file in place.glob("*.jsonl"):
            for key, value in read_journal(file):
                self.known.setdefault(key, []).append(value)
        self._lock, self._name, self._uploads = threading.Lock(), uuid.uuid4().hex, 0
        self._file: TextIO | None = None
        self._waiting: list[str] = []
        self._uploaded = time.monotonic()

    def write(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a record: on a disk when this returns, on an object store within a few seconds."""
        line = json.dumps({"key": key, "value": dict(value)}) + "\n"
        with self._lock:
            if self.place.is_local:
                if self._file is None:
                    self.place.path.mkdir(parents=True, exist_ok=True)
                    self._file = open(self.place.path / f"{self._name}.jsonl", "a")  # noqa: SIM115
                self._file.write(line)
                self._file.flush()
                os.fsync(self._file.fileno())
                return
            self._waiting.append(line)
            if time.monotonic() - self._uploaded >= FLUSH_S:
                self._upload()

    def flush(self) -> None:
        """Upload what waits for it."""
        with self._lock:
            if self._waiting:
                self._upload()

    def _upload(self) -> None:
        self._uploads += 1
        content = "".join(self._waiting).encode()
        (self.place / f"{self._name}-{self._uploads:06d}.jsonl").write_bytes(content)
        self._waiting, self._uploaded = [], time.monotonic()


def read_journal(file: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of one file of a journal: key in hex, and value."""
    for line in file.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # its writer was killed in the middle of it
            continue
        yield record["key"], record["value"]


def drop_journalled(place: Place, is_kept: Callable[[str, dict[str, Any]], bool]) -> None:
    """Remove the files of a journal whose records are all kept elsewhere."""
    for file in place.glob("*.jsonl"):
        if all(is_kept(key, value) for key, value in read_journal(file)):
            file.unlink()
