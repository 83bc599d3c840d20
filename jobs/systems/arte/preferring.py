"""What happens in an actor that holds a student, to find out which drafts it prefers. One row for each draft:
its score, and the values that the score is the mean of.
"""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from cluster.errors import BadInput, Unrenderable, describe
from cluster.memory import free_memory
from cluster.metrics import Tally
from cluster.models.loading import load_model, pick_device
from cluster.models.messages import plain
from cluster.models.positions import context_length
from cluster.models.proof import SAMPLING, prove
from cluster.models.proof_of_decoding import refuse_shared_beginning
from cluster.models.rendering import Rendered
from cluster.models.sampling import Sampling, generation_stop_ids, sample
from cluster.models.vocabulary import Head
from cluster.progress import tell
from cluster.seeds import derive_seed
from cluster.threads import one_thread
from jobs.experiment.elicit import Elicit, Influence
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.run.keys import question_key
from jobs.stages.states import ModelState
from selection.checking import process_verifier
from selection.influence import Prober
from selection.preferences import standard_error
from selection.scoring import refusal
from selection.verification import Case, VerifySettings
from training.adapters import with_lora
from training.objectives.chunked import chunked_logprobs
from training.objectives.objective import hidden_states
from training.settings import LoraSettings

SCORED = "scored"
COLUMNS = ["state", "reason", "conversation_tokens", "score", "error", "values"]
MOST_TOKENS = 8192  # in one forward pass over reference answers, padding included


DraftRow = tuple[str, str, int, float, float, bytes]


def row_of(values: Sequence[float] | np.ndarray) -> DraftRow:
    """A draft's row, from the values that its score is the mean of."""
    numbers = np.asarray(values, dtype="<f4")
    return (
        SCORED,
        "",
        0,
        float(numbers.mean(dtype=float)),
        standard_error(numbers.tolist()),
        numbers.tobytes(),
    )


def lost(reason: str, state: str = "quarantined") -> DraftRow:
    """The row of a draft without a score."""
    return state, reason, 0, math.nan, math.nan, b""


def values_in(row: bytes) -> np.ndarray:
    """The values of a row."""
    return np.frombuffer(row, "<f4")


def shown_before(elicit: Elicit, draft: Row, item: str) -> str:
    """The text of a user's turn that shows a draft as the only demonstration, then an item."""
    said = {"question": draft.prompt.text, "rationale": draft.answer, "item": item}
    return re.sub(r"\{(question|rationale|item)\}", lambda m: said[m[1]], elicit.demonstration)


class _Handler:
    """What both handlers share."""

    fallbacks: dict[str, str]

    def give_up(self, draft: Row, reason: str) -> pd.DataFrame:
        return pd.DataFrame([lost(reason)], columns=COLUMNS)

    def tally(self, table: pd.DataFrame) -> Tally:
        return Tally(len(table), quarantined=int((table["state"] != SCORED).sum()))


class InContext(_Handler):
    """A draft's score is the share of items that the student gets right, greedily, with the draft before
    them.
    """

    def __init__(
        self,
        student: ModelState,
        elicit: Elicit,
        items: Mapping[str, Sequence[Question]],
        tasks: Mapping[str, str],
        system: str | None,
        verify: VerifySettings,
        limit: int,
        num_gpus: float,
    ) -> None:
        self.elicit, self.items, self.tasks, self.system, self.limit = elicit, items, tasks, system, limit
        self.model = load_model(student.source, pick_device(num_gpus))
        self.proof = prove(self.model, SAMPLING)
        why = refuse_shared_beginning(self.model) if self.proof.way == "batched" else None
        self.shares = why is None
        self.fallbacks = self.proof.lines | ({} if why is None else {"shared demonstrations": why})
        self.renderer = student.renderer()
        self.verifier = process_verifier(verify)

    def compute(self, drafts: Sequence[Row]) -> pd.DataFrame:
        rows = []
        for draft in drafts:
            rows.append(self._score(draft))
            tell(1 / len(drafts))
        return pd.DataFrame(rows, columns=COLUMNS)

    def _score(self, draft: Row) -> DraftRow:
        """Answer a draft's items. They share the demonstration, which is computed once."""
        items = self.items[self.tasks[question_key(draft.prompt).hex()]]
        try:
            prompts = [
                self.renderer.prompt(plain(shown_before(self.elicit, draft, item.text), self.system))
                for item in items
            ]
        except Unrenderable as error:
            return lost(str(error), "unrenderable")
        longest = context_length(self.model)
        length = max(map(len, prompts))
        if longest is not None and length >= longest:
            return lost(f"{length} tokens with an item, the student takes {longest}", "too_long")
        stops = self.renderer.stop_ids | generation_stop_ids(self.model)
        settings = Sampling(self.limit, stops, way=self.proof.way, shares_beginning=self.shares)
        answers = sample(self.model, prompts, settings)
        failed = next((x for x in answers if isinstance(x, Exception)), None)
        if failed is not None:
            return lost(describe(failed))
        cases = [
            Case(self.renderer.answer_text(x.ids) if x.finish == "stop" else "", item.references)
            for x, item in zip(answers, items, strict=True)
            if not isinstance(x, Exception)
        ]
        verdicts = self.verifier.check_all(cases)
        return row_of([float(v.state == "correct") for v in verdicts])


@dataclass(frozen=True)
class Told:
    """A worked answer to a question, for a student to read."""

    question: Question
    text: str


