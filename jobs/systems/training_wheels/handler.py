"""The actor that holds a student and its teacher: it relays answers, and lets both models read them again.

Shapes: T decisions (written tokens, the end token included), D width, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from cluster.errors import Unrenderable, describe
from cluster.halving import run_halving
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
from cluster.threads import is_small, one_thread
from jobs.run.keys import HALF, question_key
from jobs.stages.answers import tally_of
from jobs.stages.hosted import Draw
from jobs.stages.rollouts import end_of_turn
from jobs.stages.states import ModelState

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


Prompts = tuple[list[int], list[int]]  # the student's and the teacher's


@dataclass(frozen=True, slots=True)
class Asking:
    """One question, once. The sentence on the budget comes before the student's question only."""

    prompt: Prompt
    sentence: str
    sample: int

    @property
    def key(self) -> bytes:
        return question_key(self.prompt.told(self.sentence)) + self.sample.to_bytes(HALF, "big")


class RelayHandler:
    """Handler in an actor that holds a student and its teacher."""

    def __init__(
        self,
        student: ModelState,
        teacher: ModelState,
        help_id: int,
        calls: Calls,
        draw: Draw,
        is_read: bool,
        needs: Needs,
    ) -> None:
        device = pick_device(needs.num_gpus)
        self.help_id, self.calls, self.draw, self.is_read = help_id, calls, draw, is_read
        self.models = [load_model(state.source, device) for state in (student, teacher)]
        self.proofs = [prove(model, SHORTCUTS) for model in self.models]
        self.renderers = [student.renderer(), teacher.renderer()]
        self.tokens = len(self.renderers[0].tokenizer)
        ends = [r.stop_ids | generation_stop_ids(m) for r, m in zip(self.renderers, self.models, strict=True)]
        # an end of the teacher's is written as the student's own
        self.own_ends, self.ends, self.end = ends[0], ends[0] | ends[1], end_of_turn(student)
        reason = why_not_cached(self.proofs[1].head)
        self.reading: Reading = "cached" if reason is None else "recomputed"
        self.fallbacks = {**self.proofs[1].lines, **self.proofs[0].lines}
        if reason is not None:
            self.fallbacks["asking"] = f"the teacher reads every text again for each call: {reason}"

    def give_up(self, asking: Asking, reason: str) -> pd.DataFrame:
        return self._table([self._failed(reason)])

    def tally(self, table: pd.DataFrame) -> Tally:
        return tally_of(table)

    def compute(self, asks: Sequence[Asking]) -> pd.DataFrame:
        rows: dict[Asking, dict[str, Any]] = {}
        prompts: dict[Asking, Prompts] = {}
        for one in asks:
            try:
                mine = self.renderers[0].prompt(one.prompt.told(one.sentence))
                prompts[one] = list(mine), list(self.renderers[1].prompt(one.prompt))
            except Unrenderable as error:
                rows[one] = self._failed(str(error))
        if prompts:
            rows |= dict(zip(prompts, self._answers(prompts), strict=True))
        return self._table([rows[one] for one in asks])

    def _answers(self, prompts: Mapping[Asking, Prompts]) -> list[dict[str, Any]]:
        """One row for each prompt. A row that fails by itself says why."""
        way: Way = "batched" if self.proofs[0].way == "batched" else "recomputed"
        sampling = Sampling(self.draw.limit, self.ends, self.draw.temperature, self.draw.top_p, way=way)
        seeds = [
            [derive_seed(self.draw.seed, side, one.key.hex()) for one in prompts]
            for side in ("student", "teacher")
        ]
        own, other = (
            Side(proof.head, [both[k] for both in prompts.values()], seeds[k], self.tokens)
            for k, proof in enumerate(self.proofs)
        )
        teacher = None if self.calls.caller == "never" else other
        found = relay(own, teacher, sampling, self.calls, self.reading)
        told = [
            self._failed(describe(answer)) if isinstance(answer, Exception) else self._told(answer, len(mine))
            for answer, (mine, _) in zip(found, prompts.values(), strict=True)
        ]
        if not self.is_read:
            return told
        good = [
            (k, both, answer)
            for k, (both, answer) in enumerate(zip(prompts.values(), found, strict=True))
            if not isinstance(answer, Exception)
        ]
        good.sort(key=lambda one: -len(one[2].path) - len(one[1][0]))
        whole = all(is_small(model) for model in self.models)
        with one_thread(self.models[0]) if whole else nullcontext():
            for start in range(0, len(good), ROWS_AT_ONCE):
                some = good[start : start + ROWS_AT_ONCE]
                read = run_halving([(both, answer) for _, both, answer in some], self._read)
                for (k, _, _), more in zip(some, read, strict=True):
                    told[k] = self._failed(describe(more)) if isinstance(more, Exception) else told[k] | more
        return told

    def _told(self, answer: Relayed, prompt: int) -> dict[str, Any]:
        path = answer.path
        if answer.finish == "stop" and path[-1] not in self.own_ends:
            path = (*path[:-1], self.end)
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
            "path": path,
            "by_teacher": answer.by_teacher,
            "logprobs": answer.logprobs,
            "help": answer.help,
            "entropies": answer.entropies,
            "processed": answer.processed,
            **(dict.fromkeys(READ, ()) if self.is_read else {}),
        }

    def _failed(self, reason: str) -> dict[str, Any]:
        """The row of a question that could not be answered."""
        nothing = Relayed((), "length", (), (), (), (), (), 0)
        return self._told(nothing, 0) | {"text": "", "finish": "failed", "error": reason}

    def _table(self, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=[*TOLD, *RELAYED, *(READ if self.is_read else [])])

    @torch.inference_mode()
    def _read(self, rows: Sequence[tuple[Prompts, Relayed]]) -> list[dict[str, Any]]:
        """What both models make of some answers, decision by decision."""
        texts = [Texts.of(both, answer, self.calls.help_id, self.own_ends, self.end) for both, answer in rows]
        found: list[dict[str, Any]] = [dict.fromkeys(READ, ()) for _ in rows]
        places = [k for k, own in enumerate(texts) if own.before]  # the others have no decision
        if not places:
            return found
        mine = hidden_at(self.models[0], self.proofs[0], [(texts[k].mine, texts[k].before) for k in places])
        theirs = hidden_at(
            self.models[1], self.proofs[1], [(texts[k].theirs, texts[k].before_theirs) for k in places]
        )
        for k, own, other in zip(places, mine, theirs, strict=True):
            found[k] = compared(self.proofs, own, other, texts[k], self.help_id, self.tokens)
        return found


