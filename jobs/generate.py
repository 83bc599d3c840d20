"""Stage generate: every teacher answers every question, as shards over hosting actors or calls to an endpoint.

A teacher's answers are one store directory. A wave of further samples (`until_verified`) is another, for just the
questions that still lack a right answer. A file teacher's answers are read and checked here, and go the same way.
"""

import hashlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from cluster.errors import BadInput, describe
from cluster.loading import ModelSource, check_model_directory, fingerprint, load_model, load_tokenizer, pick_device, pinned
from cluster.metrics import Tally
from cluster.placement import Needs
from cluster.pool import Job
from cluster.proof import SAMPLING, prove
from cluster.rendering import Renderer, Unrenderable, template_identity
from cluster.sampling import Sampling, generation_stop_ids, sample
from cluster.seeds import derive_seed
from cluster.storage import Place, local_copy
from jobs.context import Context
from jobs.datasets import Question, read_answers, refuse_other_texts
from jobs.experiment import EndpointTeacher, FileTeacher, Generate, ModelTeacher
from jobs.isolation import forget_attempts, run_isolated
from jobs.store import Stage, digest_rows, read_table, write_fallbacks, write_table

VERSION = 1
ANSWER_COLUMNS = ["answer_id", "question_id", "teacher", "sample", "text", "finish", "error", "prompt_tokens", "answer_tokens", "usd"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to one teacher, `sample` counting its repetitions from 0."""

    question_id: str
    text: str
    system: str | None
    sample: int


class Asks(tuple[Ask, ...]):
    """What is asked of one or several teachers; its identity and its shards' names are computed once for all of them."""

    @cached_property
    def id(self) -> str:
        return digest_rows(map(astuple, self))

    def shards(self, size: int) -> list[tuple[str, "Asks"]]:
        """Shards named by their place and content, so that running one twice is harmless."""
        if self._size_and_names is None or self._size_and_names[0] != size:
            parts = (self[i : i + size] for i in range(0, len(self), size))
            self._size_and_names = size, [f"{k:06d}-{digest_rows(map(astuple, part), 8)}" for k, part in enumerate(parts)]
        return [(name, Asks(self[k * size : (k + 1) * size])) for k, name in enumerate(self._size_and_names[1])]

    _size_and_names: tuple[int, list[str]] | None = None


def answer_id(teacher: str, question_id: str, sample_index: int) -> str:
    return f"{teacher}/{question_id}/{sample_index}"


def answer_row(
    teacher: str, ask: Ask, text: str, finish: str, error: str = "", tokens: tuple[int, int] = (0, 0), usd: float = 0.0
) -> tuple[Any, ...]:
    """One row of the answers table; `finish` is stop, length, or failed."""
    return (answer_id(teacher, ask.question_id, ask.sample), ask.question_id, teacher, ask.sample, text, finish, error, *tokens, usd)


def tally_of(answers: pd.DataFrame) -> Tally:
    """What a part of answers amounts to."""
    failed = int((answers["finish"] == "failed").sum())
    return Tally(len(answers), int(answers["answer_tokens"].sum()), failed, spend_usd=float(answers["usd"].sum()))


class ModelAsker:
    """Handler in a hosting actor: loads the teacher once, answers shards, writes each as a part."""

    def __init__(self, teacher: ModelTeacher, settings: Generate, seed: int, directory: str) -> None:
        source = teacher_source(teacher)
        self.teacher, self.settings, self.seed, self.directory = teacher, settings, seed, Place(directory)
        self.model = load_model(source, pick_device(teacher.num_gpus))
        self.proof = prove(self.model, SAMPLING)
        write_fallbacks(self.directory, self.proof.lines)
        self.renderer = teacher_renderer(teacher)
        self.renderer.prove()

    def __call__(self, shard: tuple[str, list[Ask]]) -> Tally:
        part, asks = shard
        table = run_isolated(self.directory, part, asks, self._id, self._answers, self._give_up)
        write_table(self.directory / f"{part}.parquet", table)
        return tally_of(table)

    def _id(self, ask: Ask) -> str:
        return answer_id(self.teacher.name, ask.question_id, ask.sample)

    def _give_up(self, ask: Ask, reason: str) -> pd.DataFrame:
        return pd.DataFrame([answer_row(self.teacher.name, ask, "", "failed", reason)], columns=ANSWER_COLUMNS)

    def _answers(self, asks: Sequence[Ask]) -> pd.DataFrame:
        prompts, rows = [], {}
        for ask in asks:
            try:
                prompts.append((ask, self.renderer.prompt(ask.text, ask.system)))
            except Unrenderable as error:
                rows[ask] = answer_row(self.teacher.name, ask, "", "failed", str(error))
        s = self.settings
        stop_ids = self.renderer.stop_ids | generation_stop_ids(self.model)
        sampling = Sampling(s.max_new_tokens, stop_ids, s.temperature, s.top_p, way=self.proof.way)
        seeds = [derive_seed(self.seed, self._id(a)) for a, _ in prompts]
        completions = sample(self.model, [ids for _, ids in prompts], sampling, seeds)
        for (ask, ids), completion in zip(prompts, completions, strict=True):
            if isinstance(completion, Exception):
                rows[ask] = answer_row(self.teacher.name, ask, "", "failed", describe(completion), (len(ids), 0))
                continue
            text = self.renderer.answer_text(completion.ids)
            rows[ask] = answer_row(self.teacher.name, ask, text, completion.finish, "", (len(ids), len(completion.ids)))
        return pd.DataFrame([rows[a] for a in asks], columns=ANSWER_COLUMNS)


class Secret:
    """A key on its way from this process's environment to an actor: by value, never in a runtime environment, which `ps` shows."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(***)"


def read_key(teacher: EndpointTeacher) -> Secret:
    """The teacher's key from the environment.

    Raises:
        BadInput: the variable is not set.
    """
    key = os.environ.get(teacher.api_key_env)
    if key is None:
        raise BadInput(f"no key for teacher {teacher.name}", "", f"the environment variable {teacher.api_key_env}", "export it")
    return Secret(key)


class EndpointAsker:
    """Handler for an OpenAI-compatible server: calls in threads, the client's retries, a rate and a budget."""

    def __init__(self, teacher: EndpointTeacher, settings: Generate, seed: int, directory: str, spent_usd: float, key: Secret) -> None:
        from openai import OpenAI

        self.teacher, self.settings, self.seed, self.directory, self.spent_usd = teacher, settings, seed, Place(directory), spent_usd
        self.client = OpenAI(base_url=teacher.base_url, api_key=key.value, timeout=teacher.timeout_s, max_retries=teacher.max_retries)
        self._lock, self._next_call, self.retries = threading.Lock(), 0.0, 0

    def __call__(self, shard: tuple[str, list[Ask]]) -> Tally:
        part, asks = shard
        with ThreadPoolExecutor(self.teacher.concurrency) as threads:
            rows = list(threads.map(self._ask, asks))
        table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
        write_table(self.directory / f"{part}.parquet", table)
        retries, self.retries = self.retries, 0
        return replace(tally_of(table), retries=retries)

    def _ask(self, ask: Ask) -> tuple[Any, ...]:
        from openai import APIError, APIResponseValidationError, AuthenticationError, NotFoundError, PermissionDeniedError

        teacher = self.teacher
        if teacher.budget_usd is not None and self.spent_usd >= teacher.budget_usd:
            return answer_row(teacher.name, ask, "", "failed", f"budget of {teacher.budget_usd} USD is spent")
        problem = ""
        for attempt in range(teacher.max_retries + 1):
            self._keep_the_rate()
            self._count_retries(int(attempt > 0))
            try:
                return self._call(ask)
            except APIResponseValidationError as error:
                problem = f"malformed response: {error}"
            except (AuthenticationError, PermissionDeniedError, NotFoundError) as error:  # no call of this teacher will fare better
                raise BadInput(f"teacher {teacher.name} refuses", self._scrub(error), "a valid key, model and base_url", "") from error
            except APIError as error:  # the client has already retried what can be retried
                return answer_row(teacher.name, ask, "", "failed", f"{type(error).__name__}: {self._scrub(error)}")
            except (ValueError, TypeError, IndexError, AttributeError) as error:  # half a JSON, or one without choices
                problem = f"malformed response: {type(error).__name__}: {error}"
        return answer_row(teacher.name, ask, "", "failed", self._scrub(problem))

    def _call(self, ask: Ask) -> tuple[Any, ...]:
        messages: list[Any] = [] if ask.system is None else [{"role": "system", "content": ask.system}]
        messages.append({"role": "user", "content": ask.text})
        s = self.settings
        raw = self.client.chat.completions.with_raw_response.create(
            model=self.teacher.model,
            messages=messages,
            temperature=s.temperature,
            top_p=s.top_p,
            max_tokens=s.max_new_tokens,
            seed=derive_seed(self.seed, answer_id(self.teacher.name, ask.question_id, ask.sample)) % 2**31,
        )
        self._count_retries(raw.retries_taken)
        response = raw.parse()
        choice = response.choices[0]
        text = choice.message.content
        if not isinstance(text, str):
            raise ValueError("the choice has no text")
        used = (response.usage.prompt_tokens, response.usage.completion_tokens) if response.usage else (0, 0)
        t = self.teacher
        usd = (used[0] * t.usd_per_million_input_tokens + used[1] * t.usd_per_million_output_tokens) / 1e6
        with self._lock:
            self.spent_usd += usd
        return answer_row(t.name, ask, text, "length" if choice.finish_reason == "length" else "stop", "", used, usd)

    def _count_retries(self, count: int) -> None:
        with self._lock:
            self.retries += count

    def _scrub(self, problem: object) -> str:
        """A problem as text for the store, without the key, whatever the server echoed."""
        return str(problem).replace(self.client.api_key, "***")[:300]

    def _keep_the_rate(self) -> None:
        """Wait for this call's turn under requests_per_minute."""
        if self.teacher.requests_per_minute is None:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_call)
            self._next_call = turn + 60.0 / self.teacher.requests_per_minute
        time.sleep(max(0.0, turn - now))


