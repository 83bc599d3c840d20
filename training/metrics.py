"""The rows that a training logs, one line of JSON for each step. Rank 0 writes them; the driver reads
them.
"""

import json
import time
from typing import Any

from cluster.storage import Place

METRICS = "metrics.jsonl"
UPLOAD_EVERY_S = 5.0  # an object store cannot be appended to, so metrics are written again this often


class MetricsFile:
    """The rows of one job, one line each. They are appended to a local file, or written again from time to
    time on an object store.
    """

    def __init__(self, place: Place, keep: int) -> None:
        """Continue after the first `keep` rows. Later rows were logged by an interrupted attempt after its
        last checkpoint.
        """
        self.place, self.rows, self.written = (
            place,
            [r for r in read_rows(place) if r["step"] <= keep],
            time.monotonic(),
        )
        self.save()

    def append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.place.is_local:
            with open(self.place.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        elif time.monotonic() - self.written > UPLOAD_EVERY_S:
            self.save()

    def save(self) -> None:
        self.place.write_bytes("".join(json.dumps(row) + "\n" for row in self.rows).encode())
        self.written = time.monotonic()


def read_rows(place: Place) -> list[dict[str, Any]]:
    """The complete lines of a metrics file. Empty if it does not exist."""
    try:
        text = place.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def read_metrics(output: Place) -> list[dict[str, Any]]:
    """The rows a job logged: step, of, loss_nats (per answer token), answer_tokens, seconds."""
    return read_rows(output / METRICS)
