"""A model behind an engine that we start: its rows are those of a hosted model, and an engine that serves
something else is found.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydantic import ValidationError

from cluster.engine.client import Refusal
from cluster.engine.own import end_engine
from cluster.errors import BadInput
from cluster.models.loading import load_model
from cluster.models.messages import plain
from cluster.session import Cluster
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.rollouts import Rollouts
from jobs.experiment.server import Server
from jobs.experiment.students import Student
from jobs.experiment.teachers import ServerTeacher
from jobs.pipeline import check_engines, harvest_of, look
from jobs.run.run import Run
from jobs.run.store import Stage
from jobs.stages.answers import Ask
from jobs.stages.check import Checks
from jobs.stages.hosted import Draw, ModelAsker
from jobs.stages.rollouts import roll_out
from jobs.stages.served import ServedAsker, weights_of
from jobs.stages.states import ModelState, first_state
from jobs.stages.teachers import build_pool
from tests.patience import Patience
from tests.runs import ROOT, open_here, run

ENGINE = "{python} -m tests.model_engine --uds {socket} --model {path} --name {name}"
ENV = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
GREEDY = Draw(0.0, 1.0, 12, 5, logprobs=True)
ASKS = [Ask(plain(text), 0) for text in ("chain: 7 t+4 u-2", "dial: 3 t+4", "say <|im_end|> now", "2+2?")]


@pytest.fixture(autouse=True, scope="module")
def no_engine_left() -> Iterator[None]:
    yield
    end_engine()


def served(model: Path, more: str = "", **fields: Any) -> ModelState:
    """The state of a model behind the small engine."""
    server = Server(command=f"{ENGINE} {more}", env=ENV, **fields)
    return first_state(Student(name="sue", path=str(model), server=server))


def adapter_on(model: Path, directory: Path) -> str:
    """Write an adapter that changes what a model says, inside the merged weights, as a training does."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    base = load_model(first_state(Student(name="sue", path=str(model))).source)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    wrapped = get_peft_model(base, config)
    wrapped.save_pretrained(directory / "adapter")
    wrapped.merge_and_unload().save_pretrained(directory)
    for file in model.glob("*token*"):
        (directory / file.name).write_bytes(file.read_bytes())
    return str(directory / "adapter")


