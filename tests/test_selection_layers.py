"""The layer that scoring reads: found in every family, refused by name where it does not fit."""

from pathlib import Path

import pytest

from cluster.errors import BadInput
from cluster.models.messages import plain
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.experiment.stages import Evaluate, Score
from jobs.experiment.students import Student
from jobs.files.questions import Question
from jobs.run.progress import Terminal
from jobs.run.run import Run
from jobs.run.store import Store
from jobs.run.views import View
from jobs.stages.check import Checks
from jobs.stages.evaluate import Judging, evaluate_students
from jobs.stages.score import owner_of
from jobs.stages.scorer import ScoreHandler
from jobs.stages.states import first_state
from selection.layers import find_layer
from selection.scoring import Scorer, Statistics
from selection.verification import VerifySettings
from tests.in_process import InProcess
from tests.test_cluster_models_loading import random_model
from tests.test_selection_scoring import random_pool

LAYERS = {
    "llama": "model.layers.3.mlp.up_proj",
    "glm4": "model.layers.3.mlp.gate_up_proj",
    "phi3": "model.layers.3.mlp.gate_up_proj",
    "phi": "model.layers.3.mlp.fc1",
    "starcoder2": "model.layers.3.mlp.c_fc",
    "opt": "model.decoder.layers.3.fc1",
    "gptj": "transformer.h.3.mlp.fc_in",
    "bloom": "transformer.h.3.mlp.dense_h_to_4h",
    "falcon": "transformer.h.3.mlp.dense_h_to_4h",
    "mamba": "backbone.layers.3.mixer.in_proj",
    "gemma3": "model.language_model.layers.3.mlp.up_proj",
    "qwen3_moe": "model.layers.3.mlp",
    "gpt_oss": "model.layers.3.mlp",
    "mixtral": "model.layers.3.mlp",
    "deepseek_v3": "model.layers.3.mlp",
    "llama4_text": "model.layers.3.feed_forward",
    "granitemoe": "model.layers.3.block_sparse_moe",
}


@pytest.mark.parametrize("kind", LAYERS)
def test_every_family_has_a_layer_to_read(kind: str) -> None:
    from tests.architectures import tiny_model as tiny

    layer = find_layer(tiny(kind))
    assert (layer.name, layer.up_half) == (LAYERS[kind], kind in ("glm4", "phi3"))


def test_a_layer_that_is_not_there_or_does_not_give_a_vector_for_each_token_is_refused_by_name() -> None:
    from tests.architectures import tiny_model as tiny

    with pytest.raises(BadInput, match="no such layer"):
        find_layer(random_model("llama"), "model.layers.9.mlp.up_proj")
    for kind, layer in (("mixtral", "model.layers.3.mlp.gate"), ("qwen3_moe", "model.layers.3.mlp.experts")):
        rows = random_pool()[:4]  # 2-D outputs [tokens, width] are one vector for each token too
        assert all(isinstance(s, Statistics) for s in Scorer(tiny(kind), frozenset(), layer).score(rows))
    (refused,) = Scorer(tiny("qwen3"), frozenset(), "model.layers.3.self_attn.q_norm").score(
        random_pool()[:1]
    )
    assert "does not give one vector for each token" in str(refused)


def test_a_student_judged_by_its_loss_is_read_at_the_layer_that_scoring_reads(
    tiny_model: Path, tmp_path: Path
) -> None:
    layer = "model.layers.0.mlp.up_proj"
    state = first_state(Student(name="kid", path=str(tiny_model)))
    judging = Judging(Evaluate(metric="loss"), Checks(VerifySettings()), Score(target_layer=layer), 0)
    questions = [Question("q", plain("What is 1 + 1?"), ("2",))]
    with Run(Store(tmp_path), Place(str(tmp_path / "run")), Terminal(), InProcess()) as run:
        evaluate_students(run, {"kid": state}, questions, judging, Placement())
        view = run.stages["losses of", "kid"]
    assert isinstance(view, View)
    assert view.table.owner == owner_of(state, Score(target_layer=layer))
    assert view.table.owner != owner_of(state, Score())
    assert ScoreHandler(state, judging.score, 0.0).scorer.layer.name == layer
