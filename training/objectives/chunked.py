"""A loss, or the tokens' log-probabilities, over a large vocabulary. The logits never exist all at once, not
even in the backward pass.

Shapes: D width, V vocabulary, N tokens with a loss, n of them in a chunk, K values of each.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from cluster.models.vocabulary import Head, is_scaled, scaled

# Takes float32 logits [n, V] of some of the N tokens and the slice of these tokens. Returns the sum of their
# losses.
ChunkLoss = Callable[[torch.Tensor, slice], torch.Tensor]
# As `ChunkLoss`, and returns a few values of each token, [n, K].
ChunkValues = Callable[[torch.Tensor, slice], torch.Tensor]
# of float32 logits that exist at once; their gradients need as much again
CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**29}
KEPT_BYTES = {"cpu": 2**30, "cuda": 2**31}  # of logits that wait for the backward pass


def chunked_loss(head: Head, hidden_ND: torch.Tensor, loss_of: ChunkLoss, blocks: int = 1) -> torch.Tensor:
    """The sum of a loss over N tokens. Only the logits of a few tokens exist at a time, also in the backward
    pass.

    If the projection is one matrix, its gradient and that of the hidden states are computed chunk by chunk in
    the forward pass. So no logits are kept, and none are computed twice. Any other projection is computed
    again, chunk by chunk, in the backward pass. With sharded weights (ZeRO-3) it is computed whole, because
    every worker must gather it equally often.

    Args:
        loss_of: must depend on the logits alone. Nothing else that it reads gets a gradient.
        blocks: how many times the memory of cross-entropy the loss needs for a chunk's logits. Chunks are
            smaller by that factor.
    """
    most = CHUNK_BYTES.get(hidden_ND.device.type, CHUNK_BYTES["cuda"])
    rows = max(1, most // (4 * head.size * blocks))
    if head.is_one_matrix:
        projection = head.model.get_output_embeddings()
        given = (hidden_ND, projection.weight, projection.bias, head.model, loss_of, rows)
        return _OneMatrixLoss.apply(*given)  # type: ignore[no-any-return,no-untyped-call]
    if hasattr(head.weight, "ds_id") or len(hidden_ND) <= rows:
        return loss_of(head.logits(hidden_ND), slice(0, len(hidden_ND)))
    total = hidden_ND.new_zeros((), dtype=torch.float32)
    for start in range(0, len(hidden_ND), rows):
        part = slice(start, min(start + rows, len(hidden_ND)))

        def piece(hidden: torch.Tensor, part: slice = part) -> torch.Tensor:
            return loss_of(head.logits(hidden), part)

        total = total + checkpoint(piece, hidden_ND[part], use_reentrant=False)
    return total


def chunked_logprobs(head: Head, hidden_ND: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """The log-probability of each label, natural log, float32 [N], as `chunked_values`.

    If the projection is one plain matrix that is trained, its logits are kept for the backward pass as long
    as they are few (`KEPT_BYTES`), and computed again chunk by chunk otherwise.
    """
    weight = head.weight
    is_plain = head.is_one_matrix and not is_scaled(head.model) and not hasattr(weight, "ds_id")
    if is_plain and weight.requires_grad and torch.is_grad_enabled():
        kind = hidden_ND.device.type
        rows = max(1, CHUNK_BYTES.get(kind, CHUNK_BYTES["cuda"]) // (4 * head.size))
        size = len(hidden_ND) * head.size * hidden_ND.element_size()
        keeps = size <= KEPT_BYTES.get(kind, KEPT_BYTES["cuda"])
        given = (hidden_ND, weight, head.model.get_output_embeddings().bias, labels_N, rows, keeps)
        return _OneMatrixLogprobs.apply(*given)  # type: ignore[no-any-return,no-untyped-call]

    def of(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return -torch.nn.functional.cross_entropy(logits, labels_N[part], reduction="none").unsqueeze(1)

    return chunked_values(head, hidden_ND, of).squeeze(1)


def chunked_values(
    head: Head, hidden_ND: torch.Tensor, values_of: ChunkValues, blocks: int = 1
) -> torch.Tensor:
    """A few values of each token's logits, float32 [N, K]. Only the logits of a few tokens exist at a time,
    also in the backward pass.

    If the projection is one matrix that is not trained, as with adapters, each value's gradient is computed
    in the forward pass, and no logits are computed twice. Any other projection is computed again, chunk by
    chunk, in the backward pass. With sharded weights (ZeRO-3) it is computed whole.

    Args:
        values_of: must depend on the logits alone. Nothing else that it reads gets a gradient.
        blocks: as for `chunked_loss`.
    """
    most = CHUNK_BYTES.get(hidden_ND.device.type, CHUNK_BYTES["cuda"])
    rows = max(1, most // (4 * head.size * blocks))
    if hasattr(head.weight, "ds_id") or len(hidden_ND) <= rows:
        return values_of(head.logits(hidden_ND), slice(0, len(hidden_ND)))
    if not torch.is_grad_enabled():
        parts = [slice(start, start + rows) for start in range(0, len(hidden_ND), rows)]
        return torch.cat([values_of(head.logits(hidden_ND[part]), part) for part in parts])
    if head.is_one_matrix and not any(
        p.requires_grad for p in head.model.get_output_embeddings().parameters()
    ):
        given = (hidden_ND, values_of, head, rows)
        return _FixedMatrixValues.apply(*given)  # type: ignore[no-any-return,no-untyped-call]
    found = []
    for start in range(0, len(hidden_ND), rows):
        part = slice(start, min(start + rows, len(hidden_ND)))

        def piece(hidden: torch.Tensor, part: slice = part) -> torch.Tensor:
            return values_of(head.logits(hidden), part)

        found.append(checkpoint(piece, hidden_ND[part], use_reentrant=False))
    return torch.cat(found)


def _add(
    grad_nV: torch.Tensor,
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    part: slice,
    wanted: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
) -> None:
    """Add what a chunk's gradient of logits gives to the gradients of hidden states, matrix and bias."""
    hidden, weight, bias = wanted
    if hidden is not None:
        torch.mm(grad_nV.to(weight_VD.dtype), weight_VD, out=hidden[part])
    if weight is not None:
        weight.addmm_(grad_nV.float().t(), hidden_ND[part].float())
    if bias is not None:
        bias += grad_nV.float().sum(0)


