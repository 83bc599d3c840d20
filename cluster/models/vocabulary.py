"""From a causal language model's hidden states to its logits, for chosen positions only.

Projecting every position onto a vocabulary of 150,000 costs more memory than the rest of a small model's
pass, so scoring and training project the answer's positions alone. `cluster.models.proof` compares the
shortcut with the model's own logits.

Shapes: B rows, T tokens, D width, V vocabulary, N chosen positions.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

VOCABULARY_SLICE = 8192


def decoder_of(model: Any) -> Any:
    """The transformer without its vocabulary projection; calling it gives `last_hidden_state` [B, T, D]."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.model if whole.base_model is whole else whole.base_model


@dataclass(frozen=True)
class Head:
    """A model's vocabulary projection.

    Attributes:
        model: a causal language model, also one that peft has wrapped.
        size: V, how many logits there are.
        own: None if the projection is one matrix and `scaled`. Otherwise an output of the model's decoder. A
            copy of it with other hidden states is given to the model's own forward, which computes the
            logits.
    """

    model: Any
    size: int
    own: Any = None

    @property
    def weight(self) -> torch.Tensor:
        """The projection's matrix [V, D]."""
        weight: torch.Tensor = self.model.get_output_embeddings().weight
        return weight

    @property
    def is_one_matrix(self) -> bool:
        return self.own is None and type(self.model.get_output_embeddings()) is torch.nn.Linear

    def is_linear(self) -> bool:
        """Whether mean logits are the logits of a mean state, up to a constant. It is measured, because any
        family's code may cap logits. A projection that is not one matrix counts as not linear.
        """
        if not self.is_one_matrix:
            return False
        weight, rng = self.weight, torch.Generator().manual_seed(0)
        large = 20 * torch.randn(4, weight.shape[1], generator=rng)  # large enough to show a cap
        states = large.to(device=weight.device, dtype=weight.dtype)
        with torch.inference_mode():
            one, other = self.logits(states[:2]).double(), self.logits(states[2:]).double()
            middle = self.logits(((states[:2].float() + states[2:].float()) / 2).to(weight.dtype)).double()
        scale = max(float(torch.maximum(one.abs(), other.abs()).max()), 1e-12)
        tolerance = 1e-4 if weight.dtype == torch.float32 else 3e-2
        return bool(((one + other) / 2 - middle).abs().max() <= tolerance * scale)

    def logits(self, hidden_ND: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [N, V] in float32 for hidden states [N, D], with the scaling and capping that some families
        apply.

        Args:
            out: float32 [N, V] to write into, if the projection is a plain matrix. On a CPU a new block of
                that size for every chunk costs as much as the product itself. With `out` the product is
                computed in float32 whatever the model's dtype. Without it the logits are rounded to that
                dtype first, as the model itself does.
        """
        if self.own is not None:
            return self._own_logits(hidden_ND)
        head = self.model.get_output_embeddings()
        if out is not None and self.is_one_matrix and head.bias is None:
            return scaled(self.model, _exact_product(hidden_ND, head.weight, out))
        return scaled(self.model, head(hidden_ND).float())

    def _own_logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """The logits of the model's own forward. Its decoder returns these hidden states instead of computing
        its own.
        """
        output = copy.copy(self.own)
        output["last_hidden_state"] = hidden_ND.unsqueeze(0)
        ids = torch.zeros(1, len(hidden_ND), dtype=torch.long, device=hidden_ND.device)
        with _answering(decoder_of(self.model), output):
            logits: torch.Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits[0].float()


def scaled(model: Any, logits_NV: torch.Tensor) -> torch.Tensor:
    """Apply what some families do to the product of hidden states and projection: Cohere and Granite scale
    it, Gemma 2 caps it.
    """
    config = model.config.get_text_config()
    if getattr(config, "logit_scale", None) is not None and config.model_type.startswith("cohere"):
        logits_NV = logits_NV * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits_NV = logits_NV / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)
    return logits_NV if cap is None else torch.tanh(logits_NV / cap) * cap


def is_scaled(model: Any) -> bool:
    """Whether `scaled` may change logits."""
    config = model.config.get_text_config()
    names = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    return any(getattr(config, name, None) is not None for name in names)


@contextmanager
def _answering(module: Any, output: Any) -> Iterator[None]:
    """Make a module return this output during the block."""
    before = vars(module).get("forward")
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.forward
        if before is not None:  # a library had wrapped the module
            module.forward = before


def _exact_product(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """hidden x weight^T in float32. A bfloat16 logit of 16 is off by up to 0.06:
    enough to change most ranks.
    """
    if weight_VD.dtype == torch.float32:
        return torch.mm(hidden_ND, weight_VD.t(), out=out)
    if hidden_ND.device.type == "cuda":
        return out.copy_(torch.mm(hidden_ND, weight_VD.t(), out_dtype=torch.float32))
    hidden_ND = hidden_ND.float()
    for start in range(0, len(weight_VD), VOCABULARY_SLICE):  # never a whole copy of the matrix
        out[:, start : start + VOCABULARY_SLICE] = (
            hidden_ND @ weight_VD[start : start + VOCABULARY_SLICE].float().t()
        )
    return out
