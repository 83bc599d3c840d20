"""Tokens that a system adds to a student: in the tokenizer, in the model, through training and after it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.models.added_tokens import add_to_model
from cluster.models.loading import ModelSource, load_model, load_tokenizer
from cluster.models.plain_way import plain_logits
from cluster.storage import Place
from jobs.experiment.placement import Placement
from jobs.experiment.students import Student
from jobs.run.run import Run
from jobs.stages.states import ModelState, Training, first_state
from jobs.stages.train import bring_back, examples_stage, remove_weights, train_students, write_examples_of
from tests.architectures import VOCABULARY, model_types, tiny_model
from tests.runs import open_here
from tests.test_architectures import DOZEN, texts
from training.data import Example, write_examples
from training.settings import LoraSettings, TrainSettings

HELP = "<help>"
WITHOUT = {
    "deepseek_v4": "out of bounds",  # its experts are chosen by a table of all tokens
    "mllama": "its embeddings and its projection have 97 and 105 rows",
    "xlstm": "no attribute 'embeddings'",
    "xmod": "Input language unknown",
}
KINDS = [pytest.param(k, marks=() if k in DOZEN else pytest.mark.slow) for k in model_types()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_gets_a_row_and_says_of_other_tokens_what_it_said(kind: str) -> None:
    before, model, again = (tiny_model(kind) for _ in range(3))
    if kind in WITHOUT:
        with pytest.raises(
            BadInput, match=rf"type {kind}\S* cannot get further tokens; got .*{WITHOUT[kind]}"
        ):
            add_to_model(model, [VOCABULARY], [HELP])
        return
    for own in (model, again):
        add_to_model(own, [VOCABULARY], [HELP])
    for text in texts([9, 4]):
        expected, got = plain_logits(before, text), plain_logits(model, text)
        assert got.shape[1] >= VOCABULARY + 1
        torch.testing.assert_close(got[:, :VOCABULARY], expected[:, :VOCABULARY], rtol=1e-4, atol=1e-4)
    text = [*texts([6])[0], VOCABULARY]
    assert bool(torch.isfinite(plain_logits(model, text)).all())
    torch.testing.assert_close(plain_logits(model, text), plain_logits(again, text))


def test_a_token_that_is_there_already_and_one_given_twice_are_refused(tiny_model: Path) -> None:
    state = first_state(Student(name="kid", path=str(tiny_model)))
    for tokens in (["a"], [HELP, HELP], [""]):
        with pytest.raises(BadInput, match="cannot add these tokens to the tokenizer"):
            state.with_tokens(tokens)


def test_a_row_that_the_model_had_to_spare_is_made_anew(tiny_model: Path, tmp_path: Path) -> None:
    """Many models have more rows than their tokenizer has tokens; the further ones are untrained."""
    source = ModelSource(str(tiny_model))
    model, tokenizer = load_model(source), load_tokenizer(source)
    model.resize_token_embeddings(len(tokenizer) + 8)
    with torch.no_grad():
        model.get_input_embeddings().weight[len(tokenizer)] = 100.0
    model.save_pretrained(tmp_path / "padded")
    tokenizer.save_pretrained(tmp_path / "padded")
    padded = ModelSource(str(tmp_path / "padded"), added_tokens=(HELP,))
    own = load_model(padded).get_input_embeddings().weight.detach()
    assert own.shape[0] == len(tokenizer) + 8
    assert float(own[len(tokenizer)].abs().max()) < 1.0


def teach_help(
    run: Run, state: ModelState, settings: TrainSettings, label: str = "kid"
) -> tuple[ModelState, Training]:
    """Train a student to call for help after every question."""
    renderer = state.renderer()
    (token,) = [i for i in renderer.special_ids if renderer.tokenizer.convert_ids_to_tokens(i) == HELP]
    prompts = [renderer.prompt(f"{k} + {k}?") for k in range(8)]

    def write(place: Place) -> dict[str, int]:
        write_examples(place, [Example((*p, token), len(p), len(p) + 1) for p in prompts])
        return {"examples": len(prompts)}

    stage = examples_stage(run.store, "toy", state.rendering, "calls for help")
    training = Training(label, state, write_examples_of(run, label, stage, write), 0, settings)
    (trained,) = train_students(run, [training], Placement())
    return state.after(trained, training), training


def chance_of_help(state: ModelState) -> float:
    renderer = state.renderer()
    token = renderer.tokenizer.convert_tokens_to_ids(HELP)
    logits = plain_logits(load_model(state.source), list(renderer.prompt("9 + 9?")))
    return float(torch.softmax(logits[-1], 0)[token])


@pytest.mark.parametrize("lora", [None, LoraSettings(r=8)])
def test_training_teaches_the_token_and_the_student_keeps_it(
    own_world: dict[str, Any], tmp_path: Path, tiny_model: Path, lora: LoraSettings | None
) -> None:
    first = first_state(Student(name="kid", path=str(tiny_model)))
    state = first.with_tokens([HELP])
    assert state.id != first.id
    assert state.rendering != first.rendering
    assert state.with_tokens(["<other>"]).id != state.id
    settings = TrainSettings(steps=20, batch_size=8, learning_rate=5e-2 if lora else 1e-2, lora=lora)
    with open_here(own_world, tmp_path) as run:
        after, training = teach_help(run, state, settings)
        assert chance_of_help(after) > 5 * chance_of_help(state)
        assert after.renderer().fingerprint == after.rendering == state.rendering
        exported = load_tokenizer(after.source)
        assert exported.get_vocab() == after.renderer().tokenizer.get_vocab()
        # a second round goes on from it, and weights that were removed come back
        further, _ = teach_help(run, after, settings, "kid again")
        assert further.renderer().fingerprint == state.rendering
        known = chance_of_help(after)
        stage = run.stages["train", "kid"]
        remove_weights(run, stage)  # type: ignore[arg-type]
        assert not after.is_there
        assert after.renderer().fingerprint == state.rendering
        bring_back(run, [after], Placement())
        assert chance_of_help(after) == pytest.approx(known, rel=1e-4)
        assert training.student.source.added_tokens == (HELP,)