class _OneMatrixLogprobs(torch.autograd.Function):
    """Log-probabilities of labels through a plain matrix that is trained. The gradient of a token's logits is
    that of the label less the softmax, times what its log-probability is worth. It takes the logits' place.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        rows: int,
        keeps: bool,
    ) -> torch.Tensor:
        found_N = torch.empty(len(hidden_ND), dtype=torch.float32, device=hidden_ND.device)
        total_N, kept = torch.empty_like(found_N), list[torch.Tensor]()
        for start in range(0, len(hidden_ND), rows):
            part = slice(start, min(start + rows, len(hidden_ND)))
            logits = torch.nn.functional.linear(hidden_ND[part], weight_VD, bias_V)
            read = logits.float()
            total_N[part] = torch.logsumexp(read, 1)
            found_N[part] = read.gather(1, labels_N[part, None])[:, 0] - total_N[part]
            if keeps:
                kept.append(logits)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, labels_N, total_N)
        ctx.kept, ctx.rows = kept, rows
        return found_N

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        (worth_N,) = outputs
        hidden_ND, weight_VD, bias_V, labels_N, total_N = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        hidden_grad = torch.empty_like(hidden_ND) if wants_hidden else None
        weight_grad = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        bias_grad = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        kept, ctx.kept = ctx.kept[::-1], []
        for start in range(0, len(hidden_ND), ctx.rows):
            part = slice(start, min(start + ctx.rows, len(hidden_ND)))
            logits = kept.pop() if kept else torch.nn.functional.linear(hidden_ND[part], weight_VD, bias_V)
            grad = logits.float().sub_(total_N[part, None]).exp_().mul_(-worth_N[part, None])
            grad.scatter_add_(1, labels_N[part, None], worth_N[part, None].to(grad.dtype))
            _add(grad, hidden_ND, weight_VD, part, (hidden_grad, weight_grad, bias_grad))
        weight_grad = None if weight_grad is None else weight_grad.to(weight_VD.dtype)
        bias_grad = None if bias_grad is None or bias_V is None else bias_grad.to(bias_V.dtype)
        return hidden_grad, weight_grad, bias_grad, None, None, None


class _FixedMatrixValues(torch.autograd.Function):
    """Values of logits through a matrix that is not trained. The forward pass keeps the gradient of each
    token's values in its hidden state [K, N, D].
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden_ND: torch.Tensor, values_of: ChunkValues, head: Head, rows: int
    ) -> torch.Tensor:
        found, grads = [], list[torch.Tensor]()
        weight, bias = head.weight, head.model.get_output_embeddings().bias
        for start in range(0, len(hidden_ND), rows):
            part = slice(start, min(start + rows, len(hidden_ND)))
            logits = torch.nn.functional.linear(hidden_ND[part], weight, bias).detach().requires_grad_(True)
            with torch.enable_grad():
                values = values_of(scaled(head.model, logits.float()), part)
                totals = values.sum(0).unbind()
            count = len(totals)
            grads = grads or [torch.zeros_like(hidden_ND) for _ in range(count)]
            for k in range(count):
                (grad,) = torch.autograd.grad(totals[k], logits, retain_graph=k + 1 < count)
                torch.mm(grad, weight, out=grads[k][part])
            found.append(values.detach())
        ctx.save_for_backward(*grads)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        (scale_NK,), grads = outputs, ctx.saved_tensors
        scales = scale_NK.unbind(1)
        total = sum(g * s.unsqueeze(1).to(g.dtype) for g, s in zip(grads, scales, strict=True))
        return total, None, None, None