def teacher_source(teacher: ModelTeacher) -> ModelSource:
    return pinned(ModelSource(teacher.path, teacher.dtype, teacher.revision, teacher.trust_remote_code))


def teacher_renderer(teacher: ModelTeacher) -> Renderer:
    """The renderer of what a hosted teacher is asked."""
    tokenizer = load_tokenizer(teacher_source(teacher))
    return Renderer(tokenizer, teacher.chat_template, template_kwargs=teacher.chat_template_kwargs)


def teacher_identity(teacher: ModelTeacher | EndpointTeacher) -> dict[str, Any]:
    """What of a teacher its answers depend on: never where it lives or how many replicas serve it."""
    if isinstance(teacher, ModelTeacher):
        return {
            "kind": "model",
            "name": teacher.name,
            "model": fingerprint(teacher_source(teacher)),
            "dtype": teacher.dtype,
            "template": template_identity(teacher.chat_template),
            "template_kwargs": teacher.chat_template_kwargs,
        }
    return {"kind": "endpoint", "name": teacher.name, "model": teacher.model, "base_url": teacher.base_url}


@dataclass(frozen=True)
class Wave:
    """One teacher's stage and the asks that make it."""

    teacher: ModelTeacher | EndpointTeacher
    stage: Stage
    asks: Asks

    def shards(self, size: int) -> list[tuple[str, Asks]]:
        """This wave's shards of at most `size` asks each."""
        return self.asks.shards(size)


