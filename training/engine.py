"""A student on a DeepSpeed engine: loading it, proving its shortcuts, wrapping it for its objective, and
releasing it completely.

DeepSpeed is imported here and in the loop only, inside a train worker.
"""

import argparse
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cluster.errors import TutelageError
from cluster.memory import free_memory
from cluster.models.loading import ModelSource, added_ids, load_model
from cluster.models.proof import TRAINING, Proof, prove
from cluster.models.vocabulary import Head
from training.adapters import with_lora
from training.batches import Layout
from training.objectives.objective import Objective, Sums, Tensors
from training.settings import TrainSettings, engine_config

PROBE = "probe"  # the key of a batch that asks for the logits of some ids instead of a loss


@dataclass
class Student:
    """A student in training.

    Attributes:
        engine: the DeepSpeed engine. Calling it with a micro-batch gives the objective's sums.
        layout: how examples may share a pass.
        fallbacks: the shortcuts that its architecture does not allow, with what is done instead and why.
    """

    engine: Any
    layout: Layout
    fallbacks: dict[str, str]

    @property
    def model(self) -> Any:
        """The model itself; for LoRA peft's wrapper around it."""
        return self.engine.module.head.model

    @property
    def even_width(self) -> float:
        """The width of a row at which attention costs as much as the rest of the model; see `fold`.

        A layer of a usual transformer of width D multiplies each token by 12 D^2 weights, and in attention by
        2 D numbers of each token of its row. That is as much at 6 D tokens. Attention runs at about half the
        rate of large matrices (docs/performance.md).
        """
        hidden = getattr(self.model.config.get_text_config(), "hidden_size", None)
        return 3.0 * hidden if isinstance(hidden, int) else float("inf")

    @property
    def is_sharded(self) -> bool:
        """Whether each worker holds only a part of every weight."""
        return int(self.engine.zero_optimization_stage()) == 3

    def logits(self, text: Sequence[int]) -> torch.Tensor:
        """Logits [T, V] in float32 of one text under the present weights. All workers call it together. A
        call between two steps does not change them: dropout is off, and nothing is drawn.
        """
        ids = torch.tensor([list(text)], device=self.engine.device)
        modes = [(module, module.training) for module in self.engine.modules()]
        self.engine.eval()
        try:
            with torch.no_grad():
                found: torch.Tensor = self.engine({PROBE: ids})
        finally:
            for module, was_training in modes:
                module.training = was_training
        return found[0].float()

    def release(self) -> None:
        """Release the engine, the model and everything that DeepSpeed keeps of them. `destroy` alone would
        keep whole models alive.
        """
        self.engine.destroy()
        self.engine = None
        forget_order()
        free_memory()