class _OneMatrixLoss(torch.autograd.Function):
    """The loss sum through a projection of one matrix. The forward pass keeps only gradients, each as large
    as its tensor.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        model: Any,
        loss_of: ChunkLoss,
        rows: int,
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[:3]
        hidden_grad = torch.zeros_like(hidden_ND) if wanted[0] else None
        weight_grad = torch.zeros_like(weight_VD, dtype=torch.float32) if wanted[1] else None
        bias_grad = (
            torch.zeros_like(bias_V, dtype=torch.float32) if bias_V is not None and wanted[2] else None
        )
        total = hidden_ND.new_zeros((), dtype=torch.float64)
        for start in range(0, len(hidden_ND), rows):
            part = slice(start, min(start + rows, len(hidden_ND)))
            logits = (
                torch.nn.functional.linear(hidden_ND[part], weight_VD, bias_V)
                .detach()
                .requires_grad_(any(wanted))
            )
            with torch.enable_grad():
                loss = loss_of(scaled(model, logits.float()), part)
            total += loss.detach()
            if not any(wanted):
                continue
            (grad,) = torch.autograd.grad(loss, logits)
            _add(grad, hidden_ND, weight_VD, part, (hidden_grad, weight_grad, bias_grad))
        ctx.gradients = hidden_grad, weight_grad, bias_grad
        ctx.dtypes = weight_VD.dtype, None if bias_V is None else bias_V.dtype
        return total.float()

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[Any, ...]:
        (scale,) = outputs
        hidden_grad, weight_grad, bias_grad = ctx.gradients
        ctx.gradients = None
        hidden_grad = None if hidden_grad is None else hidden_grad.mul_(scale)
        weight_grad = None if weight_grad is None else weight_grad.mul_(scale).to(ctx.dtypes[0])
        bias_grad = None if bias_grad is None else bias_grad.mul_(scale).to(ctx.dtypes[1])
        return hidden_grad, weight_grad, bias_grad, None, None, None
