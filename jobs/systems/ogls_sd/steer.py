"""A frozen teacher reads rollouts (`selection/steering.py`). A reading is the result of its forward pass: its
hidden states at every token of a rollout, once for each prompt. The prompts contain right solutions, wrong
solutions, or none. Actors hold the teacher, and the rollouts are divided into shards.

A reading depends on the teacher, its rendering, the wording of the prompts and the arrays that are read. It
does not depend on lambda, clip or divergence. So a reading is made once and used for all of these settings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from cluster.errors import Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.messages import Message, Prompt
from cluster.models.reasoning import split_reasoning
from cluster.placement import Needs
from jobs.experiment.placement import Placement
from jobs.experiment.rollouts import QUESTION_SLOT, SLOT, Rollouts
from jobs.run.keys import question_key, row_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.run.tables import KEY, Owner, Request, SlicedRequest, unusual
from jobs.run.views import View
from jobs.stages.states import ModelState
from selection.steering import Array, Reading, States, TeacherPass

VERSION = 1
TOLD = ["state", "reason", "tokens", "left_out", "kl_nats"]


@dataclass(frozen=True, slots=True)
class ToRead:
    """A rollout that a teacher reads, and the solutions that are added to the prompt.

    Attributes:
        tokens: the sampled tokens, cut to the number that is read.
        solution: the worked solution of the questions' file. Empty if the teacher does not get it.
        right, wrong: the contexts: texts of right and of wrong rollouts. The worked solution may be among the
            right ones.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    solution: str = ""
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def key(self) -> bytes:
        """The key of the teacher's reading, from all that is read."""
        content = [list(self.tokens), self.solution, list(self.right), list(self.wrong)]
        return row_key(question_key(self.prompt), content)


def shown(prompt: Prompt, template: str, solution: str) -> Prompt:
    """Return the prompt with a solution added to its last turn. The template's placeholders are filled with
    the turn's own text and the solution.
    """
    last = prompt.turns[-1]
    pieces = []
    for piece in template.split(SLOT):
        pieces.append(piece.replace(QUESTION_SLOT, last.content))
    told = Message(last.role, solution.join(pieces), None, last.tool_calls, last.name, last.tool_call_id)
    return replace(prompt, turns=(*prompt.turns[:-1], told))


def bare(text: str) -> str:
    """Return an answer's text without its reasoning."""
    return split_reasoning(text)[1].strip()


class SteerHandler:
    """Handler in an actor: loads the teacher once, and reads rollouts with it."""

    def __init__(
        self, teacher: ModelState, drawn: Rollouts, honest: bool, arrays: Sequence[Array], num_gpus: float
    ) -> None:
        self.drawn, self.arrays = drawn, tuple(arrays)
        self.renderer = teacher.renderer()
        model = load_model(teacher.source, pick_device(num_gpus))
        self.teacher = TeacherPass(model, max_length=drawn.max_length)
        self.templates = {False: drawn.template, True: drawn.wrong_template if honest else drawn.template}
        self.fallbacks = self.teacher.proof.lines

    @property
    def columns(self) -> list[str]:
        return columns_of(self.arrays)

    def give_up(self, item: ToRead, reason: str) -> pd.DataFrame:
        return pd.DataFrame([self._row("quarantined", reason, item)], columns=self.columns)

    def compute(self, items: Sequence[ToRead]) -> pd.DataFrame:
        rows: list[list[Any]] = [[]] * len(items)
        readings = {}
        for k, item in enumerate(items):
            try:
                readings[k], left_out = self._reading(item)
            except Unrenderable as error:
                rows[k] = self._row("unrenderable", str(error), item)
                continue
            rows[k] = self._row("read", "", item, left_out)
        found = self.teacher.read(list(readings.values()), self.arrays)
        for k, states in zip(readings, found, strict=True):
            left_out = rows[k][3]
            if isinstance(states, Exception):
                rows[k] = self._row("quarantined", describe(states), items[k], left_out)
            else:
                rows[k] = self._told(items[k], states, left_out + states.left_out)
        return pd.DataFrame(rows, columns=self.columns)

    def tally(self, table: pd.DataFrame) -> Tally:
        failed = int((table["state"] != "read").sum())
        return Tally(len(table), int(table["tokens"].sum()), failed)

    def _reading(self, item: ToRead) -> tuple[Reading, int]:
        """Render what the teacher reads as token ids. Returns them with the number of contexts that could not
        be rendered. Those contexts are left out.
        """
        lost = 0

        def ids(texts: Iterable[str], is_wrong: bool) -> tuple[tuple[int, ...], ...]:
            nonlocal lost
            found = []
            for text in texts:
                try:
                    found.append(self.renderer.prompt(shown(item.prompt, self.templates[is_wrong], text)))
                except Unrenderable:
                    lost += 1
            return tuple(found)

        reference = ids([item.solution] if item.solution else [], False)
        right, wrong = ids(item.right, False), ids(item.wrong, True)
        prompt = self.renderer.prompt(item.prompt)
        return Reading(prompt, item.tokens, reference[0] if reference else (), right, wrong), lost

    def _row(self, state: str, reason: str, item: ToRead, left_out: int = 0, kl: float = 0.0) -> list[Any]:
        blank: list[Any] = [b"", 0] * len(self.arrays)
        return [state, reason, len(item.tokens), left_out, kl, *blank]

    def _told(self, item: ToRead, states: States, left_out: int) -> list[Any]:
        """Build the row of a finished reading. If no context of an array could be read, the reason names that
        array. The reason begins with the state that a rollout gets if its target needs the array.
        """
        wanted = {
            "h0": True,
            "h_s": bool(item.solution),
            "h_pos": bool(item.right),
            "h_neg": bool(item.wrong),
        }
        lost = [name for name in self.arrays if wanted[name] and name not in states.arrays]
        reason = f"unrenderable: no context of {', '.join(lost)} could be rendered"
        if states.left_out:
            reason = f"too_long: no context of {', '.join(lost)} fits into {self.teacher.max_length:,} tokens"
        row = self._row("read", reason if lost else "", item, left_out, self._moved(states))
        for k, name in enumerate(self.arrays):
            array = states.arrays.get(name)
            if array is not None:
                row[len(TOLD) + 2 * k] = array.astype("<f4").tobytes()
                row[len(TOLD) + 2 * k + 1] = len(array)
        return row

    def _moved(self, states: States) -> float:
        """How much the added solutions change the teacher's predictions: the mean KL divergence from its
        reading without them, in nats per token. It is taken for the reference. If there is
        none, it is taken for the right contexts.
        """
        plain = states.arrays.get("h0")
        told = states.arrays.get("h_s", states.arrays.get("h_pos"))
        if plain is None or told is None:
            return float("nan")
        head, device = self.teacher.proof.head, self.teacher.model.device
        total = 0.0
        with torch.inference_mode():
            for start in range(0, plain.shape[1], 64):
                part = slice(start, start + 64)
                p, q = (
                    torch.log_softmax(
                        torch.stack(
                            [
                                head.logits(torch.from_numpy(a[part]).to(device, self.teacher.model.dtype))
                                for a in array
                            ]
                        ).mean(0),
                        dim=1,
                    )
                    for array in (told, plain)
                )
                total += float((p.exp() * (p - q)).sum())
        return total / plain.shape[1]


