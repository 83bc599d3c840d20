"""Asking a model behind an engine that its actor starts: vLLM, SGLang and others with OpenAI's routes.

The engine gets our own token ids and returns ids, so rows are those of a hosted model. An engine that takes
or returns no ids is asked for texts. That is enough for a teacher, not for a student. A student's engine has
to say what the plain way says before its first row is taken: after a change of weights an engine may answer
with the old ones.
"""

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from cluster.engine.client import NoEngine, Refusal
from cluster.engine.own import engine_for
from cluster.errors import BadInput, Unrenderable, describe
from cluster.memory import free_memory
from cluster.metrics import Tally
from cluster.models.loading import import_transformers, load_model
from cluster.models.messages import Prompt, plain
from cluster.models.plain_way import plain_logits
from cluster.progress import tell
from cluster.seeds import derive_seed
from cluster.storage import local_copy
from jobs.experiment.server import Server
from jobs.stages.answers import Answer, Ask, failed, table_of, tally_of
from jobs.stages.completion import estimated, read_reply
from jobs.stages.hosted import Draw
from jobs.stages.refusal import NoAnswer
from jobs.stages.states import ModelState

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
# where engines take an adapter: vLLM, then SGLang
ADAPTERS = ("/v1/load_lora_adapter", "/load_lora_adapter")
# Engines take defaults from the model's generation_config.json; here every answer is drawn as we say.
NEUTRAL = {"top_k": -1, "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
NEUTRAL |= {"repetition_penalty": 1.0}
PROBES = ("2+2?", "What is the capital of France?", "Tom has 3 apples and buys 4. How many are there?")
PROBE_TOKENS = 12
# The largest mean and single difference of log-probabilities, in nats, that counts as rounding.
AGREES = {"float32": (0.01, 0.05), "bfloat16": (0.1, 0.5), "float16": (0.1, 0.5)}
TRIES, PAUSE_S = 3, 1.0  # of a call whose connection was lost
ENGINE_ENDED = 71  # exit code of an actor whose engine has ended


@dataclass(frozen=True)
class Weights:
    """What an engine loads for a state of a model: a directory, and an adapter that it loads while it
    runs.
    """

    path: str
    adapter: str | None = None


def weights_of(state: ModelState, server: Server) -> Weights:
    """What an engine loads. An adapter that it cannot load comes merged, as its training has written it."""
    adapter = state.source.adapter
    if adapter is None or server.loads_adapters:
        return Weights(state.source.path, adapter)
    return Weights(adapter.rstrip("/").rpartition("/")[0])


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
        if revision and not server.how.names_revision:
            raise BadInput(
                f"the engine of {state.name} would load any revision of {path}",
                server.command[:200],
                f"{{revision}} in its command, for {revision[:12]}",
                "vLLM takes --revision {revision}; or give a directory as path",
            )
        self.engine = engine_for(server.how, path, revision)
        self.model = self.engine.model
        if weights.adapter is not None:
            self.model = self._load_adapter(weights.adapter)
        self.stop_ids = sorted(self.renderer.stop_ids | stop_ids_in(path))
        self.takes_ids = self._takes_ids()
        if compares:
            self._compare()
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
        return table_of(answers, self.draw.logprobs)

    def _answer(self, ask: Ask) -> Answer:
        """The answer to one question, or its failed row."""
        try:
            ids = self.renderer.prompt(ask.prompt)
        except Unrenderable as error:
            return failed(str(error), self.draw.limit)
        seed = derive_seed(self.draw.seed, ask.key.hex()) % 2**31
        try:
            if self.takes_ids:
                return self._said(ids, self._complete(ids, self.draw, seed))
            return self._told(ask.prompt, seed)
        except (Refusal, NoAnswer) as error:
            return failed(str(error), self.draw.limit, len(ids))
        except (KeyError, IndexError, TypeError, ValueError) as error:  # a reply that is no completion
            return failed(f"the engine's reply cannot be read: {describe(error)}", self.draw.limit, len(ids))

    def _said(self, ids: Sequence[int], choice: dict[str, Any]) -> Answer:
        """A choice with token ids as an answer."""
        own, finish = tuple(choice["token_ids"]), str(choice["finish_reason"])
        if finish not in ("stop", "length"):
            return failed(f"the engine ended the answer: {finish}", self.draw.limit, len(ids))
        if finish == "stop" and own and own[-1] in self.stop_ids:
            own = own[:-1]
        logprobs = tuple((choice.get("logprobs") or {}).get("token_logprobs", ()))
        answer = Answer(self.renderer.answer_text(own), finish, "", len(ids), len(own), self.draw.limit, own)
        return replace(answer, token_logprobs=logprobs if self.draw.logprobs else ())

    def _told(self, prompt: Prompt, seed: int) -> Answer:
        """An answer as a text, from the chat route."""
        body = {
            "model": self.model,
            "messages": prompt.for_server(),
            "max_tokens": self.draw.limit,
            "temperature": self.draw.temperature,
            "top_p": self.draw.top_p,
            "seed": seed,
        }
        reply = read_reply(self._post(CHAT, body, as_text=True))
        used = reply.used or estimated(prompt, reply.text)
        answer = Answer(reply.text, reply.finish, "", *used, self.draw.limit)
        return replace(answer, reasoning=reply.reasoning, tool_calls=reply.calls)

    def _complete(self, ids: Sequence[int], draw: Draw, seed: int) -> dict[str, Any]:
        """One completion of token ids."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": list(ids),
            "max_tokens": draw.limit,
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
        self.engine_version = str(reply.get("system_fingerprint") or self.engine_version)
        choice: dict[str, Any] = reply["choices"][0]
        return choice

    def _post(self, route: str, body: dict[str, Any], as_text: bool = False) -> Any:
        """One call. If the engine has ended, this process ends too: the pool starts another one.

        Raises:
            Refusal: the engine refuses the call.
        """
        for _ in range(TRIES):
            try:
                return self.engine.client.post(route, body, as_text)
            except NoEngine as error:
                lost = error
                time.sleep(PAUSE_S)
                if not self.engine.is_running:
                    break
        print(f"the engine has ended ({lost}): {self.engine.last_lines}", file=sys.stderr, flush=True)
        os._exit(ENGINE_ENDED)

    def _takes_ids(self) -> bool:
        """Whether the engine takes our token ids and returns its own.

        Raises:
            BadInput: it answers in neither way.
        """
        ids, draw = self.renderer.prompt(PROBES[0]), Draw(0.0, 1.0, 1, 0)
        try:
            choice = self._complete(ids, draw, 0)
        except (Refusal, KeyError, IndexError, TypeError):
            choice = {}
        if choice.get("token_ids") and choice.get("prompt_token_ids", list(ids)) == list(ids):
            return True
        try:
            self._told(plain(PROBES[0]), 0)
        except (Refusal, NoAnswer) as error:
            raise BadInput(
                f"the engine of {self.state.name} answers neither ids nor messages",
                str(error),
                f"answers on {COMPLETIONS} or {CHAT}",
                f"its log on this node: {self.engine.log}",
            ) from error
        self.fallbacks["token ids"] = "asks for texts: the engine takes or returns no token ids"
        return False

    def _load_adapter(self, adapter: str) -> str:
        """Let the engine load an adapter. Returns what calls call it.

        Raises:
            BadInput: it does not.
        """
        name, refusals = self.state.id[:16], []
        for route in ADAPTERS:
            try:
                self._post(route, {"lora_name": name, "lora_path": str(local_copy(adapter))})
            except Refusal as error:
                if "already" in str(error):  # loaded for earlier work
                    return name
                refusals.append(str(error))
            else:
                return name
        raise BadInput(
            f"the engine of {self.state.name} does not load its adapter",
            refusals[0],
            "an engine that takes adapters while it runs",
            "vLLM needs server.env VLLM_ALLOW_RUNTIME_LORA_UPDATING=1; or leave out --enable-lora",
        )

    def _compare(self) -> None:
        """Compare greedy tokens and their log-probabilities with those of the plain way.

        Raises:
            BadInput: the engine serves another model, or no ids.
        """
        if not self.takes_ids:
            raise BadInput(
                f"the engine of student {self.state.name} takes or returns no token ids",
                self.server.command[:200],
                "ids, which rollouts and evaluations are learned and judged by",
                f"an engine such as vLLM, or leave out the server of {self.state.name}",
            )
        draw = Draw(0.0, 1.0, PROBE_TOKENS, 0, logprobs=True)
        prompts = [self.renderer.prompt(text) for text in PROBES]
        choices = [self._complete(ids, draw, 0) for ids in prompts]
        model, differences = load_model(self.state.source), list[float]()
        for ids, choice in zip(prompts, choices, strict=True):
            own = list(choice["token_ids"])
            logprobs = plain_logits(model, [*ids, *own]).log_softmax(-1)
            for k, (token, said) in enumerate(zip(own, choice["logprobs"]["token_logprobs"], strict=True)):
                differences.append(abs(float(logprobs[len(ids) - 1 + k, token]) - said))
        del model
        free_memory()
        mean, most = sum(differences) / len(differences), max(differences)
        limits = AGREES[self.state.source.dtype]
        if mean > limits[0] or most > limits[1]:
            raise BadInput(
                f"the engine of {self.state.name} serves another model than its weights",
                f"log-probabilities that differ by {mean:.3g} nats on average, {most:.3g} at most",
                f"at most {limits[0]:g} and {limits[1]:g}, which is rounding",
                "its dtype or quantisation is another one, or it kept old weights; leave out the server",
            )


def stop_ids_in(path: str) -> frozenset[int]:
    """The end tokens of a model's generation configuration, read from its directory."""
    try:
        config = import_transformers().GenerationConfig.from_pretrained(path, local_files_only=True)
    except OSError:
        return frozenset()
    ends = config.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends or [])