@dataclass(frozen=True)
class Texts:
    """An answer as either model reads it, and where each decision is made.

    Attributes:
        mine, theirs: ids with the prompt.
        before, before_theirs: the place in each text before every decision.
        written, written_theirs: the tokens that were written, in each model's own words: they differ at the
            end.
    """

    mine: list[int]
    theirs: list[int]
    before: list[int]
    before_theirs: list[int]
    written: list[int]
    written_theirs: list[int]

    @classmethod
    def of(
        cls, prompts: Prompts, answer: Relayed, help_id: int | None, own_ends: frozenset[int], end: int
    ) -> "Texts":
        mine, theirs = prompts
        before, at = [], len(mine) - 1
        for by_teacher in answer.by_teacher:
            before.append(at)
            at += 2 if by_teacher and help_id is not None else 1
        written_theirs = [*answer.ids, *answer.path[-1:]] if answer.finish == "stop" else list(answer.ids)
        written = list(written_theirs)
        if answer.finish == "stop" and written[-1] not in own_ends:
            written[-1] = end
        before_theirs = [len(theirs) - 1 + k for k in range(len(written))]
        # the last token needs no reading
        return cls(
            [*mine, *answer.path[:-1]],
            [*theirs, *written[:-1]],
            before,
            before_theirs,
            written,
            written_theirs,
        )


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
    texts: Texts,
    help_id: int,
    tokens: int,
) -> dict[str, np.ndarray]:
    """The columns `READ` of one answer, each [T] in float32, over the tokens that both models can write."""
    logits = [proof.head.logits(states) for proof, states in zip(proofs, (mine_TD, theirs_TD), strict=True)]
    shared = min(tokens, *(one.shape[1] for one in logits))  # a vocabulary may be padded to a rounder size
    log_p, log_q = (_without_help(one[:, :shared], help_id) for one in logits)
    p = log_p.exp()
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1)
    overlap = torch.minimum(p, log_q.exp()).sum(1)
    written = [
        table.gather(1, torch.tensor(ids, device=table.device).unsqueeze(1)).squeeze(1)
        for table, ids in ((log_p, texts.written), (log_q, texts.written_theirs))
    ]
    told = (*written, kl, overlap)
    return {name: value.float().cpu().numpy() for name, value in zip(READ, told, strict=True)}


def _without_help(logits_TV: torch.Tensor, help_id: int) -> torch.Tensor:
    """Log-probabilities of the tokens that are no call."""
    if help_id < logits_TV.shape[1]:
        logits_TV = logits_TV.clone()
        logits_TV[:, help_id] = -torch.inf
    return torch.log_softmax(logits_TV, 1)
