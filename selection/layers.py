"""The hidden vector h_t of SCAS: the output of the last decoder layer's up projection. It is summed as unit
vectors over prompts and answers.

Model families name that projection differently, and some fuse it with its gate; then the up half counts. If a
layer's MLP is a set of experts, no single projection sees every token. Then h_t is the output of the whole
MLP (`docs/methods.md` says why).

Shapes: T tokens of a batch, S segments (each prompt and then its answers), H width of the watched output.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cluster.errors import BadInput
from cluster.models.branching import Layout
from cluster.models.vocabulary import decoder_of

LISTS = ("layers", "h", "blocks", "layer")  # the names of model families for their list of decoder layers
NOT_TEXT = ("vision", "image", "audio", "speech")
ONLY_WITH_IMAGES = "CrossAttention"  # in the names of layers that are skipped for a text alone
# Endings of a projection's name inside a layer. The first one that exists counts. Up projections beside a
# gate come first, then those fused with it (gate half, up half), then the first matrix of an MLP without a
# gate, then what replaces an MLP.
UP = ("up_proj", "proj_up", "w3")
FUSED = ("gate_up_proj", "Wi", "input_linear")
FIRST = (
    "c_fc",
    "fc_in",
    "fc1",
    "dense_h_to_4h",
    "intermediate.dense",
    "ffn.0",
    "layer_1",
    "feed_forward.key",
    "in_proj",
)
EXPERTS = ("experts", "router")
MLPS = ("mlp", "feed_forward", "block_sparse_moe")
NOT_MLP = ("attn", "attention", "adapter", "vision", "mamba_decoder")
UNIT_ROWS = 4096  # how many positions' unit vectors exist at once


@dataclass(frozen=True)
class Layer:
    """A watched module, by its dotted name, and whether only the second half of its output counts."""

    name: str
    module: torch.nn.Module
    up_half: bool = False

    def kept(self, output_TH: torch.Tensor) -> torch.Tensor:
        """The part of the module's output that is h_t."""
        return output_TH.chunk(2, dim=-1)[1] if self.up_half else output_TH


def find_layer(model: Any, target_layer: str | None = None) -> Layer:
    """The layer whose output is h_t: `target_layer` by its dotted name, otherwise the one in the last decoder
    layer.

    Raises:
        BadInput: there is no such module, or the last layer has nothing that looks like an MLP.
    """
    modules = dict(model.named_modules())
    if target_layer is not None:
        if target_layer not in modules:
            raise BadInput(
                "no such layer in the student",
                target_layer,
                "a module's dotted name",
                f"for example {list(modules)[-3]}",
            )
        return Layer(target_layer, modules[target_layer])
    kind, names = model.config.model_type, {id(module): name for name, module in modules.items()}
    layer = _last_layer(model)
    found = None if layer is None else _mlp_of(layer)
    if layer is None or found is None:
        raise BadInput(
            f"cannot find the MLP of a {kind}'s last layer",
            "",
            "a projection of a usual name",
            "name the layer with score.target_layer",
        )
    return Layer(f"{names[id(layer)]}.{found[0]}", *found[1:])


def _last_layer(model: Any) -> torch.nn.Module | None:
    """The last decoder layer of the language model, also inside a model with images or audio."""
    for name, module in decoder_of(model).named_modules():
        words = name.split(".")
        if (
            isinstance(module, torch.nn.ModuleList)
            and words[-1] in LISTS
            and not any(w in name for w in NOT_TEXT)
            and len(module)
        ):
            return next(
                (layer for layer in reversed(module) if ONLY_WITH_IMAGES not in type(layer).__name__), None
            )
    return None


def _mlp_of(layer: torch.nn.Module) -> tuple[str, torch.nn.Module, bool] | None:
    """The name and module of a layer's first projection, or of its whole MLP of experts, and whether only the
    up half counts.
    """
    inside = [
        (name, module) for name, module in layer.named_modules() if not any(word in name for word in NOT_MLP)
    ]
    if any(word in EXPERTS for name, _ in inside for word in name.split(".")):
        return next(((name, module, False) for name, module in inside if name in MLPS), None)
    for endings, up_half in ((UP, False), (FUSED, True), (FIRST, False)):
        for ending in endings:
            found = [(n, m) for n, m in inside if f".{n}".endswith(f".{ending}") and _is_projection(m)]
            if found:
                return (*found[-1], up_half)
    return None


def _is_projection(module: torch.nn.Module) -> bool:
    return getattr(module, "weight", None) is not None and not isinstance(module, torch.nn.ModuleList)


class UnitSums:
    """Sums the unit vectors of h_t over each prompt and each answer during the forward pass. No [T, H] tensor
    is kept.
    """

    def __init__(self, layout: Layout, counted: np.ndarray, layer: Layer) -> None:
        self.layout, self.counted, self.layer = layout, counted, layer
        self.segments = [
            s for p, spans in zip(layout.prompts, layout.branches, strict=True) for s in (p, *spans)
        ]
        self.sums_SH = torch.empty(0)

    def __call__(self, output_TH: torch.Tensor) -> None:
        """Take the watched layer's output. If a layer runs several times in a pass, its last output
        counts.
        """
        output_TH = self.layer.kept(output_TH)
        kept_T1 = torch.from_numpy(self.counted).to(output_TH.device).unsqueeze(1)
        self.sums_SH = torch.zeros(
            len(self.segments), output_TH.shape[1], dtype=torch.float64, device=output_TH.device
        )
        number = 0
        for start in range(0, len(output_TH), UNIT_ROWS):
            stop = min(start + UNIT_ROWS, len(output_TH))
            unit = torch.nn.functional.normalize(output_TH[start:stop].float(), dim=-1).mul_(
                kept_T1[start:stop]
            )
            while number < len(self.segments) and self.segments[number].start < stop:
                segment = self.segments[number]
                self.sums_SH[number] += unit[max(segment.start, start) - start : segment.stop - start].sum(0)
                if segment.stop > stop:
                    break
                number += 1

    def products(self) -> tuple[list[float], list[float]]:
        """For each answer: |sum over A|^2 and (sum over A) . (sum over Q)."""
        answers: list[int] = []
        prompts: list[int] = []
        at = 0
        for spans in self.layout.branches:
            answers += range(at + 1, at + 1 + len(spans))
            prompts += [at] * len(spans)
            at += 1 + len(spans)
        a, q = self.sums_SH[answers], self.sums_SH[prompts]
        return (a * a).sum(-1).tolist(), (a * q).sum(-1).tolist()
