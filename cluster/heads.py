"""From a causal language model's hidden states to its logits, for chosen positions only.

Projecting every position onto a vocabulary of 150,000 costs more memory than the rest of a small model's pass, so scoring
and training project the answer's positions alone. The shortcut is proved against the model's own logits before use.

Shapes: B rows, T tokens, D width, V vocabulary, N chosen positions.
"""

from typing import Any

import torch

from cluster.errors import BadInput

VOCABULARY_SLICE = 8192


def decoder_of(model: Any) -> Any:
    """The transformer without its vocabulary projection; calling it gives `last_hidden_state` [B, T, D]."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = whole.get_decoder()
    return whole.model if decoder is whole else decoder  # Llama 4's text model names itself


def project(model: Any, hidden_ND: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Logits [N, V] in float32 for hidden states [N, D], with the scaling and capping that some families apply.

    Args:
        out: float32 [N, V] to write into where the projection is a plain matrix: a fresh block of that size for every chunk costs
            as much as the product itself on a CPU. With it the product is made in float32 whatever the model's dtype; without
            it the logits are rounded to that dtype first, as the model itself does.
    """
    config, head = model.config, model.get_output_embeddings()
    if out is not None and type(head) is torch.nn.Linear and head.bias is None:
        logits = _exact_product(hidden_ND, head.weight, out)
    else:
        logits = head(hidden_ND).float()
    if getattr(config, "logit_scale", None) is not None and config.model_type.startswith("cohere"):
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits = logits / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _exact_product(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """hidden x weight^T in float32. A bfloat16 logit of 16 is off by up to 0.06: enough to change most ranks."""
    if weight_VD.dtype == torch.float32:
        return torch.mm(hidden_ND, weight_VD.t(), out=out)
    if hidden_ND.device.type == "cuda":
        return out.copy_(torch.mm(hidden_ND, weight_VD.t(), out_dtype=torch.float32))
    hidden_ND = hidden_ND.float()
    for start in range(0, len(weight_VD), VOCABULARY_SLICE):  # never a whole copy of the matrix
        out[:, start : start + VOCABULARY_SLICE] = hidden_ND @ weight_VD[start : start + VOCABULARY_SLICE].float().t()
    return out


@torch.no_grad()
def check_projection(model: Any) -> None:
    """Compare `project` with the model's own logits on a short probe.

    Raises:
        BadInput: they differ by more than 1e-3 of the largest logit: this architecture needs its own rule.
    """
    ids = torch.arange(1, 9, device=model.device).remainder(model.config.get_text_config().vocab_size).unsqueeze(0)
    expected = model(input_ids=ids, use_cache=False).logits[0].float()
    got = project(model, decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state[0])
    error = (got - expected).abs().max().item()
    tolerance = 1e-3 if model.dtype == torch.float32 else 3e-2
    if error > tolerance * max(1.0, expected.abs().max().item()):
        raise BadInput(
            f"the vocabulary projection of {model.config.model_type} is not the plain one",
            f"a difference of {error:.2g} in the logits",
            "the model's own logits",
            "add its rule to cluster/heads.py",
        )