def test_rows_are_those_of_a_hosted_model(tiny_model: Path) -> None:
    state = served(tiny_model)
    asker = ServedAsker(state, GREEDY, compares=True)
    got, wanted = asker.compute(ASKS), ModelAsker(replace(state, server=None), GREEDY, 0.0).compute(ASKS)
    assert asker.takes_ids
    assert wanted["finish"].tolist().count("failed") == 1  # the question that would forge a turn
    for name in ("text", "finish", "error", "prompt_tokens", "answer_tokens", "limit_tokens", "token_ids"):
        assert got[name].tolist() == wanted[name].tolist(), name
    for ours, theirs in zip(got["token_logprobs"], wanted["token_logprobs"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_seeds_decide_what_is_sampled(tiny_model: Path) -> None:
    asks = [Ask(plain("2+2?"), sample) for sample in range(4)]
    state, hot = served(tiny_model), replace(GREEDY, temperature=1.0)
    asker = ServedAsker(state, hot, compares=False)
    one, two = asker.compute(asks), asker.compute(asks[::-1])
    assert one["token_ids"].tolist() == two["token_ids"].tolist()[::-1]
    assert len({tuple(ids) for ids in one["token_ids"]}) > 1
    asker.draw = replace(hot, seed=6)
    assert asker.compute(asks)["token_ids"].tolist() != one["token_ids"].tolist()


def test_an_adapter_is_loaded_while_the_engine_runs(tiny_model: Path, tmp_path: Path) -> None:
    adapter = adapter_on(tiny_model, tmp_path / "trained")
    state = served(tiny_model, "--enable-lora")
    trained = replace(state, source=replace(state.source, adapter=adapter), id="trained" * 4)
    first = ServedAsker(state, GREEDY, compares=True)
    second = ServedAsker(trained, GREEDY, compares=True)
    assert second.engine is first.engine
    said = second.compute(ASKS)["token_ids"].tolist()
    assert said != first.compute(ASKS)["token_ids"].tolist()
    assert said == ModelAsker(replace(trained, server=None), GREEDY, 0.0).compute(ASKS)["token_ids"].tolist()


def test_an_engine_without_adapters_starts_again_with_merged_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    adapter = adapter_on(tiny_model, tmp_path / "trained")
    state = served(tiny_model)
    trained = replace(state, source=replace(state.source, adapter=adapter), id="trained" * 4)
    assert state.server is not None
    assert weights_of(trained, state.server).path == str(tmp_path / "trained")
    first = ServedAsker(state, GREEDY, compares=True)
    said = ServedAsker(trained, GREEDY, compares=True).compute(ASKS)["token_ids"].tolist()
    assert not first.engine.is_running
    assert said == ModelAsker(replace(trained, server=None), GREEDY, 0.0).compute(ASKS)["token_ids"].tolist()


def test_an_engine_that_keeps_its_old_weights_is_found(tiny_model: Path, tmp_path: Path) -> None:
    adapter = adapter_on(tiny_model, tmp_path / "trained")
    state = served(tiny_model, "--enable-lora --forgets")
    trained = replace(state, source=replace(state.source, adapter=adapter), id="trained" * 4)
    with pytest.raises(BadInput, match="serves another model than its weights"):
        ServedAsker(trained, GREEDY, compares=True)


def test_an_engine_that_takes_no_adapter_says_so(tiny_model: Path, tmp_path: Path) -> None:
    asker = ServedAsker(served(tiny_model), GREEDY, compares=False)
    with pytest.raises(BadInput, match="does not load its adapter"):
        asker._load_adapter(str(tmp_path))


def test_texts_are_enough_for_a_teacher_and_not_for_a_student(tiny_model: Path) -> None:
    state = served(tiny_model, "--texts-only")
    asker = ServedAsker(state, GREEDY, compares=False)
    rows = asker.compute(ASKS)
    assert not asker.takes_ids
    assert "no token ids" in asker.fallbacks["token ids"]
    assert rows["text"].tolist() == ["so = 4", "so = 4", "", "so = 4"]
    assert rows["prompt_tokens"][0] == 3
    with pytest.raises(BadInput, match="takes or returns no token ids"):
        ServedAsker(state, GREEDY, compares=True)


def test_a_busy_engine_is_asked_again(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.stages.served.PAUSE_S", 0.01)
    asker = ServedAsker(served(tiny_model, "--busy 3"), GREEDY, compares=False)
    assert asker.takes_ids  # the first call was answered 503: that is no engine of texts
    assert (asker.compute(ASKS[:2])["finish"] != "failed").all()


def test_an_answer_ends_where_the_engine_has_no_room_left(tiny_model: Path) -> None:
    state = served(tiny_model, "--room 40")
    asker = ServedAsker(state, replace(GREEDY, limit=500), compares=False)
    rows = asker.compute([ASKS[3], Ask(plain("7 " * 60), 0)])
    room = 40 - rows["prompt_tokens"][0]
    assert rows["finish"].tolist()[0] in ("length", "stop")
    assert 0 < rows["answer_tokens"][0] <= room
    assert rows["finish"][1] == "failed"
    assert "the engine takes less than 40" in rows["error"][1]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("abort", "the engine ended the answer: abort"),
        ("few", "11 log-probabilities for 12 tokens"),
        ("prompt", "changed the prompt's token ids"),
        ("list", "cannot be read"),
    ],
)
def test_a_reply_that_is_wrong_fails_its_row(
    tiny_model: Path, wrong: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = ServedAsker(served(tiny_model), GREEDY, compares=False)
    post = asker._post

    def wrongly(route: str, body: dict[str, Any], as_text: bool = False) -> Any:
        reply = post(route, body, as_text)
        choice = reply["choices"][0]
        if wrong == "list":
            return []
        if wrong == "abort":
            choice["finish_reason"] = "abort"
        elif wrong == "few":
            choice["logprobs"]["token_logprobs"] = choice["logprobs"]["token_logprobs"][1:]
        else:
            choice["prompt_token_ids"] = [1, *choice["prompt_token_ids"]]
        return reply

    monkeypatch.setattr(asker, "_post", wrongly)
    (row,) = asker.compute([Ask(plain("2+2?"), 0)]).to_dict("records")
    assert row["finish"] == "failed"
    assert words in row["error"]


def test_log_probabilities_after_temperature_are_found(tiny_model: Path) -> None:
    state = served(tiny_model, "--wrong hot")
    ServedAsker(state, GREEDY, compares=True)  # greedy ones are the model's own
    with pytest.raises(BadInput, match=r"at temperature 1.1.*SGLANG_RETURN_ORIGINAL_LOGPROB"):
        ServedAsker(state, replace(GREEDY, temperature=1.1), compares=True)


def test_an_engine_that_refuses_every_question_ends_the_run(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker = ServedAsker(served(tiny_model), GREEDY, compares=False)

    def refuse(*_: Any) -> Any:
        raise Refusal(400, "max_tokens is too large")

    monkeypatch.setattr(asker, "_post", refuse)
    with pytest.raises(BadInput, match="refuses every question"):
        asker.compute(ASKS)
    asker._has_answered = True
    assert asker.compute(ASKS)["finish"].tolist() == ["failed"] * 4


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("vllm serve --uds {socket}", "has no {path}"),
        ("vllm serve {path}", "either {socket} or {port}"),
        ("vllm serve {path} --uds {socket} --port {port}", "either {socket} or {port}"),
        ("vllm serve '{path} --uds {socket}", "no command line"),
        ("env A=1 vllm serve {path} --uds {socket}", "give engine: NAME"),
        ("numactl -m 0 vllm serve {path} --uds {socket}", "give engine: NAME"),
    ],
)
def test_a_command_that_cannot_work_is_refused(command: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Server(command=command)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("command", "engine"),
    [
        ("{python} -m vllm.entrypoints.openai.api_server --model {path} --uds {socket}", "vllm"),
        ("{python} -m sglang.launch_server --model-path {path} --port {port}", "sglang"),
        ("/opt/bin/vllm serve {path} --uds {socket}", "vllm"),
        ("transformers serve {path} --port {port}", "transformers"),
        ("numactl -m 0 {python} -m vllm.entrypoints.api --model {path} --uds {socket}", "vllm"),
        ("{python} /opt/my_server.py {path} {port}", "my_server"),
    ],
)
def test_answers_are_known_by_the_engines_name(command: str, engine: str) -> None:
    assert Server(command=command).name_of_engine == engine
    assert Server(command=command, engine="fp8").name_of_engine == "fp8"


@pytest.mark.long
def test_a_student_behind_an_engine_is_judged_as_one_that_is_hosted(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """Both are evaluated before and after a training, each under an owner of its own. A teacher is asked
    too.
    """
    tree = {**small_world, "arms": [{"name": "random", "rule": "random"}]}
    tree["evaluate"] = {**tree["evaluate"], "max_new_tokens": 8}
    tree["generate"] = {"max_new_tokens": 8}
    student = tree["students"][0]
    engine = {"command": ENGINE, "env": ENV}
    behind = {**tree, "students": [{**student, "server": engine}]}
    behind["teachers"] = [
        *tree["teachers"],
        {"kind": "server", "name": "big", "path": student["path"], **engine},
    ]
    (hosted, _), (served, outcome) = run(tree, tmp_path), run(behind, tmp_path)
    one, two = evaluations(hosted), evaluations(served)
    assert len(one) == len(two) == 2
    assert not {stage.id for stage in one} & {stage.id for stage in two}
    for a, b in zip(one, two, strict=True):
        columns = ["question_id", "state", "text", "tokens", "cut_off"]
        assert a.read()[columns].equals(b.read()[columns])
    assert outcome.start.pool.accuracy["big"] == 0.0  # it is untrained; its answers were asked for


def evaluations(of: Run) -> list[Stage]:
    """The finished evaluations of a run, in order."""
    return [s for s in of.stages.values() if isinstance(s, Stage) and s.name == "evaluate" and s.is_finished]


def test_a_server_teacher_has_what_a_server_has() -> None:
    teacher = ServerTeacher(kind="server", name="big", path="/m", command="vllm {path} {socket}", num_gpus=4)
    assert teacher.server.num_gpus == teacher.needs.num_gpus == 4
    assert teacher.needs.keeps == teacher.server.needs_for("/m").keeps != teacher.server.needs_for("/n").keeps


@pytest.mark.long
def test_rollouts_of_a_hosted_and_of_a_served_student_are_not_shared(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """Both have the same weights and seeds. Sampled answers differ between engines."""
    drawn = Rollouts(group=2, questions=2, max_new_tokens=4)
    e = parse_experiment(small_world)
    with open_here(small_world, tmp_path) as here:
        looked = look(here, e)
        hosted = looked.students["kid"]
        states = {"hosted": hosted, "twin": hosted}
        states["served"] = replace(hosted, server=Server(command=ENGINE, env=ENV))
        questions = list(looked.questions.values())[:2]
        seeds = dict.fromkeys(states, 3)
        found = roll_out(here, states, questions, drawn, Checks(e.verify, e.judge), seeds, e.placement)
    assert found["hosted"].said == found["twin"].said
    assert found["hosted"].said != found["served"].said
    assert found["served"].told(0).shape[0] == 4


@pytest.mark.long
def test_an_engine_killed_in_mid_run_loses_nothing(
    small_world: dict[str, Any], tmp_path: Path, ray_cluster: Cluster
) -> None:
    """Two replicas on real Ray. One engine's first process is killed while it answers."""
    mark = tmp_path / "killed"
    command = f"{ENGINE} --dies-once {mark}"
    path = small_world["students"][0]["path"]
    engine = {"command": command, "env": ENV, "replicas": 2, "num_cpus": 0.5}
    tree = {
        **small_world,
        "teachers": [{"kind": "server", "name": "big", "path": path, **engine}],
        "generate": {"max_new_tokens": 8, "shard_size": 4},
    }
    e = parse_experiment(tree)
    with open_here(tree, tmp_path, on_ray=True) as here:
        looked = look(here, e)
        pool = build_pool(here, harvest_of(e), looked.hosted, looked.questions)
        (view,) = [v for (kind, _), v in here.stages.items() if kind == "generate"]
        answers = view.read()
        records = [view.table.about(name) for name in view.manifest()["parts"]]
    assert mark.exists()
    assert len(answers) == len(looked.questions) == 24
    assert answers["finish"].isin(["stop", "length"]).all()
    assert pool.accuracy["big"] == 0.0
    assert {record["engine"] for record in records} == {"small engine 1"}
    wait_until_gone(str(mark))


def wait_until_gone(words: str) -> None:
    """Wait until no process has these words in its command."""
    patience = Patience(60)
    while any(words in " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])):
        assert not patience.is_over
        time.sleep(0.2)


def test_a_half_precision_student_does_not_lose_its_adapter(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    """Merged into bfloat16, most of a small update would be rounded away."""
    student = {**small_world["students"][0], "dtype": "bfloat16", "server": {"command": ENGINE, "env": ENV}}
    tree = {**small_world, "students": [student], "train": {"lora": {"r": 4}, "precision": "bfloat16"}}
    with pytest.raises(BadInput, match="--enable-lora"):
        check_engines(parse_experiment(tree))
    student["server"] = {"command": f"{ENGINE} --enable-lora", "env": ENV}
    check_engines(parse_experiment(tree))


def test_a_misspelt_key_of_a_server_is_named_where_it_stands(small_world: dict[str, Any]) -> None:
    tree = {**small_world, "teachers": [{"kind": "server", "name": "a", "path": "m", "comand": ENGINE}]}
    with pytest.raises(BadInput, match=r"teachers\.0\.com?mand"):
        parse_experiment(tree)
    tree = {**small_world, "students": [{"name": "a", "path": "m", "server": {"comand": ENGINE}}]}
    with pytest.raises(BadInput, match=r"students\.0\.server\.com?mand"):
        parse_experiment(tree)