def plan_wave(context: Context, teacher: ModelTeacher | EndpointTeacher, asks: Sequence[Ask], label: str, retry: int = 0) -> Wave:
    """The stage of one teacher's asks. `shard_size` is not part of its identity's meaning but names its parts, so it is in it."""
    e = context.experiment
    sampling = e.generate.model_dump(exclude={"until_verified", "max_samples", "samples"})
    config = {"teacher": teacher_identity(teacher), "sampling": sampling, "seed": e.seed, "retry": retry}
    asks = asks if isinstance(asks, Asks) else Asks(asks)
    stage = context.store.stage("generate", VERSION, config, {"asks": asks.id})
    return Wave(teacher, context.note(label, stage), asks)


def ask_waves(context: Context, waves: Sequence[Wave]) -> None:
    """Run what is missing of these waves: all teachers at once as far as the cluster has room, the rest after them."""
    with context.claimed(w.stage for w in waves):
        _ask_missing(context, [w for w in waves if not w.stage.is_finished])


def _ask_missing(context: Context, waves: Sequence[Wave]) -> None:
    e = context.experiment
    jobs, missing, parts = [], {}, {}
    for wave in waves:
        forget_attempts(wave.stage.directory)
        shards = wave.shards(e.generate.shard_size)
        todo = [s for s in shards if not wave.stage.has(s[0])]
        name = f"{wave.teacher.name} {wave.stage.id[:8]}"
        missing[name], parts[name] = wave, [s[0] for s in shards]
        if todo:
            jobs.append(_job(name, wave, todo, e.generate, e.seed, spent_so_far(context, wave.teacher.name)))
    questions = sum(len(asks) for job in jobs for _, (_, asks) in job.shards)
    if jobs:
        with context.talker.bar("generate", questions, "answers") as bar:
            for result in context.host.pool.run(jobs):
                bar.advance(result.value.items)
    for name, wave in missing.items():
        answers = pd.concat([wave.stage.read(p) for p in parts[name]], ignore_index=True)
        wave.stage.finish(
            parts[name],
            answers=len(answers),
            failed=int((answers["finish"] == "failed").sum()),
            prompt_tokens=int(answers["prompt_tokens"].sum()),
            answer_tokens=int(answers["answer_tokens"].sum()),
            usd=float(answers["usd"].sum()),
        )
        context.say_fallbacks(f"generate {wave.teacher.name}", wave.stage)


