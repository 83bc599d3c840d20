"""A journal of paid answers. Answers are written as calls return and read after a restart. The journal is
removed when all of them are in parts. After a driver or actor is killed, only the calls that were under way
are paid for again. On an object store, answers that were not uploaded yet are paid for again too.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

from cluster.models.repair import repaired_text
from cluster.storage import Place
from jobs.run.rows import JOURNAL
from jobs.run.tables import KEY, Table
from jobs.stages.answers import Answer

FLUSH_S = 5.0  # seconds between uploads to an object store, which cannot append
ANSWER = TypeAdapter(Answer)


class Journal:
    """The answers of earlier processes, by key. A key has several answers if limits differed.

    Attributes:
        refused: the number of records with values that a part cannot store. These answers are lost.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.known, self.refused = place, dict[str, list[Answer]](), 0
        for file in place.glob("*.jsonl"):
            for key, answer in read_journal(file):
                if answer is None:
                    self.refused += 1
                else:
                    self.known.setdefault(key, []).append(answer)
        self._lock, self._name, self._uploads = threading.Lock(), uuid.uuid4().hex, 0
        self._file: TextIO | None = None
        self._waiting: list[str] = []
        self._uploaded = time.monotonic()

    def write(self, key: str, answer: Answer) -> None:
        """Write an answer. It is on a local disk before this returns. It is on an object store after the next
        write that is 5 seconds later, or at the end of the shard.
        """
        line = json.dumps({"key": key, "value": asdict(answer)}) + "\n"
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
        """Upload what has not been uploaded."""
        with self._lock:
            if self._waiting:
                self._upload()

    def _upload(self) -> None:
        self._uploads += 1
        content = "".join(self._waiting).encode()
        (self.place / f"{self._name}-{self._uploads:06d}.jsonl").write_bytes(content)
        self._waiting, self._uploaded = [], time.monotonic()


def read_journal(file: Place) -> Iterator[tuple[str, Answer | None]]:
    """The records of one journal file: the key in hex, and the answer. None in place of an answer with values
    that a part cannot store. An earlier version wrote any count that a server sent.
    """
    for line in file.read_bytes().decode(errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # its writer was killed while writing it
            continue
        if isinstance(record, dict):
            yield str(record.get("key")), _answer_of(record.get("value"))


def _answer_of(value: Any) -> Answer | None:
    """A record's answer, if a part can hold it."""
    if not isinstance(value, Mapping):
        return None
    told = {name: repaired_text(v) if isinstance(v, str) else v for name, v in value.items()}
    try:
        return ANSWER.validate_python(told)
    except ValidationError:
        return None


def forget_journalled(table: Table) -> None:
    """Remove the journal files of a table whose usable answers are all in its parts."""
    place, held = table.directory / JOURNAL, set[tuple[str, int]]()
    if not place.exists():
        return
    for name in table.parts([bytes(16), b"\xff" * 16]):
        part = table.read(name, [KEY, "limit_tokens"])
        held |= {(key.hex(), limit) for key, limit in zip(part[KEY], part["limit_tokens"], strict=True)}
    for file in place.glob("*.jsonl"):
        if all(a is None or (key, a.limit_tokens) in held for key, a in read_journal(file)):
            file.unlink()
    if not place.glob("*.jsonl"):
        place.remove()


def spent_on(
    table: Table,
    asked: Collection[bytes],
    journalled: Mapping[str, Sequence[Answer]] | None = None,
) -> float:
    """The USD that the answers to these asks have cost in all runs: the budget covers all of it. Negative
    prices, which an earlier version could write, count as 0.

    Args:
        journalled: paid answers by key. Those that are in parts already are not counted twice.
    """
    spent, held = 0.0, set[tuple[str, int, float]]()
    for name in table.parts(sorted(asked)):
        part = table.read(name, [KEY, "usd", "limit_tokens"])
        for key, usd, limit in zip(part[KEY], part["usd"], part["limit_tokens"], strict=True):
            if key in asked:
                spent += max(float(usd), 0.0)
                held.add((key.hex(), int(limit), float(usd)))
    for key in asked:
        for paid in (journalled or {}).get(key.hex(), ()):
            if (key.hex(), paid.limit_tokens, paid.usd) not in held:
                spent += paid.usd
    return spent


def has_answers(table: Table, asked: Collection[bytes]) -> bool:
    """Whether any of these asks was ever answered."""
    for name in table.parts(sorted(asked)):
        part = table.read(name, [KEY, "finish"])
        if any(key in asked for key in part[KEY][part["finish"] != "failed"]):
            return True
    return False
