"""Answers of a student that may ask its teacher for a token, as rows: one table for each student, teacher and
way of calling. One actor holds both models.

Shapes: T decisions (written tokens, the end token included), L tokens of a text, D width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from cluster.errors import Unrenderable
from cluster.metrics import Tally
from cluster.models.asked import Reading, why_not_cached
from cluster.models.branching import padded_rows
from cluster.models.decoding import Way
from cluster.models.loading import load_model, pick_device
from cluster.models.messages import Prompt
from cluster.models.proof import Proof, prove
from cluster.models.relay import Calls, Relayed, Side, relay
from cluster.models.sampling import Sampling, generation_stop_ids
from cluster.models.vocabulary import decoder_of
from cluster.placement import Needs
from cluster.seeds import derive_seed
from cluster.threads import one_thread
from jobs.experiment.placement import Placement
from jobs.files.questions import Question
from jobs.run.keys import HALF, question_key
from jobs.run.rows import Want, make_rows
from jobs.run.run import Run
from jobs.run.tables import Owner, Request, unusual
from jobs.run.views import View
from jobs.stages.answers import count_answers, tally_of
from jobs.stages.hosted import Draw
from jobs.stages.states import ModelState

VERSION = 1
SHORTCUTS = ("projection", "padding", "batched decoding")
ROWS_AT_ONCE = 16  # texts that are read in one pass
TOLD = [
    "text",
    "finish",
    "error",
    "prompt_tokens",
    "answer_tokens",
    "limit_tokens",
    "reasoning",
    "tool_calls",
    "usd",
]
# path: what the student read after its prompt, help tokens and the end token included. Of each decision:
# whether the teacher wrote it; ln pi of the student's decision; the probability of a call; the entropy of
# its own token.
RELAYED = ["path", "by_teacher", "logprobs", "help", "entropies", "processed"]
# Of each decision, if the answers are read again: ln p of the written token under the student (help left out)
# and under the teacher; KL of the student's next token from the teacher's; and how far both overlap.
READ = ["own_logprobs", "teacher_logprobs", "kl", "overlap"]


@dataclass(frozen=True, slots=True)
class Asking:
    """One question, once. The sentence on the budget comes before the student's question only."""

    prompt: Prompt
    sentence: str
    sample: int

    @property
    def key(self) -> bytes:
        return question_key(self.prompt.told(self.sentence)) + self.sample.to_bytes(HALF, "big")


def asking_of(questions: Sequence[Question], sentence: str, samples: int) -> Request:
    """Every question, so many times, under one sentence."""
    asks = [Asking(q.prompt, sentence, k) for q in questions for k in range(samples)]
    return Request({one.key: one for one in asks})


@dataclass(frozen=True)
class Relays:
    """Answers of one student, with one teacher, under one way of calling.

    Attributes:
        draw: how both models' tokens are drawn.
        is_read: whether both models read the answers again, for `READ`.
    """

    student: ModelState
    teacher: ModelState
    calls: Calls
    draw: Draw
    is_read: bool
    request: Request

    @property
    def columns(self) -> list[str]:
        return [*TOLD, *RELAYED, *(READ if self.is_read else [])]

    def view(self, run: Run) -> View:
        calls = unusual(asdict(self.calls), asdict(Calls()))
        drawn = {**self.draw.identity(), "limit": self.draw.limit, "read": self.is_read}
        identity = {"student": self.student.id, "teacher": self.teacher.id, "calls": calls, **drawn}
        about = {"name": self.student.name, "teacher": self.teacher.name, **identity}
        return run.view(Owner("relay", VERSION, identity, about), self.request)


def relays(
    run: Run, kind: str, wanted: Mapping[str, Relays], shard_size: int, placement: Placement
) -> dict[str, View]:
    """Make the answers that do not exist yet. Returns label -> view."""
    views = {label: one.view(run) for label, one in wanted.items()}
    workers = (
        1 if len({v.id for v in views.values()}) >= placement.evaluate_workers else placement.evaluate_workers
    )
    wants = [
        Want(
            kind,
            label,
            views[label],
            partial(
                RelayHandler, one.student, one.teacher, one.calls, one.draw, one.is_read, placement.needs
            ),
            shard_size,
            workers,
            placement.needs,
            one.columns,
            count_relays,
            estimate=lambda left: f"{len(left):,} answers",
            place=f"{workers} × ({placement.needs}), both models",
            counted=[*COUNTED, *(READ_COUNTED if one.is_read else [])],
        )
        for label, one in wanted.items()
    ]
    make_rows(run, wants, "answers")
    return views