class OneStep(_Handler):
    """A draft's score is how much one optimizer step on it lowers the loss on reference answers."""

    def __init__(
        self,
        student: ModelState,
        settings: Influence,
        references: Sequence[Told],
        warm: Sequence[Told],
        lora: LoraSettings | None,
        seed: int,
        num_gpus: float,
    ) -> None:
        self.settings, self.fallbacks = settings, {}
        self.renderer = student.renderer()
        torch.manual_seed(derive_seed(seed, "influence"))
        model = load_model(student.source, pick_device(num_gpus))
        head = prove(model, ("projection",)).head
        self.model = model if lora is None else with_lora(model, lora)
        self.head = replace(head, model=self.model)
        if lora is None:
            for parameter in self.model.parameters():
                parameter.requires_grad_(True)
        self.model.eval()  # no dropout: a probe says nothing of chance
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
        every = sorted(self._readable(references), key=lambda row: row.answer_end)
        if not every:
            raise BadInput(
                f"student {student.name} can read none of the reference answers",
                f"{len(references)} answers",
                "at least one",
                "look at the student's template, and at the teacher's answers to the validation questions",
            )
        self.references = batches_of(every)  # the order of references does not matter, as long as it stays
        self._warm_up(optimizer, self._readable(warm), seed)
        self.prober = Prober(
            trained, optimizer, self._loss_of, self._reference_losses, self._reference_gradient
        )

    def _readable(self, told: Sequence[Told]) -> list[Rendered]:
        """The worked answers that the student can read."""
        found = []
        for one in told:
            with suppress(Unrenderable):
                row = self.renderer.conversation(one.question.prompt, one.text)
                found += [row] if refusal(self.model, row) is None else []
        return found

    def _warm_up(self, optimizer: torch.optim.Optimizer, drafts: Sequence[Rendered], seed: int) -> None:
        """Steps on drafts drawn by the seed, from which every probe begins."""
        rng, size = np.random.default_rng(derive_seed(seed, "warm")), self.settings.batch_size
        for _ in range(self.settings.warm_steps if drafts else 0):
            optimizer.zero_grad(set_to_none=True)
            for i in rng.integers(len(drafts), size=size):
                (self._loss_of(drafts[i]) / size).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _loss_of(self, row: Rendered) -> torch.Tensor:
        """The mean loss of one answer's tokens, in nats."""
        (loss,) = mean_losses(self.head, [row])
        return loss

    def _reference_losses(self) -> np.ndarray:
        with torch.no_grad(), one_thread(self.model):
            found = [mean_losses(self.head, some) for some in self.references]
        return torch.cat(found).double().cpu().numpy()  # type: ignore[no-any-return]

    def _reference_gradient(self) -> None:
        count = sum(map(len, self.references))
        for some in self.references:
            (mean_losses(self.head, some).sum() / count).backward()  # type: ignore[no-untyped-call]

    def compute(self, drafts: Sequence[Row]) -> pd.DataFrame:
        rows = []
        for draft in drafts:
            rows.append(self._probe(draft))
            tell(1 / len(drafts))
        return pd.DataFrame(rows, columns=COLUMNS)

    def _probe(self, draft: Row) -> DraftRow:
        try:
            row = self.renderer.conversation(draft.prompt, draft.answer, calls=draft.calls)
        except Unrenderable as error:
            return lost(str(error), "unrenderable")
        refused = refusal(self.model, row)
        if refused is not None:
            return lost(describe(refused), "too_long")
        try:
            with one_thread(self.model):
                if self.settings.form == "first_order":
                    found = np.array([self.prober.first_order(row, self.settings.learning_rate)])
                else:
                    found = self.prober.exact(row)
        except RuntimeError as error:  # of torch, such as too little memory: it costs this draft alone
            free_memory()
            return lost(describe(error))
        return row_of(found) if np.isfinite(found).all() else lost("its influence is not finite")


def batches_of(rows: Sequence[Rendered]) -> list[list[Rendered]]:
    """Rows in batches of at most `MOST_TOKENS` tokens with their padding.

    Args:
        rows: the shortest first.
    """
    found: list[list[Rendered]] = []
    for row in rows:
        if not found or (len(found[-1]) + 1) * row.answer_end > MOST_TOKENS:
            found.append([])
        found[-1].append(row)
    return found


def mean_losses(head: Head, rows: Sequence[Rendered]) -> torch.Tensor:
    """The mean loss of each row's answer tokens [N], end token included, natural log, float32. Logits are
    computed of answer tokens alone, a chunk at a time: of all tokens they would take gigabytes with a large
    vocabulary.
    """
    device = next(head.model.parameters()).device
    width = max(row.answer_end for row in rows)
    ids = torch.tensor(
        [[*row.ids[: row.answer_end], *[row.ids[0]] * (width - row.answer_end)] for row in rows],
        device=device,
    )
    mask = torch.tensor(
        [[1] * row.answer_end + [0] * (width - row.answer_end) for row in rows], device=device
    )
    labels = torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        labels[place, row.prompt_length : row.answer_end] = ids[place, row.prompt_length : row.answer_end]
    masked = {"attention_mask": mask} if len(rows) > 1 else {}
    hidden, labels = hidden_states(head, {"input_ids": ids, **masked})[:, :-1], labels[:, 1:]
    chosen = labels != -100
    each = -chunked_logprobs(head, hidden[chosen], labels[chosen])
    owners = chosen.nonzero()[:, 0]
    sums = torch.zeros(len(rows), device=device).index_add(0, owners, each)
    return sums / chosen.sum(dim=1)
