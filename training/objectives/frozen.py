"""A frozen vocabulary projection. It belongs to the model whose hidden states are the targets, and does not
change while the student learns.

Shapes: N tokens, D width, V vocabulary.
"""

from types import SimpleNamespace
from typing import Any

import torch

from cluster.models.loading import ModelSource, load_model
from cluster.models.proof import prove
from cluster.models.vocabulary import Head, scaled


class FrozenHead(torch.nn.Module):
    """The projection of a model on disk. Products are in float32. It has no gradient and is in no
    checkpoint.

    Attributes:
        is_linear: whether mean logits are the logits of mean states.
    """

    def __init__(self, source: ModelSource) -> None:
        super().__init__()
        model = load_model(source)
        head = prove(model, ("projection",)).head
        self.size, self.is_linear = head.size, head.is_linear()
        self._whole: tuple[Head, ...] = ()
        if head.is_one_matrix:
            own = model.get_output_embeddings()
            self._config = SimpleNamespace(config=model.config)
            self.register_buffer("weight", own.weight.detach().clone(), persistent=False)
            bias = None if own.bias is None else own.bias.detach().clone()
            self.register_buffer("bias", bias, persistent=False)
        else:
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            self._whole = (head,)  # in a tuple: DeepSpeed would shard the weights of a submodule

    @torch.no_grad()
    def logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Logits [N, V] in float32 for states [N, D] in float32."""
        if self._whole:
            (head,) = self._whole
            head.model.to(hidden_ND.device)
            return head.logits(hidden_ND.to(head.model.dtype))
        weight: Any = self.weight
        bias: Any = self.bias
        product = torch.nn.functional.linear(
            hidden_ND, weight.float(), None if bias is None else bias.float()
        )
        return scaled(self._config, product)