def spent_so_far(context: Context, teacher: str) -> float:
    """USD that this run's waves of a teacher have cost, finished or not: the budget covers them all."""
    directories = {s.directory for s in context.every.values() if s.name == "generate" and s.config["teacher"]["name"] == teacher}
    parts = [p for d in sorted(directories) for p in d.glob("*.parquet")]
    return sum(float(read_table(p, columns=["usd"])["usd"].sum()) for p in parts)


def failed_asks(wave: Wave) -> list[Ask]:
    """The asks of a finished wave whose calls failed."""
    failed = wave.stage.read()
    ids = set(failed.loc[failed["finish"] == "failed", "answer_id"])
    return [a for a in wave.asks if answer_id(wave.teacher.name, a.question_id, a.sample) in ids]


def ask_again(context: Context, label: str, wave: Wave) -> list[tuple[str, Wave]]:
    """Further waves for an endpoint's failed calls: those made before, and one more if the run was told to retry."""
    made: list[tuple[str, Wave]] = []
    for number in range(1, 100):
        asks = failed_asks(made[-1][1] if made else wave) if isinstance(wave.teacher, EndpointTeacher) else []
        if not asks:
            break
        name = f"{label} retry {number}"
        again = plan_wave(context, wave.teacher, asks, name, retry=number)
        if not again.stage.is_finished:
            if not context.retry_failed:
                del context.stages[name]
                break
            context.retry_failed = False  # one more try a run
            ask_waves(context, [again])
        made.append((name, again))
    return made


def _job(name: str, wave: Wave, todo: Sequence[tuple[str, Sequence[Ask]]], settings: Generate, seed: int, spent_usd: float) -> Job:
    from functools import partial

    directory = str(wave.stage.directory)
    shards = [(part, (part, asks)) for part, asks in todo]
    teacher = wave.teacher
    if isinstance(teacher, ModelTeacher):
        needs = teacher.needs
        return Job(name, partial(ModelAsker, teacher, settings, seed, directory), shards, teacher.replicas, needs, "generate")
    make = partial(EndpointAsker, teacher, settings, seed, directory, spent_usd, read_key(teacher))
    return Job(name, make, shards, 1, Needs(0.0), "generate")


def take_file(context: Context, teacher: FileTeacher, questions: Mapping[str, Question]) -> Stage:
    """Read a file teacher's answers into the store. Answers to unknown questions are kept and counted by the ledger.

    Raises:
        BadInput: a broken line, or a question with another text than ours.
    """
    path = local_copy(teacher.path)
    found = read_answers(path, teacher.fields, context.on_broken)
    refuse_other_texts(found, questions, path)
    by_text = {q.text: q.id for q in questions.values()}
    rows = []
    for a in found:
        known = a.question_id if a.question_id in questions else by_text.get(a.question_text or "", a.question_id)
        rows.append(answer_row(teacher.name, Ask(known, "", None, a.sample), a.text, "stop"))
    table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
    twice = table["answer_id"].duplicated()
    if twice.any():
        raise BadInput(f"{path} answers one question under two ids", table.loc[twice, "question_id"].iloc[0], "one id a question", "")
    content = hashlib.sha256(table.to_json(orient="records").encode("utf-8", "surrogatepass")).hexdigest()
    config = {"teacher": {"kind": "file", "name": teacher.name}}
    stage = context.note(f"generate {teacher.name}", context.store.stage("generate", VERSION, config, {"answers": content}))
    with context.claimed([stage]):
        if not stage.is_finished:
            write_table(stage.part("answers"), table)
            stage.finish(["answers"], answers=len(table), failed=0, prompt_tokens=0, answer_tokens=0, usd=0.0)
    return stage


def check_teachers(context: Context) -> None:
    """Look at every teacher before any is asked: directories, weights, templates, keys, room."""
    for teacher in context.experiment.teachers:
        if isinstance(teacher, ModelTeacher):
            check_model_directory(teacher.path)
            teacher_renderer(teacher).prove()
        elif isinstance(teacher, FileTeacher) and not local_copy(teacher.path).is_file():
            raise BadInput(
                f"no answers of teacher {teacher.name} there", teacher.path, "a .jsonl, .json or .parquet file", "check the path"
            )
