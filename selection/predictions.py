"""Statistics of the next-token distribution at each counted token: loss, clipped rank, Brier term,
entropy.

The vocabulary projection runs in chunks of positions, in float32 whatever the model's dtype, into two blocks
that are reused. No [T, V] block is kept. Natural log.

Shapes: T tokens of a batch, D width, V vocabulary, N predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cluster.models.branching import Layout
from cluster.models.vocabulary import Head

RANK_CLIP, BRIER_TOP = 100, 50
CHUNK_BYTES = {
    "cpu": 2**26,
    "cuda": 2**29,
}  # float32 logits that exist at once; a second block of that size beside them
TOP_COLUMN = 8


@dataclass(frozen=True)
class Predictions:
    """Counted tokens that are predicted, as int64 [N]: the position that each is predicted from, its own
    position, and its owner.
    """

    source: np.ndarray
    target: np.ndarray
    segment: np.ndarray


def find_predictions(
    layout: Layout, counted: np.ndarray, spans: Sequence[tuple[slice, slice]]
) -> Predictions:
    """The predictions of every (prompt, tokens after it). The first token is predicted from the prompt's last
    token, if there is one.
    """
    source, target, segment = [], [], []
    for number, (prompt, span) in enumerate(spans):
        places = np.arange(span.start, span.stop)
        sources = places - 1
        if len(places) and prompt.stop > prompt.start:
            sources[0] = prompt.stop - 1
        kept = counted[places]
        if len(places) and prompt.stop == prompt.start:
            kept = kept & (places > span.start)
        source.append(sources[kept])
        target.append(places[kept])
        segment.append(np.full(int(kept.sum()), number))
    return Predictions(np.concatenate(source), np.concatenate(target), np.concatenate(segment))


class Vocabulary:
    """Measures predictions under one model's projection. `free` drops its blocks."""

    def __init__(self, head: Head) -> None:
        self.head, self.device, self.size = head, head.model.device, head.size
        self._chunk_bytes = CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cuda"])
        self._blocks: list[torch.Tensor] = []

    def free(self) -> None:
        self._blocks.clear()

    def measure(
        self, hidden_TD: torch.Tensor, layout: Layout, wanted: Predictions, full: bool
    ) -> dict[str, np.ndarray]:
        """For each prediction, float64 [N]: its loss, and with `full` also clipped rank, Brier term and
        entropy.
        """
        names = ("loss", "rank", "brier", "entropy") if full else ("loss",)
        parts: list[torch.Tensor] = []
        chunk = max(1, self._chunk_bytes // (4 * self.size))
        for start in range(0, len(wanted.source), chunk):
            source = torch.from_numpy(wanted.source[start : start + chunk]).to(hidden_TD.device)
            target = torch.from_numpy(layout.ids[wanted.target[start : start + chunk]]).to(hidden_TD.device)
            parts.append(self._chunk_statistics(hidden_TD[source], target, full))
        table = torch.cat(parts, 1).cpu().numpy() if parts else np.zeros((len(names), 0))
        return dict(zip(names, table, strict=True))

    def _chunk_statistics(self, hidden_ND: torch.Tensor, target_N: torch.Tensor, full: bool) -> torch.Tensor:
        """The statistics of a chunk, float64 [4, N] or [1, N]. The logits are shifted in place so that the
        largest is 0. No [N, V] tensor is kept.
        """
        logits_NV, spare_NV = (
            self.head.logits(hidden_ND, self._block(0, len(hidden_ND))),
            self._block(1, len(hidden_ND)),
        )
        own_N1, peak_N1 = logits_NV.gather(1, target_N.unsqueeze(1)), logits_NV.amax(-1, keepdim=True)
        more = []
        if full:  # comparisons are written as floats: on a CPU sums of booleans are tens of times slower
            rank_N = 1 + torch.gt(logits_NV, own_N1, out=spare_NV).sum(-1)
            more = [rank_N.clamp(max=RANK_CLIP), _brier(_largest(logits_NV, BRIER_TOP), own_N1)]
        shifted_NV = logits_NV.sub_(peak_N1)
        exp_NV = torch.exp(shifted_NV, out=spare_NV)
        sum_N = exp_NV.sum(-1)
        loss_N = sum_N.log() - (own_N1 - peak_N1).squeeze(1)
        if full:
            more.append(sum_N.log() - torch.einsum("nv,nv->n", exp_NV, shifted_NV) / sum_N)
        return torch.stack([loss_N, *more]).double()

    def _block(self, which: int, rows: int) -> torch.Tensor:
        """One of two float32 blocks [rows, V], allocated once. A new block for every chunk would cost more
        than its arithmetic.
        """
        while len(self._blocks) <= which or self._blocks[which].shape[0] < rows:
            block = torch.empty(rows, self.size, device=self.device)
            self._blocks[which : which + 1] = [block]
        return self._blocks[which][:rows]


def _largest(logits_NV: torch.Tensor, k: int) -> torch.Tensor:
    """The k largest logits [N, k], in any order.

    The vocabulary is cut into columns of 8 entries. The k columns with the largest maxima hold all of them.
    Selecting among V/8 and then 8k entries costs about half as much as selecting among V.
    """
    columns = logits_NV.shape[1] // TOP_COLUMN
    if columns <= k:
        return logits_NV.topk(min(k, logits_NV.shape[1]), -1, sorted=False).values
    blocked = logits_NV[:, : TOP_COLUMN * columns].view(-1, TOP_COLUMN, columns)
    best = blocked.amax(1).topk(k, -1, sorted=False).indices
    among = blocked.gather(2, best.unsqueeze(1).expand(-1, TOP_COLUMN, -1)).flatten(1)
    return torch.cat([among, logits_NV[:, TOP_COLUMN * columns :]], 1).topk(k, -1, sorted=False).values


def _brier(top_NK: torch.Tensor, own_N1: torch.Tensor) -> torch.Tensor:
    """1 - 2 p~_t + sum_k p~_k^2 over the 50 largest logits (LARK, arXiv 2605.30651)."""
    p_top = torch.softmax(top_NK, -1)
    inside = own_N1 >= top_NK.amin(-1, keepdim=True)
    p_own = torch.exp(own_N1 - torch.logsumexp(top_NK, -1, keepdim=True)).where(inside, 0.0).squeeze(1)
    return 1 - 2 * p_own + (p_top**2).sum(-1)