def columns_of(arrays: Sequence[Array]) -> list[str]:
    """The columns of a table of readings. Each array has two: its bytes (float32 [C, T, D]: C states, T
    tokens, D width), and C. C is 1 if the mean over all contexts is stored, else the number of contexts.
    """
    return [*TOLD, *(name for array in arrays for name in (array, f"{array} contexts"))]


def owner_of(teacher: ModelState, drawn: Rollouts, honest: bool, arrays: Sequence[Array]) -> Owner:
    """The owner of these readings. It depends on the teacher's weights, its rendering, the wording of the
    prompts, `max_length` and the arrays.
    """
    words = [drawn.template, drawn.wrong_template if honest else drawn.template]
    identity: dict[str, Any] = {"teacher": teacher.id, "rendering": teacher.rendering}
    identity |= {"words": digest(words)}
    identity |= {"arrays": sorted(arrays)} | unusual({"max_length": drawn.max_length}, {"max_length": None})
    return Owner("steering", VERSION, identity, {"name": teacher.name, **teacher.about, "words": words})


@dataclass(frozen=True)
class Steering:
    """The rollouts of one student that one teacher has to read.

    Attributes:
        request: the readings.
        needs: the resources of one actor that holds the teacher.
    """

    label: str
    teacher: ModelState
    honest: bool
    arrays: tuple[Array, ...]
    request: Request | SlicedRequest
    needs: Needs


def steer(run: Run, wanted: Sequence[Steering], drawn: Rollouts, placement: Placement) -> list[View]:
    """Make the readings that do not exist yet. Returns one view for each entry of `wanted`."""
    views = [run.view(owner_of(w.teacher, drawn, w.honest, w.arrays), w.request) for w in wanted]
    wants = [
        Want(
            "steer",
            w.label,
            view,
            partial(SteerHandler, w.teacher, drawn, w.honest, w.arrays, w.needs.num_gpus),
            drawn.shard_size,
            placement.score_workers,
            w.needs,
            columns_of(w.arrays),
            count_readings,
            place=f"{placement.score_workers} × ({w.needs})",
            counted=TOLD,
        )
        for w, view in zip(wanted, views, strict=True)
    ]
    make_rows(run, wants, "rollouts")
    return views


def count_readings(rows: pd.DataFrame) -> dict[str, Any]:
    """The counts of readings that a view records. `moved_nats` is the sum of the KL divergences of all tokens
    for which one is known, `moved_tokens` the number of these tokens.
    """
    told = {str(k): int(v) for k, v in rows["state"].value_counts().items()}
    read = rows[rows["state"] == "read"]
    kl = read["kl_nats"] * read["tokens"]
    known = kl.notna()
    return {
        "rollouts": len(rows),
        **told,
        "tokens": int(rows["tokens"].sum()),
        "left_out": int(rows["left_out"].sum()),
        "moved_nats": float(kl[known].sum()),
        "moved_tokens": int(read["tokens"][known].sum()),
    }


def moved_by_solutions(counts: Mapping[str, Any]) -> float:
    """How much the added solutions change the teacher's predictions, in nats per token. NaN if it is unknown.

    Args:
        counts: what a view recorded. Earlier versions recorded the mean, `kl_nats`.
    """
    if "kl_nats" in counts:
        return float(counts["kl_nats"])
    tokens = counts["moved_tokens"]
    return float(counts["moved_nats"] / tokens) if tokens else float("nan")


def arrays_in(row: Mapping[str, Any], arrays: Iterable[str]) -> dict[str, np.ndarray]:
    """Decode the arrays of one row, each of shape [C, T, D]. Arrays that the row lacks are left out."""
    found = {}
    for name in arrays:
        count = int(row[f"{name} contexts"])
        if count:
            numbers = np.frombuffer(row[name], "<f4")
            found[name] = numbers.reshape(count, int(row["tokens"]), -1)
    return found


def by_key(rows: pd.DataFrame) -> dict[bytes, dict[str, Any]]:
    """Index rows by their key."""
    return {row[KEY]: {str(k): v for k, v in row.items()} for row in rows.to_dict("records")}
