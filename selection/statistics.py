"""Everything one forward pass of the student says about an answer, kept as sums, from which every cost is a view.

The engine is one plain file without Ray: rows in, statistics out. Rows are sorted by length and right-padded into batches
of a token budget; the vocabulary projection runs in chunks of positions, in float32, and no [T, V] block is kept.

Conventions: natural log; l_t = -log p(x_t | x_<t) computed in float32 whatever the model's dtype; position 0 has no loss;
special tokens are in neither span. u_t is the unit vector of the last decoder layer's `mlp.up_proj` output at t.

Shapes: B rows, T tokens, D width, H up_proj width, V vocabulary, N chosen positions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch

from cluster.errors import BadInput
from cluster.heads import check_projection, decoder_of, project
from cluster.loading import context_length
from cluster.rendering import Rendered

RANK_CLIP, BRIER_TOP = 100, 50
CHUNK_POSITIONS = 2048
DEFAULT_TOKEN_BUDGET = 8192
# Path of the up projection inside a decoder layer, per model type; None where a layer has no single one.
LAYER_MODULES: dict[str, str | None] = {"gpt2": "mlp.c_fc", "gpt_neox": "mlp.dense_h_to_4h", "phi3": "mlp.gate_up_proj", "mixtral": None}
DEFAULT_LAYER_MODULE = "mlp.up_proj"


@dataclass(frozen=True)
class Statistics:
    """Sums over one answer's tokens (A) and its prompt's tokens (Q). Losses in nats.

    Attributes:
        n_answer, n_question: number of tokens counted in A and Q.
        answer_loss, question_loss: sum of l_t.
        answer_norm_sq: |sum of u_t over A|^2.
        cross_dot: (sum of u_t over A) . (sum of u_t over Q).
        clipped_rank: sum over A of min(rank_t, 100), rank_t = 1 + number of tokens with a strictly larger logit.
        brier: sum over A of 1 - 2 p~_t + sum_k p~_k^2 with p~ the softmax over the 50 largest logits (p~_t = 0 outside).
        entropy: sum over A of the entropy of the next-token distribution, in nats.
        max_loss: largest l_t in A.
    """

    n_answer: int
    n_question: int
    answer_loss: float
    question_loss: float
    answer_norm_sq: float
    cross_dot: float
    clipped_rank: float
    brier: float
    entropy: float
    max_loss: float


STATISTIC_NAMES = tuple(f.name for f in fields(Statistics))


class EmptySpan(BadInput):
    """An answer without one countable token: scoring it would give the cost 0 and let it win."""


def find_layer_module(model: Any, target_layer: str | None = None) -> torch.nn.Module:
    """The module whose output is h_t: `target_layer` by its dotted name, else the last decoder layer's up projection.

    Raises:
        BadInput: no such module, or the architecture has no single up projection.
    """
    modules = dict(model.named_modules())
    if target_layer is not None:
        if target_layer not in modules:
            raise BadInput("no such layer in the student", target_layer, "a module's dotted name", f"for example {list(modules)[-3]}")
        return modules[target_layer]
    kind = model.config.model_type
    decoder = decoder_of(model)
    layers = getattr(decoder, "layers", None) or getattr(decoder, "h", None)
    if layers is None:
        raise BadInput("cannot find the decoder layers", kind, "layers or h", "name the layer with score.target_layer")
    path = LAYER_MODULES.get(kind, DEFAULT_LAYER_MODULE)
    found = layers[-1].get_submodule(path) if path is not None and _has(layers[-1], path) else None
    if found is None:
        raise BadInput(
            f"a {kind} layer has no single up projection", path, "one dense MLP per layer", "name the layer with score.target_layer"
        )
    return found  # type: ignore[no-any-return]


def _has(layer: Any, path: str) -> bool:
    return path in dict(layer.named_modules())


@contextmanager
def _captured(module: torch.nn.Module, keep: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Collect a module's outputs while the block runs; the hook is removed even when the forward raises."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _m, _i, output: seen.append(keep(output)))
    try:
        yield seen
    finally:
        handle.remove()


class Scorer:
    """Computes statistics of rendered answers under one student. Rows are independent of the batch they are in."""

    def __init__(
        self, model: Any, special_ids: frozenset[int], target_layer: str | None = None, token_budget: int = DEFAULT_TOKEN_BUDGET
    ) -> None:
        check_projection(model)
        self.model, self.token_budget = model, token_budget
        self.module = find_layer_module(model, target_layer)
        self.fused_up_half = model.config.model_type == "phi3" and target_layer is None
        self.context_length = context_length(model)
        self.special_ids = torch.tensor(sorted(special_ids), device=model.device)

    def score(self, rows: Sequence[Rendered]) -> list[Statistics | Exception]:
        """Statistics per row, in order. A row that fails alone gets its exception instead; its neighbours are unharmed."""
        order = sorted(range(len(rows)), key=lambda i: (-rows[i].length, i))
        results: list[Statistics | Exception] = [EmptySpan("not scored")] * len(rows)
        start = 0
        while start < len(order):
            batch = order[start : start + max(1, self.token_budget // rows[order[start]].length)]
            for i, result in zip(batch, self._halving([rows[i] for i in batch]), strict=True):
                results[i] = result
            start += len(batch)
        return results

    def _halving(self, rows: list[Rendered]) -> list[Statistics | Exception]:
        """Score a batch; on out-of-memory halve it, down to single rows."""
        try:
            return self._score_batch(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                return [error]
        torch.cuda.empty_cache()
        middle = len(rows) // 2
        return self._halving(rows[:middle]) + self._halving(rows[middle:])

    @torch.inference_mode()
    def _score_batch(self, rows: list[Rendered]) -> list[Statistics | Exception]:
        width = max(r.length for r in rows)
        device = self.model.device
        ids_BT = torch.tensor([list(r.ids) + [0] * (width - r.length) for r in rows], device=device)
        real_BT = torch.tensor([[1] * r.length + [0] * (width - r.length) for r in rows], device=device)
        with _captured(self.module, self._unit) as seen:
            output = decoder_of(self.model)(input_ids=ids_BT, attention_mask=real_BT, use_cache=False)
        hidden_BTD, unit_BTH = output.last_hidden_state, seen[0]
        position = torch.arange(width, device=device)
        prompt = torch.tensor([[r.prompt_length] for r in rows], device=device)
        end = torch.tensor([[r.answer_end] for r in rows], device=device)
        counted = ~torch.isin(ids_BT, self.special_ids)
        answer_BT = counted & (position >= prompt) & (position < end)
        question_BT = counted & (position < prompt)
        tokens = self._token_statistics(hidden_BTD, ids_BT, (answer_BT | question_BT), answer_BT)
        answer_BH = (unit_BTH * answer_BT.unsqueeze(-1)).sum(1).double()
        question_BH = (unit_BTH * question_BT.unsqueeze(-1)).sum(1).double()
        return [self._row(b, answer_BT, question_BT, tokens, answer_BH, question_BH) for b in range(len(rows))]

    def _unit(self, output: torch.Tensor) -> torch.Tensor:
        """Unit vectors [B, T, H] in float32."""
        if self.fused_up_half:
            output = output.chunk(2, dim=-1)[1]
        return torch.nn.functional.normalize(output.float(), dim=-1)

    def _token_statistics(
        self, hidden: torch.Tensor, ids: torch.Tensor, wanted: torch.Tensor, answer: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Per-token quantities [B, T] in float64: loss where wanted, the rest on answer tokens, zero elsewhere."""
        rows, columns = torch.nonzero(wanted[:, 1:], as_tuple=True)
        result = {name: torch.zeros(ids.shape, dtype=torch.float64, device=ids.device) for name in ("loss", "rank", "brier", "entropy")}
        for start in range(0, len(rows), CHUNK_POSITIONS):
            b, t = rows[start : start + CHUNK_POSITIONS], columns[start : start + CHUNK_POSITIONS]
            logits_NV = project(self.model, hidden[b, t])
            target_N = ids[b, t + 1]
            own_N = logits_NV.gather(1, target_N.unsqueeze(1)).squeeze(1)
            result["loss"][b, t + 1] = (torch.logsumexp(logits_NV, -1) - own_N).double()
            in_answer = answer[b, t + 1]
            b, t, logits_NV, own_N = b[in_answer], t[in_answer], logits_NV[in_answer], own_N[in_answer]
            if len(b):
                rank_N = 1 + (logits_NV > own_N.unsqueeze(1)).sum(-1)
                result["rank"][b, t + 1] = rank_N.clamp(max=RANK_CLIP).double()
                result["brier"][b, t + 1] = _brier(logits_NV, own_N).double()
                log_p = torch.log_softmax(logits_NV, -1)
                result["entropy"][b, t + 1] = -(log_p.exp() * log_p).sum(-1).double()
        return result

    def _row(
        self,
        b: int,
        answer_BT: torch.Tensor,
        question_BT: torch.Tensor,
        tokens: dict[str, torch.Tensor],
        answer_BH: torch.Tensor,
        question_BH: torch.Tensor,
    ) -> Statistics | Exception:
        a, q = answer_BT[b], question_BT[b]
        if not bool(a.any()):
            return EmptySpan("the answer has no token besides special ones", "", "at least one", "the row is left out")
        result = Statistics(
            n_answer=int(a.sum()),
            n_question=int(q.sum()),
            answer_loss=float(tokens["loss"][b][a].sum()),
            question_loss=float(tokens["loss"][b][q].sum()),
            answer_norm_sq=float(answer_BH[b] @ answer_BH[b]),
            cross_dot=float(answer_BH[b] @ question_BH[b]),
            clipped_rank=float(tokens["rank"][b][a].sum()),
            brier=float(tokens["brier"][b][a].sum()),
            entropy=float(tokens["entropy"][b][a].sum()),
            max_loss=float(tokens["loss"][b][a].max()),
        )
        broken = [name for name in STATISTIC_NAMES if not math.isfinite(getattr(result, name))]
        return ArithmeticError(f"the student gives {', '.join(broken)} that are not finite") if broken else result


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: CUDA has a type for it, PyTorch on a CPU only a message."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _brier(logits_NV: torch.Tensor, own_N: torch.Tensor) -> torch.Tensor:
    """1 - 2 p~_t + sum_k p~_k^2 over the 50 largest logits (LARK, arXiv 2605.30651)."""
    top = logits_NV.topk(min(BRIER_TOP, logits_NV.shape[-1]), dim=-1).values
    p_top = torch.softmax(top, -1)
    p_own = torch.where(own_N >= top[:, -1], torch.exp(own_N - torch.logsumexp(top, -1)), torch.zeros_like(own_N))
    return 1 - 2 * p_own + (p_top**2).sum(-1)
