"""What an actor makes of drafts: one-shot accuracy and the influence of one step, on an untrained model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cluster.models.messages import plain
from cluster.models.sampling import Completion, Sampling, sample
from jobs.experiment.elicit import Elicit, Influence
from jobs.experiment.students import Student
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.miniature.tasks import draw_episodes, work_out
from jobs.run.keys import question_key
from jobs.stages.states import ModelState, first_state
from jobs.systems.arte.preferring import SCORED, InContext, OneStep, Told, mean_losses, values_in
from selection.verification import VerifySettings
from training.objectives import chunked
from training.settings import LoraSettings

EPISODES = draw_episodes(24, seed=5)
ELICIT = Elicit.model_validate(
    {
        "teacher": "t",
        "tasks": {"all": "x"},
        "styles": {"a": "x", "b": "y"},
        "demonstration": "{question}\n{rationale}\n{item}",
    }
)


@pytest.fixture(scope="module")
def student(tiny_model: Path) -> ModelState:
    return first_state(Student(name="kid", path=str(tiny_model)))


def drafts(count: int = 6) -> list[Row]:
    return [
        Row(f"a{k}", f"q{k}", "running", plain(e.question), work_out(e, "running" if k % 2 else "prefix"))
        for k, e in enumerate(EPISODES[:count])
    ]


def told(start: int, stop: int) -> list[Told]:
    return [
        Told(Question(e.question_id, plain(e.question), (e.result,)), work_out(e, "running"))
        for e in EPISODES[start:stop]
    ]


def one_step(student: ModelState, **about: Any) -> OneStep:
    settings = Influence.model_validate({"warm_steps": 2, "batch_size": 2, "learning_rate": 1e-2} | about)
    return OneStep(student, settings, told(8, 14), told(14, 18), None, 0, 0.0)


def test_the_influence_of_a_draft_does_not_depend_on_the_others(student: ModelState) -> None:
    handler = one_step(student)
    together = handler.compute(drafts())
    assert set(together["state"]) == {SCORED}
    alone = one_step(student).compute([drafts()[3]])
    values = np.stack([values_in(v) for v in together["values"]])
    assert values.shape == (6, 6)
    assert together["score"].tolist() == pytest.approx(values.mean(axis=1).tolist(), abs=1e-6)
    assert alone["score"][0] == pytest.approx(together["score"][3], abs=1e-6)
    assert len(set(together["score"].round(9))) == 6
    assert (together["score"] > 0).any()  # a step on worked answers helps an untrained model with others


@pytest.mark.long
def test_the_first_order_ranks_drafts_as_small_steps_do(student: ModelState) -> None:
    rows = drafts(24)
    exact = one_step(student, learning_rate=1e-5).compute(rows)["score"]
    first = one_step(student, learning_rate=1e-5, form="first_order").compute(rows)["score"]
    assert np.corrcoef(exact.rank(), first.rank())[0, 1] > 0.5


def test_influence_with_adapters_leaves_the_base_as_it_was(student: ModelState) -> None:
    settings = Influence(warm_steps=1, batch_size=2, learning_rate=1e-2)
    handler = OneStep(student, settings, told(8, 12), told(14, 16), LoraSettings(r=4, alpha=8), 0, 0.0)
    before = handler.model.get_input_embeddings().weight.detach().clone()
    one, other = (handler.compute(drafts(2))["score"].tolist() for _ in range(2))
    assert one == pytest.approx(other, abs=1e-7)
    assert (handler.model.get_input_embeddings().weight == before).all()


def in_context(student: ModelState, items: list[Question]) -> InContext:
    tasks = {question_key(row.prompt).hex(): "all" for row in drafts()}
    verify = VerifySettings("exact", pattern=r"(?s)\A(.*)\Z")
    return InContext(student, ELICIT, {"all": items}, tasks, None, verify, 8, 0.0)


def test_the_share_of_items_right_after_a_draft(student: ModelState) -> None:
    questions = [Question(e.question_id, plain(e.question), ("nothing",)) for e in EPISODES[18:21]]
    handler = in_context(student, questions)
    assert handler.compute(drafts())["score"].tolist() == [0.0] * 6
    said = []
    for number, draft in enumerate(drafts(2)):  # what the student says, so that it is the right answer
        text = f"{draft.prompt.text}\n{draft.answer}\n{questions[number].text}"
        ids = handler.renderer.prompt(plain(text))
        settings = Sampling(8, handler.renderer.stop_ids, way=handler.proof.way)
        (found,) = sample(handler.model, [ids], settings)
        assert isinstance(found, Completion)
        said.append((handler.renderer.answer_text(found.ids), found.finish))
    right = [Question(q.id, q.prompt, (said[k][0],)) if k < 2 else q for k, q in enumerate(questions)]
    scored = in_context(student, right).compute(drafts(2))
    for number, (text, finish) in enumerate(said):
        value = values_in(scored["values"][number])[number]
        assert value == float(finish == "stop" and bool(text.strip()))


def test_a_draft_that_cannot_be_rendered_loses_its_own_row_alone(student: ModelState) -> None:
    broken = Row("x", "qx", "running", plain("<|im_start|>"), "y")
    handler = one_step(student)
    found = handler.compute([drafts()[0], broken])
    assert found["state"][0] == SCORED
    assert found["state"][1] in (SCORED, "unrenderable", "quarantined")
    assert handler.give_up(broken, "why")["reason"].tolist() == ["why"]


def test_drift_is_the_mean_difference_of_what_both_teachers_find_of_the_same_texts() -> None:
    from types import SimpleNamespace

    from cluster.models.messages import Message, Prompt
    from jobs.files.answers import Row
    from jobs.systems.arte.drift import drift_in
    from jobs.systems.arte.texts import key_of

    rows = [Row("", "", "", Prompt((Message("user", str(n)),)), "text") for n in range(3)]

    def view(logprobs: list[float]) -> Any:
        table = pd.DataFrame({"key": [key_of(row) for row in rows], "logprob": logprobs, "state": "scored"})
        return SimpleNamespace(is_finished=True, read=lambda: table)

    found = drift_in(rows, view([-1.0, -2.0, -3.0]), view([-2.0, -2.0, -5.0]))
    assert found["drift (nats a text)"] == pytest.approx(1.0)
    assert found["standard error of the drift"] == pytest.approx(1 / np.sqrt(3))
    assert drift_in(rows, view([0.0] * 3), SimpleNamespace(is_finished=False)) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize("lora", [None, LoraSettings(r=4, alpha=8)])
def test_losses_of_answers_are_those_of_all_logits_with_their_gradient(
    student: ModelState, lora: LoraSettings | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch of different lengths, with logits of two tokens at a time."""
    settings = Influence(warm_steps=1, batch_size=2, learning_rate=1e-2)
    handler = OneStep(student, settings, told(8, 12), told(14, 16), lora, 0, 0.0)
    renderer = student.renderer()
    rows = [renderer.conversation(row.prompt, row.answer) for row in drafts(4)]
    width = max(row.answer_end for row in rows)
    ids = torch.tensor([[*r.ids[: r.answer_end], *[r.ids[0]] * (width - r.answer_end)] for r in rows])
    mask = torch.tensor([[1] * r.answer_end + [0] * (width - r.answer_end) for r in rows])
    logits = handler.model(input_ids=ids, attention_mask=mask).logits.float()
    expected = torch.stack(
        [
            torch.nn.functional.cross_entropy(
                logits[k, r.prompt_length - 1 : r.answer_end - 1], ids[k, r.prompt_length : r.answer_end]
            )
            for k, r in enumerate(rows)
        ]
    )
    trained = [p for p in handler.model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected.sum(), trained, allow_unused=True)
    monkeypatch.setitem(chunked.CHUNK_BYTES, "cpu", 8 * handler.head.size)
    found = mean_losses(handler.head, rows)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    got = torch.autograd.grad(found.sum(), trained, allow_unused=True)
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.allclose(a, b, atol=1e-5)
    with torch.no_grad():
        assert mean_losses(handler.head, rows).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
