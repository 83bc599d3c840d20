"""The hidden quantity h_t of SCAS: the last decoder layer's up projection, as sums of unit vectors over prompts and answers.

Shapes: T tokens of a batch, S segments (each prompt and then its answers), H width of the up projection.
"""

from typing import Any

import numpy as np
import torch

from cluster.branching import Layout
from cluster.errors import BadInput
from cluster.heads import decoder_of

# Path of the up projection inside a decoder layer, per model type; None where a layer has no single one.
LAYER_MODULES: dict[str, str | None] = {"gpt2": "mlp.c_fc", "gpt_neox": "mlp.dense_h_to_4h", "phi3": "mlp.gate_up_proj", "mixtral": None}
DEFAULT_LAYER_MODULE = "mlp.up_proj"
UNIT_ROWS = 4096  # positions whose unit vectors exist at once


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


class UnitSums:
    """Sums the unit vectors of h_t over each prompt and each answer while the forward pass runs; nothing [T, H] is kept."""

    def __init__(self, layout: Layout, counted: np.ndarray, fused_up_half: bool) -> None:
        self.layout, self.counted, self.fused_up_half = layout, counted, fused_up_half
        self.segments = [s for p, spans in zip(layout.prompts, layout.branches, strict=True) for s in (p, *spans)]
        self.sums_SH = torch.empty(0)

    def __call__(self, output_TH: torch.Tensor) -> None:
        """Take the watched layer's output."""
        if self.fused_up_half:
            output_TH = output_TH.chunk(2, dim=-1)[1]
        kept_T1 = torch.from_numpy(self.counted).to(output_TH.device).unsqueeze(1)
        self.sums_SH = torch.zeros(len(self.segments), output_TH.shape[1], dtype=torch.float64, device=output_TH.device)
        number = 0
        for start in range(0, len(output_TH), UNIT_ROWS):
            stop = min(start + UNIT_ROWS, len(output_TH))
            unit = torch.nn.functional.normalize(output_TH[start:stop].float(), dim=-1).mul_(kept_T1[start:stop])
            while number < len(self.segments) and self.segments[number].start < stop:
                segment = self.segments[number]
                self.sums_SH[number] += unit[max(segment.start, start) - start : segment.stop - start].sum(0)
                if segment.stop > stop:
                    break
                number += 1

    def products(self) -> tuple[list[float], list[float]]:
        """Per answer: |sum over A|^2 and (sum over A) . (sum over Q)."""
        answers: list[int] = []
        prompts: list[int] = []
        at = 0
        for spans in self.layout.branches:
            answers += range(at + 1, at + 1 + len(spans))
            prompts += [at] * len(spans)
            at += 1 + len(spans)
        a, q = self.sums_SH[answers], self.sums_SH[prompts]
        return (a * a).sum(-1).tolist(), (a * q).sum(-1).tolist()
