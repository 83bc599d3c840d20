"""A model, teacher or student, at one point of its training, and the training that leads to the next point.
Asking, scoring, training and evaluating read what they need from it."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.errors import BadInput
from cluster.models.directory import check_model_directory
from cluster.models.identity import fingerprint, pinned
from cluster.models.loading import ModelSource, import_transformers, load_tokenizer
from cluster.models.rendering import Renderer
from cluster.storage import Place
from jobs.experiment.server import Server
from jobs.experiment.students import Student
from jobs.experiment.teachers import ModelTeacher, ServerTeacher
from jobs.run.store import Stage, digest
from selection.layers import find_layer
from training.adapters import with_lora
from training.exports import ADAPTER
from training.job import WEIGHTS
from training.objective_settings import CROSS_ENTROPY, ObjectiveSettings
from training.settings import LoraSettings, TrainSettings

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
# files in a training's weights whose presence shows that the weights exist
CONFIGS = (CONFIG, f"{ADAPTER}/{ADAPTER_CONFIG}")


MOST_RENDERERS = 32
_RENDERERS: dict[tuple[Any, ...], Renderer] = {}


@dataclass(frozen=True)
class ModelState:
    """A model at one point of its training. `id` identifies its weights by content.

    Training changes only the weights. The tokenizer, the template and the rendering's fingerprint stay the
    same, unless a system adds tokens (`with_tokens`).

    Attributes:
        about: what `id` follows from, in words.
        trained_by: the training that made these weights and can make them again. None for a first state.
        server: the engine that gives its answers. None if actors host it.
    """

    name: str
    source: ModelSource
    id: str
    tokenizer: ModelSource
    chat_template: str | None
    rendering: str
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict, compare=False)
    trained_by: "Training | None" = field(default=None, compare=False)
    server: Server | None = None

    def renderer(self) -> Renderer:
        """Its renderer. Loading a tokenizer takes a tenth of a second, so those of last use are kept: one for
        each thread, and another one when the rendering changes.
        """
        kwargs = json.dumps(dict(self.template_kwargs), sort_keys=True, default=repr)
        about = self.tokenizer, self.chat_template, kwargs, self.rendering, threading.get_ident()
        found = _RENDERERS.get(about)
        if found is None:
            if len(_RENDERERS) >= MOST_RENDERERS:
                _RENDERERS.clear()
            tokenizer = load_tokenizer(self.tokenizer)
            found = Renderer(tokenizer, self.chat_template, template_kwargs=self.template_kwargs)
            _RENDERERS[about] = found
        return found

    @property
    def engine(self) -> dict[str, str]:
        """The name of its engine, which its answers depend on. Empty if actors host it."""
        return {} if self.server is None else {"engine": self.server.name_of_engine}

    @property
    def is_there(self) -> bool:
        """Whether the weights still exist, if they are in a directory."""
        source = self.source
        if source.adapter is None:
            return (Place(source.path) / CONFIG).is_file()
        return (Place(source.adapter) / ADAPTER_CONFIG).is_file()

    def with_tokens(self, tokens: Sequence[str]) -> "ModelState":
        """This model with further special tokens, for a system that teaches a student to use them. Training
        it learns their embeddings, and the trained student keeps them. Scores under the old rendering do not
        fit it.

        Raises:
            BadInput: the tokenizer has one of these tokens already, or takes none.
            Unrenderable: the template cannot be used for training any more.
        """
        source = replace(self.source, added_tokens=(*self.source.added_tokens, *tokens))
        tokenizer = replace(self.tokenizer, added_tokens=(*self.tokenizer.added_tokens, *tokens))
        state = replace(self, source=source, tokenizer=tokenizer)
        renderer = state.renderer()
        renderer.prove()
        about = {**self.about, "added_tokens": " ".join(tokens), "rendering": renderer.fingerprint[:12]}
        identity = digest([self.id, "added tokens", list(tokens)])
        return replace(state, id=identity, rendering=renderer.fingerprint, about=about)

    def after(self, training: Stage, trained_by: "Training | None" = None) -> "ModelState":
        """This model after a training stage."""
        source = self._trained(training, WEIGHTS)
        about = {**self.about, "trained": training.id}
        return replace(self, source=source, id=training.id, about=about, trained_by=trained_by)

    def after_steps(self, training: Stage, steps: int) -> "ModelState":
        """This model after the first steps of a training stage."""
        source = self._trained(training, f"step-{steps}")
        return replace(self, source=source, id=digest([training.id, steps]), trained_by=None)

    def _trained(self, training: Stage, folder: str) -> ModelSource:
        """Where a training wrote its weights. An adapter is loaded on top of the base that it was trained
        on. Whole weights have rows for added tokens.
        """
        place = training.directory / folder
        if training.config["train"]["lora"] is not None:
            return replace(self.source, adapter=str(place / ADAPTER))
        return replace(self.source, path=str(place), revision=None, added_tokens=())


@dataclass(frozen=True)
class Training:
    """The training of one student on examples that exist already.

    Attributes:
        rounds: the position among rounds that share an optimizer. None if the training has its own.
        frozen: a model that the objective reads and that is not trained.
        objective: the loss that is minimised.
    """

    label: str
    student: ModelState
    examples: Stage
    seed: int
    settings: TrainSettings
    rounds: "SharedOptimizer | None" = None
    frozen: ModelState | None = None
    objective: ObjectiveSettings = CROSS_ENTROPY


@dataclass(frozen=True)
class SharedOptimizer:
    """The position of a training among rounds that share one optimizer and one learning-rate schedule.

    Attributes:
        after: the training of the round before. None for the first.
        first: the number of optimizer steps in all earlier rounds.
        total: the number of steps in all rounds, over which the learning rate is scheduled.
        is_last: whether it is the last round. Then the optimizer is not saved.
    """

    after: Stage | None
    first: int
    total: int
    is_last: bool


def first_state(model: ModelTeacher | ServerTeacher | Student) -> ModelState:
    """The state of a model before training, as the experiment names it. Its rendering is verified on probe
    rows.

    Raises:
        BadInput: the model does not exist.
        Unrenderable: its template cannot be used for training.
    """
    check_model_directory(model.path)
    source = pinned(ModelSource(model.path, model.dtype, model.revision, model.trust_remote_code))
    kwargs = model.chat_template_kwargs
    renderer = Renderer(load_tokenizer(source), model.chat_template, template_kwargs=kwargs)
    renderer.prove()
    weights = fingerprint(source)
    identity = digest([weights, source.dtype, renderer.fingerprint])
    about = {"weights": weights[:12], "dtype": source.dtype, "rendering": renderer.fingerprint[:12]}
    return ModelState(
        name=model.name,
        source=source,
        id=identity,
        tokenizer=source,
        chat_template=model.chat_template,
        rendering=renderer.fingerprint,
        template_kwargs=kwargs,
        about=about,
        server=model.server,
    )


def check_student(student: ModelState, target_layer: str | None, lora: LoraSettings | None = None) -> None:
    """Check a student before any work: its model can be built, the layer to read exists, and its layers
    accept the adapters of the training. A model of the hub is not checked.

    Raises:
        BadInput: the model cannot be built, or a layer is missing. Names it.
    """
    import torch

    transformers = import_transformers()
    source = student.source
    if not source.is_local:
        return
    try:
        config = transformers.AutoConfig.from_pretrained(
            source.here, local_files_only=True, trust_remote_code=source.trust_remote_code
        )
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, trust_remote_code=source.trust_remote_code
            )
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot build the student {student.name}", error, "a causal language model", ""
        ) from error
    find_layer(model, target_layer)
    if lora is not None:
        with_lora(model, lora)
