"""Asking a model behind an engine that its actor starts: vLLM, SGLang and others with OpenAI's routes.

The engine gets our own token ids and returns ids, so rows are those of a hosted model. An engine that takes
or returns no ids is asked for texts. That is enough for a teacher, not for a student. Before the first row of
a student is taken, its engine has to give the log-probabilities of transformers alone (the plain way). After
a change of weights an engine may answer with the old ones.
"""

import math
import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from cluster.engine.client import NoEngine, Refusal
from cluster.engine.own import engine_for
from cluster.errors import BadInput, Unrenderable, describe
from cluster.metrics import Tally
from cluster.models.loading import ModelSource, import_transformers
from cluster.models.messages import Prompt, plain
from cluster.models.written import refuse_changed
from cluster.progress import tell
from cluster.seeds import derive_seed
from cluster.storage import local_copy
from jobs.experiment.server import Server
from jobs.stages.agreement import check_agreement, draws_to_compare, serves_another
from jobs.stages.answers import Answer, Ask, failed, table_of, tally_of
from jobs.stages.completion import estimated, read_reply
from jobs.stages.hosted import Draw
from jobs.stages.refusal import NoAnswer
from jobs.stages.states import ModelState

COMPLETIONS, CHAT, MODELS = "/v1/completions", "/v1/chat/completions", "/v1/models"
# where engines take an adapter, and what calls call it then: vLLM, then SGLang
ADAPTERS = (("/v1/load_lora_adapter", "{name}"), ("/load_lora_adapter", "{model}:{name}"))
NO_IDS = (400, 404, 405, 422, 501)  # the statuses of an engine that takes no token ids
# Engines take defaults from the model's generation_config.json; here every answer is drawn as we say.
NEUTRAL = {"top_k": -1, "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
NEUTRAL |= {"repetition_penalty": 1.0}
PROBES = ("2+2?", "What is the capital of France?", "Tom has 3 apples and buys 4. How many are there?")
PROBE_TOKENS = 12
WAITS_S, PAUSE_S, LONGEST_S = 60.0, 0.5, 8.0  # for an engine that is busy or does not answer; between calls
REFUSED = "the engine refuses it: "  # before an engine's words in a failed row
ENGINE_ENDED = 71  # exit code of an actor whose engine has ended


class Unreadable(Exception):
    """A reply of the engine is not what was asked for."""


@dataclass(frozen=True)
class Weights:
    """What an engine loads for a state of a model: a directory, and an adapter on it."""

    path: str
    adapter: str | None = None


def weights_of(state: ModelState, server: Server) -> Weights:
    """What an engine loads. One that cannot load adapters loads the merged weights, which a training writes
    around its adapter.
    """
    adapter = state.source.adapter
    if adapter is None or server.loads_adapters:
        return Weights(state.source.path, adapter)
    place, mark, query = adapter.partition("?")
    return Weights(place.rstrip("/").rpartition("/")[0] + mark + query)


class ServedAsker:
    """Handler in an actor: starts an engine, or finds it running, and makes it answer.

    Args:
        compares: whether the engine has to say what the plain way says.

    Attributes:
        engine_version: what the engine calls its version and configuration. It is recorded beside its rows.
    """

    def __init__(self, state: ModelState, draw: Draw, compares: bool) -> None:
        server = state.server
        assert server is not None
        self.state, self.draw, self.server = state, draw, server
        self.renderer = state.renderer()
        self.fallbacks: dict[str, str] = {}
        self.engine_version = server.name_of_engine
        if state.source.added_tokens:
            raise BadInput(
                "an engine cannot serve tokens that the weights do not have yet",
                " ".join(state.source.added_tokens),
                "weights with rows for them",
                f"leave out the server of {state.name}, or train it first",
            )
        weights = weights_of(state, server)
        path, revision = str(local_copy(weights.path)), state.source.revision or ""
        refuse_changed(weights.path)
        if weights.adapter is not None:
            refuse_changed(weights.adapter)
        if revision and not server.how.names_revision:
            raise BadInput(
                f"the engine of {state.name} would load any revision of {path}",
                server.command[:200],
                f"{{revision}} in its command, for {revision[:12]}",
                "vLLM takes --revision {revision}; or give a directory as path",
            )
        self.engine = engine_for(server.how, path, revision)
        self.model = self.engine.model
        self._ending, self._has_answered = threading.Lock(), False
        if weights.adapter is not None:
            self.model = self._load_adapter(weights.adapter)
        self.stop_ids = sorted(self.renderer.stop_ids | stop_ids_in(path, state.source))
        self.room = self._room()
        self.takes_ids = self._takes_ids()
        for drawn in draws_to_compare(draw) if compares else ():
            if (state.id, drawn.temperature, drawn.top_p) not in self.engine.agreed:
                self._compare(drawn)
                self.engine.agreed.add((state.id, drawn.temperature, drawn.top_p))
        self.threads = ThreadPoolExecutor(server.concurrency)

    def give_up(self, ask: Ask, reason: str) -> pd.DataFrame:
        return table_of([failed(reason, self.draw.limit)], self.draw.logprobs)

    def tally(self, table: pd.DataFrame) -> Tally:
        return tally_of(table)

    def compute(self, asks: Sequence[Ask]) -> pd.DataFrame:
        answers = []
        for answer in self.threads.map(self._answer, asks):
            answers.append(answer)
            tell(1 / len(asks))
        refused = [a.error for a in answers if a.error.startswith(REFUSED)]
        if refused and not self._has_answered:
            raise BadInput(
                f"the engine of {self.state.name} refuses every question",
                refused[0],
                "a command that fits the experiment's limits",
                f"its log: {self.engine.log} on {platform.node()}",
            )
        return table_of(answers, self.draw.logprobs)

    def _answer(self, ask: Ask) -> Answer:
        """The answer to one question, or its failed row."""
        limit = self.draw.limit
        try:
            ids = self.renderer.prompt(ask.prompt)
        except Unrenderable as error:
            return failed(str(error), limit)
        if self.room is not None and len(ids) >= self.room:
            return failed(f"{len(ids):,} tokens; the engine takes less than {self.room:,}", limit, len(ids))
        seed = derive_seed(self.draw.seed, ask.key.hex()) % 2**31
        try:
            said = self._said(ids, self.draw, seed) if self.takes_ids else self._told(ask.prompt, seed)
        except Refusal as error:
            return failed(f"{REFUSED}{error}", limit, len(ids))
        except (NoAnswer, Unreadable) as error:
            return failed(str(error), limit, len(ids))
        self._has_answered = True
        return said

    def _said(self, ids: Sequence[int], draw: Draw, seed: int) -> Answer:
        """The answer to a prompt of token ids.

        Raises:
            Refusal: the engine refuses the call.
            Unreadable: its reply is not what was asked for.
        """
        tokens, finish, logprobs = self._complete(ids, draw, seed)
        own = tokens[:-1] if finish == "stop" and tokens and tokens[-1] in self.stop_ids else tokens
        answer = Answer(self.renderer.answer_text(own), finish, "", len(ids), len(own), draw.limit, own)
        return replace(answer, token_logprobs=logprobs)

    def _told(self, prompt: Prompt, seed: int) -> Answer:
        """An answer as a text, from the chat route.

        Raises:
            Refusal: the engine refuses the call.
            NoAnswer: its reply holds no answer.
        """
        body = {
            "model": self.model,
            "messages": prompt.for_server(),
            "max_tokens": self.draw.limit,
            "temperature": self.draw.temperature,
            "top_p": self.draw.top_p,
            "seed": seed,
        }
        if prompt.tools:
            body["tools"] = prompt.tools_for_server()
        if self.state.template_kwargs:
            body["chat_template_kwargs"] = dict(self.state.template_kwargs)
        reply = read_reply(self._post(CHAT, body, as_text=True))
        if reply.is_interrupted or reply.refusal:
            raise NoAnswer(reply.refusal)
        used = reply.used or estimated(prompt, reply.text)
        answer = Answer(reply.text, reply.finish, "", *used, self.draw.limit)
        return replace(answer, reasoning=reply.reasoning, tool_calls=reply.calls)

    def _complete(
        self, ids: Sequence[int], draw: Draw, seed: int
    ) -> tuple[tuple[int, ...], str, tuple[float, ...]]:
        """The tokens of one completion, how it ended (stop or length), and the tokens' log-probabilities, if
        they are asked for.

        Raises:
            Refusal: the engine refuses the call.
            Unreadable: its reply is not what was asked for.
        """
        most = draw.limit if self.room is None else min(draw.limit, self.room - len(ids))
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": list(ids),
            "max_tokens": most,
            "temperature": draw.temperature,
            "top_p": draw.top_p,
            "seed": seed,
            "stop_token_ids": self.stop_ids,
            "return_token_ids": True,
            **NEUTRAL,
        }
        if draw.logprobs:
            body["logprobs"] = 0
        reply = self._post(COMPLETIONS, body)
        try:
            self.engine_version = str(reply.get("system_fingerprint") or self.engine_version)
            choice = reply["choices"][0]
            tokens, finish = tuple(map(int, choice["token_ids"])), str(choice["finish_reason"])
            logprobs = tuple(map(float, choice["logprobs"]["token_logprobs"])) if draw.logprobs else ()
            asked = choice.get("prompt_token_ids")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Unreadable(f"the engine's reply cannot be read: {describe(error)}") from error
        if asked is not None and list(asked) != list(ids):
            raise Unreadable("the engine changed the prompt's token ids")
        if draw.logprobs and (len(logprobs) != len(tokens) or not all(map(math.isfinite, logprobs))):
            raise Unreadable(f"{len(logprobs)} log-probabilities for {len(tokens)} tokens, or infinite ones")
        if finish not in ("stop", "length"):
            raise Unreadable(f"the engine ended the answer: {finish}")
        return tokens, finish, logprobs

    def _post(self, route: str, body: dict[str, Any], as_text: bool = False) -> Any:
        """One call, made again while the engine is busy. If the engine has ended, this process ends too, and
        the pool starts another one.

        Raises:
            Refusal: the engine refuses the call.
        """
        until, pause_s = time.monotonic() + WAITS_S, PAUSE_S
        while True:
            try:
                return self.engine.client.post(route, body, as_text)
            except Refusal as error:
                if not error.may_pass:
                    raise
                problem: Exception = error
            except NoEngine as error:
                problem = error
            if not self.engine.is_running or time.monotonic() > until:
                break
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_S)
        if isinstance(problem, Refusal) and self.engine.is_running and self.engine.is_healthy:
            raise problem
        with self._ending:  # of several threads one does it; the memory is free before another engine starts
            print(f"the engine has ended ({problem}): {self.engine.last_lines}", file=sys.stderr, flush=True)
            self.engine.close()
            os._exit(ENGINE_ENDED)

    def _room(self) -> int | None:
        """The most tokens of a prompt with its answer, as the engine says. None if it does not."""
        told = self.engine.client.ask(MODELS)
        try:
            return int(told["data"][0]["max_model_len"])
        except (KeyError, IndexError, TypeError, ValueError):
            return None

    def _takes_ids(self) -> bool:
        """Whether the engine takes our token ids and returns its own.

        Raises:
            BadInput: it answers in neither way.
        """
        try:
            self._complete(self.renderer.prompt(PROBES[0]), Draw(0.0, 1.0, 1, 0), 0)
            return True
        except Refusal as error:
            if error.status not in NO_IDS:
                raise self._answers_nothing(error) from error
            reason = "the engine takes no token ids"
        except Unreadable as error:
            reason = str(error)
        try:
            self._told(plain(PROBES[0]), 0)
        except (Refusal, NoAnswer) as error:
            raise self._answers_nothing(error) from error
        if self.state.chat_template is not None:
            raise BadInput(
                f"the engine of {self.state.name} would use its own chat template",
                f"{reason}; chat_template {self.state.chat_template[:60]!r}",
                "an engine that takes token ids",
                "leave out chat_template, or give it to the engine's command",
            )
        self.fallbacks["token ids"] = f"asks for texts, drawn with the engine's own defaults: {reason}"
        return False

    def _answers_nothing(self, error: Exception) -> BadInput:
        return BadInput(
            f"the engine of {self.state.name} answers neither ids nor messages",
            str(error),
            f"answers on {COMPLETIONS} or {CHAT}",
            f"put {{name}} where its command names the served model; its log: {self.engine.log}",
        )

    def _load_adapter(self, adapter: str) -> str:
        """Let the engine load an adapter. Returns what calls call it.

        Raises:
            BadInput: it does not.
        """
        name, refusals = self.state.id[:16], []
        for route, form in ADAPTERS:
            called = form.format(name=name, model=self.engine.model)
            try:
                self._post(route, {"lora_name": name, "lora_path": str(local_copy(adapter))})
            except Refusal as error:
                if "already" in str(error):  # loaded for earlier work
                    return called
                refusals.append(str(error))
            else:
                return called
        raise BadInput(
            f"the engine of {self.state.name} does not load its adapter",
            refusals[0],
            "an engine that takes adapters while it runs",
            "vLLM needs server.env VLLM_ALLOW_RUNTIME_LORA_UPDATING=1; or leave out --enable-lora",
        )

    def _compare(self, draw: Draw) -> None:
        """Ask the probes, and compare the log-probabilities with those of the plain way.

        Raises:
            BadInput: the engine serves another model, or it gives no ids.
        """
        if not self.takes_ids:
            raise BadInput(
                f"the engine of student {self.state.name} takes or returns no token ids",
                self.fallbacks["token ids"],
                "ids, which rollouts and evaluations are learned and judged by",
                f"an engine such as vLLM, or leave out the server of {self.state.name}",
            )
        own, prompts = replace(draw, limit=PROBE_TOKENS, logprobs=True), map(self.renderer.prompt, PROBES)
        try:
            said = [(ids, *self._complete(ids, own, 0)) for ids in prompts]
        except (Refusal, Unreadable) as error:
            raise serves_another(self.state, str(error), "a log-probability for each token") from error
        check_agreement(self.state, said, draw.temperature)


def stop_ids_in(path: str, source: ModelSource) -> frozenset[int]:
    """The end tokens of a model's generation configuration. If it has none, those of its configuration."""
    transformers = import_transformers()
    about = {"revision": source.revision, "local_files_only": source.is_local}
    try:
        config = transformers.GenerationConfig.from_pretrained(path, **about)
    except OSError:
        code = {"trust_remote_code": source.trust_remote_code}
        config = transformers.AutoConfig.from_pretrained(path, **about, **code).get_text_config()
    ends = getattr(config, "eos_token_id", None)
    return frozenset([ends] if isinstance(ends, int) else ends or [])