COUNTED = ["finish", "prompt_tokens", "answer_tokens", "usd", "by_teacher", "processed"]
READ_COUNTED = ["help", "kl", "overlap"]
PARTS = 5  # of decisions, by how far the student is from its teacher


def count_relays(rows: pd.DataFrame) -> dict[str, Any]:
    """The counts of answers, of their decisions and of calls, and of the tokens that teachers read.

    If the answers were read again, also means over decisions: KL from the teacher, overlap with it, and the
    probability of a call in each fifth of the decisions, by their KL.
    """
    found = {
        **count_answers(rows),
        "decisions": int(sum(len(own) for own in rows["by_teacher"])),
        "calls": int(sum(sum(own) for own in rows["by_teacher"])),
        "processed": int(rows["processed"].sum()),
    }
    if "kl" not in rows or not found["decisions"]:
        return found
    calls, kl, overlap = (np.concatenate([np.asarray(v, float) for v in rows[c]]) for c in READ_COUNTED)
    if len(calls) == len(kl) > 0:
        found |= {"kl": float(kl.mean()), "overlap": float(overlap.mean())}
        parts = np.array_split(np.argsort(kl, kind="stable"), PARTS)
        found |= {f"help {k + 1}": float(calls[part].mean()) for k, part in enumerate(parts) if len(part)}
    return found


def call_share(counts: Mapping[str, Any]) -> float:
    """Calls per decision, by a view's counts. NaN if there is no decision."""
    return counts["calls"] / counts["decisions"] if counts["decisions"] else float("nan")


class RelayHandler:
    """Handler in an actor that holds a student and its teacher."""

    def __init__(
        self,
        student: ModelState,
        teacher: ModelState,
        calls: Calls,
        draw: Draw,
        is_read: bool,
        needs: Needs,
    ) -> None:
        device = pick_device(needs.num_gpus)
        self.calls, self.draw, self.is_read = calls, draw, is_read
        self.models = [load_model(state.source, device) for state in (student, teacher)]
        self.proofs = [prove(model, SHORTCUTS) for model in self.models]
        self.renderers = [student.renderer(), teacher.renderer()]
        reason = why_not_cached(self.proofs[1].head)
        self.reading: Reading = "cached" if reason is None else "recomputed"
        told = (
            {}
            if reason is None
            else {"asking": f"the teacher reads every text again for each call: {reason}"}
        )
        self.fallbacks = {**self.proofs[1].lines, **self.proofs[0].lines, **told}

    def give_up(self, asking: Asking, reason: str) -> pd.DataFrame:
        return self._table([self._failed(reason)])

    def tally(self, table: pd.DataFrame) -> Tally:
        return tally_of(table)

    def compute(self, asks: Sequence[Asking]) -> pd.DataFrame:
        rows: dict[Asking, dict[str, Any]] = {}
        prompts: dict[Asking, tuple[list[int], list[int]]] = {}
        for one in asks:
            try:
                mine = self.renderers[0].prompt(one.prompt.told(one.sentence))
                prompts[one] = list(mine), list(self.renderers[1].prompt(one.prompt))
            except Unrenderable as error:
                rows[one] = self._failed(str(error))
        if prompts:
            rows |= dict(zip(prompts, self._answers(prompts), strict=True))
        return self._table([rows[one] for one in asks])

    def _answers(self, prompts: Mapping[Asking, tuple[list[int], list[int]]]) -> list[dict[str, Any]]:
        stop = self.renderers[0].stop_ids | generation_stop_ids(self.models[0])
        way: Way = "batched" if self.proofs[0].way == "batched" else "recomputed"
        sampling = Sampling(self.draw.limit, stop, self.draw.temperature, self.draw.top_p, way=way)
        seeds = [
            [derive_seed(self.draw.seed, side, one.key.hex()) for one in prompts]
            for side in ("student", "teacher")
        ]
        own, other = (
            Side(proof.head, [both[k] for both in prompts.values()], seeds[k])
            for k, proof in enumerate(self.proofs)
        )
        found = relay(
            own, None if self.calls.caller == "never" else other, sampling, self.calls, self.reading
        )
        read = self._read(list(prompts.values()), found) if self.is_read else [{}] * len(found)
        return [
            self._told(answer, len(mine)) | more
            for answer, (mine, _), more in zip(found, prompts.values(), read, strict=True)
        ]

    def _told(self, answer: Relayed, prompt: int) -> dict[str, Any]:
        return {
            "text": self.renderers[0].answer_text(answer.ids),
            "finish": answer.finish,
            "error": "",
            "prompt_tokens": prompt,
            "answer_tokens": len(answer.ids),
            "limit_tokens": self.draw.limit,
            "reasoning": "",
            "tool_calls": "",
            "usd": 0.0,
            "path": answer.path,
            "by_teacher": answer.by_teacher,
            "logprobs": answer.logprobs,
            "help": answer.help,
            "entropies": answer.entropies,
            "processed": answer.processed,
        }

    def _failed(self, reason: str) -> dict[str, Any]:
        """The row of a question that could not be asked."""
        nothing = Relayed((), "length", (), (), (), (), (), 0)
        row = self._told(nothing, 0) | {"text": "", "finish": "failed", "error": reason}
        return row | (dict.fromkeys(READ, ()) if self.is_read else {})

    def _table(self, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=[*TOLD, *RELAYED, *(READ if self.is_read else [])])

    @torch.inference_mode()
    def _read(
        self, prompts: Sequence[tuple[list[int], list[int]]], answers: Sequence[Relayed]
    ) -> list[dict[str, Any]]:
        """What both models make of the answers, decision by decision."""
        found: list[dict[str, Any]] = [dict.fromkeys(READ, ()) for _ in answers]
        help_id = self.calls.help_id
        texts: list[list[tuple[list[int], list[int]]]] = [[], []]
        for (mine, theirs), answer in zip(prompts, answers, strict=True):
            decided, at = [], len(mine) - 1  # the states before each decision, in the student's text
            written = [*answer.ids, *answer.path[-1:]] if answer.finish == "stop" else list(answer.ids)
            for by_teacher in answer.by_teacher:
                decided.append(at)
                at += 2 if by_teacher and help_id is not None else 1
            texts[0].append(([*mine, *answer.path], decided))
            texts[1].append(([*theirs, *written], [len(theirs) - 1 + k for k in range(len(written))]))
        order = sorted(range(len(answers)), key=lambda i: -len(texts[0][i][0]))
        with one_thread(self.models[0]):
            for start in range(0, len(order), ROWS_AT_ONCE):
                some = order[start : start + ROWS_AT_ONCE]
                states = [
                    hidden_at(model, proof, [side[i] for i in some])
                    for model, proof, side in zip(self.models, self.proofs, texts, strict=True)
                ]
                for k, i in enumerate(some):
                    text, ends = texts[1][i]
                    tokens = text[ends[0] + 1 :] if ends else []
                    if tokens:
                        found[i] = compared(self.proofs, states[0][k], states[1][k], tokens, help_id)
        return found