def start(
    source: ModelSource,
    objective: Objective,
    settings: TrainSettings,
    workers: int,
    device: torch.device,
    universal: bool = False,
    frozen: ModelSource | None = None,
    groups: bool = False,
) -> Student:
    """Load a student, prove what its architecture allows, and put it on an engine.

    Args:
        frozen: a model that the objective reads and that is not trained.
        groups: whether examples are in groups, whose prompts may then be shared. With gradient checkpointing
            they are not: a layer that is computed again does not know the layout.
        universal: whether the checkpoint to load was made by another number of workers.

    Raises:
        BadInput: the model cannot be loaded or is no causal language model.
        TutelageError: the workers' proofs of it differ.
    """
    import deepspeed
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = (
        False  # otherwise every start compiles it, and hangs on a stale lock
    )
    model = load_model(replace(source, adapter=None))
    if settings.precision == "bfloat16":
        model = model.to(torch.bfloat16)
    model = model.to(device)
    checkpointing = settings.gradient_checkpointing
    further = ["checkpointing"] if checkpointing else ["shared prompts"] if groups else []
    proof = _agreed(prove(model, (*TRAINING, *further)))
    if checkpointing and proof.allows("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    if settings.lora is not None:
        model = with_lora(model, settings.lora, source.adapter, added_ids(source))
    module = ObjectiveModule(replace(proof.head, model=model), objective, frozen).to(device)
    config = engine_config(settings, workers)
    if universal:
        config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": True}
    if config["zero_optimization"]["stage"] == 3 and module.head.is_one_matrix:
        # The loss reads the projection's matrix itself: it has to be gathered with the whole module, not by
        # the projection's own call.
        deepspeed.zero.register_external_parameter(module, module.head.weight)
    engine, *_ = deepspeed.initialize(
        model=module, model_parameters=parameter_groups(module, config), config=config
    )
    shares = "shared prompts" in further and proof.allows("shared prompts")
    return Student(engine, "shared" if shares else widest(proof), proof.lines)


def widest(proof: Proof) -> Layout:
    """How single examples may share a pass."""
    return "packed" if proof.allows("packing") else "padded" if proof.allows("padding") else "alone"


class ObjectiveModule(torch.nn.Module):
    """A model, its objective and the objective's attached module as one module. ZeRO-3 gathers parameters
    correctly only inside the forward of its root module.
    """

    def __init__(self, head: Head, objective: Objective, frozen: ModelSource | None = None) -> None:
        super().__init__()
        self.model, self.head, self.objective = head.model, head, objective
        self.attached = None if objective.attach is None else objective.attach(head.model, frozen)

    def forward(self, batch: Tensors) -> Sums | torch.Tensor:
        """The sums of a micro-batch: its loss, and metrics without a graph. For a probe the model's
        logits.
        """
        if PROBE in batch:
            logits: torch.Tensor = self.model(input_ids=batch[PROBE], use_cache=False).logits
            return logits
        loss, metrics = self.objective.loss(self.head, self.attached, batch)
        return loss, {name: value.detach() for name, value in metrics.items()}


def parameter_groups(module: torch.nn.Module, config: dict[str, Any]) -> list[dict[str, Any]]:
    """The trained parameters in two groups: matrices with weight decay, norms and biases without."""
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.dim() >= 2], [p for p in trained if p.dim() < 2]
    decay = config["optimizer"].get("params", {}).get("weight_decay")
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors}]
    if decay is not None:
        groups[1]["weight_decay"] = 0.0
    return [group for group in groups if group["params"]]


def _agreed(proof: Proof) -> Proof:
    """The proof with the fallbacks of all workers, because all must arrange examples in the same way.

    Raises:
        TutelageError: the vocabulary projection is one matrix for some workers only.
    """
    found: list[dict[str, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, proof.fallbacks)
    known: Sequence[dict[str, str]] = [f for f in found if f is not None]
    if len({"projection" in fallbacks for fallbacks in known}) > 1:
        raise TutelageError(
            "train workers disagree about the model's vocabulary projection", "", "machines of one kind", ""
        )
    return replace(
        proof, fallbacks={name: reason for fallbacks in known for name, reason in fallbacks.items()}
    )


def forget_order() -> None:
    """Clear ZeRO-3's state of the whole process: the stack of modules that it is inside of, and the order of
    modules.
    """
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    FWD_MODULE_STACK.clear()
    for method in vars(PartitionedParameterCoordinator).values():
        for inner in (cell.cell_contents for cell in getattr(method, "__closure__", None) or ()):
            if hasattr(inner, "cache_clear"):
                inner.cache_clear()


def make_universal(folder: Path, universal: Path) -> None:
    """Rewrite a checkpoint's shards so that any number of workers can load them (DeepSpeed's universal
    checkpoints).

    Raises:
        TutelageError: DeepSpeed cannot rewrite it.
    """
    from deepspeed.checkpoint import ds_to_universal

    arguments = argparse.Namespace(
        input_folder=str(folder),
        output_folder=str(universal),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    universal.mkdir(parents=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ds_to_universal.main(arguments)
    except Exception as error:  # DeepSpeed raises assertions, key and value errors alike
        raise TutelageError(
            "a checkpoint of another number of workers cannot be rewritten for this one",
            f"{type(error).__name__}: {error}",
            "shards that DeepSpeed's ds_to_universal takes",
            "train with the number of workers that wrote it, or remove it to train from the beginning",
        ) from error
