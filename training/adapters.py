"""LoRA adapters on a student: which layers get one, and which must not.

In some models the head and the embedding are one matrix with two names. An adapter on one of them changes one
use of the matrix and not the other. After merging, such a model cannot express that. So the adapter is
refused before anything is trained.
"""

from collections.abc import Sequence
from typing import Any

from cluster.errors import BadInput
from cluster.models.added_tokens import embeddings_of
from cluster.models.loading import add_adapter
from training.settings import LoraSettings


def with_lora(model: Any, lora: LoraSettings, adapter: str | None = None, tokens: Sequence[int] = ()) -> Any:
    """The model with an adapter to train: the adapter that it already has, otherwise a new one.

    Args:
        tokens: the ids of added tokens, whose rows of the embeddings are trained too.

    Raises:
        BadInput: the target modules name no layer that can have an adapter, or a layer that shares its
            weights.
    """
    from peft import LoraConfig, get_peft_model

    shared = _shared_weights(model)
    if adapter is not None:
        wrapped = add_adapter(model, adapter, trainable=True)
    else:
        targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
            trainable_token_indices=_rows_of(model, tokens) if tokens else None,
        )
        try:
            wrapped = get_peft_model(model, config)
        except (ValueError, TypeError) as error:
            problem = " ".join(str(error).split())[:160]
            remedy = f"{problem}; names of linear layers, such as q_proj, or all-linear"
            raise BadInput("train.lora does not fit this student", targets, "", remedy) from error
    _refuse_shared(wrapped, shared)
    return wrapped


def _rows_of(model: Any, tokens: Sequence[int]) -> dict[str, list[int]]:
    """The rows to train, by the name of their module. Tied embeddings are named once."""
    modules = {id(module.weight): module for module in reversed(embeddings_of(model))}
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(module)].rpartition(".")[2]: list(tokens) for module in modules.values()}


def _shared_weights(model: Any) -> dict[int, list[str]]:
    """The parameters that several modules of a model share, by identity, with their names."""
    names: dict[int, list[str]] = {}
    owners: dict[int, set[int]] = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            names.setdefault(id(parameter), []).append(f"{path}.{name}")
            owners.setdefault(id(parameter), set()).add(id(module))
    return {key: found for key, found in names.items() if len(owners[key]) > 1}


def _refuse_shared(wrapped: Any, shared: dict[int, list[str]]) -> None:
    """Refuse an adapter on a layer that shares its weights with another layer.

    Raises:
        BadInput: there is such an adapter. Names both layers.
    """
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, module in wrapped.named_modules():
        # rows of added tokens are trained in both uses of a tied matrix
        if not isinstance(module, BaseTunerLayer) or isinstance(module, TrainableTokensLayer):
            continue
        for parameter in module.get_base_layer().parameters(recurse=False):
            if id(parameter) in shared:
                layer = path.removeprefix("base_model.model.")
                raise BadInput(
                    f"train.lora has an adapter on {layer}, whose weights are tied",
                    " = ".join(shared[id(parameter)]),
                    "layers with weights of their own: merged, the adapter would change both",
                    "leave it out of train.lora.target_modules (all-linear does), or train without lora",
                )