def hidden_at(model: Any, proof: Proof, texts: Sequence[tuple[list[int], list[int]]]) -> list[torch.Tensor]:
    """Hidden states [T, D] at some places of each text. Texts are read together where the model allows it."""
    if not proof.allows("padding") and len(texts) > 1:
        return [state for text in texts for state in hidden_at(model, proof, [text])]
    inputs, _ = padded_rows([ids for ids, _ in texts], model.device)
    hidden = decoder_of(model)(**inputs, use_cache=False).last_hidden_state
    return [
        hidden[k, torch.tensor(at, dtype=torch.long, device=model.device)] for k, (_, at) in enumerate(texts)
    ]


def compared(
    proofs: Sequence[Proof],
    mine_TD: torch.Tensor,
    theirs_TD: torch.Tensor,
    tokens: Sequence[int],
    help_id: int | None,
) -> dict[str, np.ndarray]:
    """The columns `READ` of one answer, each [T] in float32."""
    logits = [proof.head.logits(states) for proof, states in zip(proofs, (mine_TD, theirs_TD), strict=True)]
    shared = min(one.shape[1] for one in logits)  # either vocabulary may be padded to a rounder size
    at = torch.tensor(list(tokens), device=mine_TD.device).unsqueeze(1)
    log_p, log_q = (_without_help(one, help_id)[:, :shared] for one in logits)
    p = log_p.exp()
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1)
    overlap = torch.minimum(p, log_q.exp()).sum(1)
    told = (log_p.gather(1, at).squeeze(1), log_q.gather(1, at).squeeze(1), kl, overlap)
    return {name: value.float().cpu().numpy() for name, value in zip(READ, told, strict=True)}


def _without_help(logits_TV: torch.Tensor, help_id: int | None) -> torch.Tensor:
    """Log-probabilities of the tokens that are no call."""
    if help_id is not None and help_id < logits_TV.shape[1]:
        logits_TV = logits_TV.clone()
        logits_TV[:, help_id] = -torch.inf
    return torch.log_softmax(logits_TV, 1)
