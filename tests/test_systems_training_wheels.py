"""Training Wheels from cloning to evaluation, on an untrained model: the parts together, the prices, the
ledger, what resumes, and what is refused.
"""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.results.outcome import ALONE
from tests.own_wheels import practised
from tests.runs import run, tutelage, write_experiment


def test_both_variants_are_planned_run_and_told(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = practised(small_world, tiny_model, [{"name": "wheels"}, {"name": "cloning", "variant": "cloning"}])
    file = write_experiment(tree, tmp_path)
    assert "at most 36 rollouts" in tutelage("plan", file).stdout  # 6 questions, 3 budgets, 2 rounds
    _, outcome = run(tree, tmp_path)
    assert not outcome.ended
    for (path, number), own in outcome.rounds.items():
        assert own.evaluation is not None
        assert own.ledger is not None
        ledger = own.ledger.groupby("kind")["count"].sum()
        assert ledger["question"] == 24
        is_wheels = path.arm.name == "wheels"
        if number == 1:
            assert ledger["teacher's answer"] == 12
            assert set(own.evaluations) == {ALONE, "20 in 100", "40 in 100"}
        else:
            assert ledger["teacher's answer"] == 18
            assert ledger.get("rollout", 0) == (18 if is_wheels else 0)
    done = tutelage("run", file)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs" / "small" / "report.html").read_text()
    for part in ("With and without help", "What a call costs", "Where students call", "derived by us"):
        assert part in page
    last = max(number for _, number in outcome.rounds)
    (wheels,) = [own for (p, n), own in outcome.rounds.items() if p.arm.name == "wheels" and n == last]
    controls = [name for name in wheels.evaluations if "capped" in name]
    assert controls == ["20 in 100, capped", "40 in 100, capped"]
    assert wheels.figures["calls, 20 in 100, capped"] <= 0.2 + 1 / 2  # one call is always allowed
    assert wheels.figures["calls, alone"] == 0
    assert "teacher alone" in wheels.evaluations
    assert wheels.trained is not None
    weights = Path(wheels.trained.directory.path) / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(weights), AutoTokenizer.from_pretrained(weights)
    help_id = tokenizer.convert_tokens_to_ids("<help>")
    assert help_id == len(tokenizer) - 1 < model.get_input_embeddings().weight.shape[0]
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert {n for n, _ in model.named_parameters()} == {n for n, _ in plain.named_parameters()}
    shown = tutelage("relay", "small", "--question", "1 + 1?", "--budget", "40", "--hard", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "tokens by tia" in shown.stdout
    again = tutelage("run", file)
    assert again.returncode == 0
    assert "ask the teacher" not in again.stdout  # whatever is finished is found again
    assert "roll out" not in again.stdout


def refused(tree: dict[str, Any], tmp_path: Path) -> str:
    """What a run says that does not begin."""
    done = tutelage("run", write_experiment(tree, tmp_path))
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "store").glob("tables/*"))
    return done.stderr


@pytest.mark.parametrize("budgets", [[0, 50], [0], [5, 10], [0, 20, 10], [0, 10, 10], []])
def test_budgets_that_cannot_be_are_refused(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path, budgets: list[int]
) -> None:
    told = refused(practised(small_world, tiny_model, [{"name": "wheels"}], budgets=budgets), tmp_path)
    assert "budget" in told


def test_teachers_without_a_distribution_are_refused(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = practised(small_world, tiny_model, [{"name": "wheels"}])
    far = {"kind": "endpoint", "name": "tia", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    assert "no distribution over its next token" in refused(tree | {"teachers": [far]}, tmp_path)
    served = {
        "kind": "server",
        "name": "tia",
        "path": str(tiny_model),
        "command": "{python} {path} {socket}",
    }
    assert "no distribution over its next token" in refused(tree | {"teachers": [served]}, tmp_path)
    assert "tom is no teacher" in refused(
        tree | {"arms": [{"kind": "training_wheels", "name": "wheels", "teacher": "tom"}]}, tmp_path
    )


def test_a_teacher_with_another_vocabulary_is_refused(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    other = with_one_more_token(tiny_model, tmp_path / "other")
    tree = practised(small_world, tiny_model, [{"name": "wheels"}])
    tree["teachers"] = [{"kind": "model", "name": "tia", "path": str(other)}]
    told = refused(tree, tmp_path)
    assert "do not share their vocabulary" in told
    assert "'<more>'" in told


def with_one_more_token(model: Path, folder: Path) -> Path:
    """A copy of a model that knows one more token."""
    tokenizer, copied = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    tokenizer.add_tokens(["<more>"])
    copied.resize_token_embeddings(len(tokenizer))
    tokenizer.save_pretrained(folder)
    copied.save_pretrained(folder)
    return folder


def test_what_does_not_fit_is_refused_by_name(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = practised(small_world, tiny_model, [{"name": "wheels"}])
    assert "evaluate.metric loss" in refused(tree | {"evaluate": {"metric": "loss"}}, tmp_path)
    assert "{budget}" in refused(
        practised(small_world, tiny_model, [{"name": "w"}], sentence="Ask."), tmp_path
    )
    assert "variant cloning reads no alpha" in refused(
        practised(small_world, tiny_model, [{"name": "w", "variant": "cloning", "alpha": 2.0}]), tmp_path
    )


def test_round_1_alone_is_refused_as_path_learning(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = practised(small_world, tiny_model, [{"name": "wheels"}])
    assert "only clones" in refused(tree | {"rounds": 1}, tmp_path)


def test_a_student_that_cannot_be_told_a_budget_is_refused(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = practised(small_world, tiny_model, [{"name": "wheels"}])
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    template += "{{ m.role }} {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
    (tmp_path / "strict.jinja").write_text(template)
    tree["students"] = [own | {"chat_template": str(tmp_path / "strict.jinja")} for own in tree["students"]]
    assert "cannot be told a budget" in refused(tree, tmp_path)
    known = practised(small_world, tiny_model, [{"name": "wheels"}]) | {"name": "other"}
    known["wheels"] = dict(known["wheels"])
    known["wheels"]["help"] = next(iter(AutoTokenizer.from_pretrained(tiny_model).get_vocab()))
    assert "cannot add these tokens" in refused(known, tmp_path)


@pytest.mark.long
def test_weights_that_were_removed_are_made_again_for_other_answers(
    small_world: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    tree = practised(small_world, tiny_model, [{"name": "wheels"}], controls=False) | {"keep": "last"}
    run(tree, tmp_path)
    further = {"evaluate": {"max_new_tokens": 9, "allow_truncation": True}}
    _, outcome = run(tree, tmp_path / "again", **further)
    assert len([own for own in outcome.rounds.values() if own.evaluation is not None]) == 3
