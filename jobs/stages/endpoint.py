"""Asking an OpenAI-compatible server: calls in threads, the client's retries, a rate, a budget, and a key
that appears nowhere.
"""

import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from cluster.metrics import Tally
from cluster.seeds import derive_seed
from jobs.experiment.teachers import EndpointTeacher
from jobs.run.rows import JOURNAL
from jobs.run.tables import KEY, Table
from jobs.stages.answers import Answer, Ask, failed, serves, table_of, tally_of
from jobs.stages.completion import Malformed, estimated, estimated_prompt, read_reply
from jobs.stages.hosted import Draw
from jobs.stages.journal import Journal, drop_journalled


@dataclass(frozen=True)
class Secret:
    """A key on its way from this process's environment to an actor: by value, never in a runtime environment,
    which `ps` shows.
    """

    value: str

    def __repr__(self) -> str:
        return "Secret(***)"


def read_key(teacher: EndpointTeacher) -> Secret:
    """The teacher's key from the environment.

    Raises:
        BadInput: the variable is not set.
    """
    key = os.environ.get(teacher.api_key_env)
    if key is None:
        raise BadInput(
            f"no key for teacher {teacher.name}",
            "",
            f"the environment variable {teacher.api_key_env}",
            "export it",
        )
    return Secret(key)


class EndpointAsker:
    """Handler for an OpenAI-compatible server: calls in threads, the client's retries, a rate
    and a budget. What was paid for is journalled at once.
    """

    def __init__(
        self, teacher: EndpointTeacher, draw: Draw, table: Table, asked: frozenset[bytes], key: Secret
    ) -> None:
        """Count what has been spent, which an actor that died may have added to.

        Args:
            asked: the keys of all that the run asked of this teacher: what they cost counts.
        """
        from openai import OpenAI

        self.teacher, self.draw = teacher, draw
        self.journal = Journal(table.directory / JOURNAL)
        self.spent_usd = spent_on(table, asked, self.journal.known)
        self.fallbacks: dict[str, str] = {}
        self.client = OpenAI(
            base_url=teacher.base_url,
            api_key=key.value,
            timeout=teacher.timeout_s,
            max_retries=teacher.max_retries,
        )
        # shards that run side by side share these: the next one's calls begin while one of this is slow
        self.threads = ThreadPoolExecutor(teacher.concurrency)
        self._lock, self._next_call, self.retries, self.waited_s = threading.Lock(), 0.0, 0, 0.0

    def give_up(self, ask: Ask, reason: str) -> pd.DataFrame:
        return table_of([failed(reason, self.draw.limit)])

    def compute(self, asks: Sequence[Ask]) -> pd.DataFrame:
        calls = [self.threads.submit(self._ask, ask) for ask in asks]
        try:
            return table_of([call.result() for call in calls])
        finally:  # where one was refused, those that are under way are waited for: they are paid
            for call in calls:
                call.cancel()
            wait(calls)
            self.journal.flush()

    def tally(self, table: pd.DataFrame) -> Tally:
        with self._lock:
            retries, self.retries = self.retries, 0
            waited, self.waited_s = self.waited_s, 0.0
        return replace(tally_of(table), retries=retries, waited_s=waited)

    def _ask(self, ask: Ask) -> Answer:
        from openai import APIError, AuthenticationError, NotFoundError, PermissionDeniedError

        teacher, limit = self.teacher, self.draw.limit
        paid = next((p for p in self.journal.known.get(ask.key.hex(), ()) if serves(limit, p)), None)
        if paid is not None:
            lists = {name: tuple(paid.get(name, ())) for name in ("token_ids", "token_logprobs")}
            return Answer(**{**paid, **lists})
        problem, usd = "", 0.0
        for attempt in range(teacher.max_retries + 1):
            if teacher.budget_usd is not None and self.spent_usd >= teacher.budget_usd:
                spent = f"budget of {teacher.budget_usd} USD is spent"
                problem = f"{problem}, then {spent}" if problem else spent
                break
            self._keep_the_rate()
            self._count(retries=int(attempt > 0))
            began = time.monotonic()
            try:
                return self._kept(ask, self._call(ask), usd)
            except (
                AuthenticationError,
                PermissionDeniedError,
                NotFoundError,
            ) as error:  # no call of this teacher will fare better
                raise BadInput(
                    f"teacher {teacher.name} refuses",
                    self._scrub(error),
                    "a valid key, model and base_url",
                    "",
                ) from error
            except APIError as error:  # the client has already retried what can be retried
                return self._kept(ask, failed(f"{type(error).__name__}: {self._scrub(error)}", limit), usd)
            except Malformed as error:
                problem = f"malformed response: {error}"
                usd += self._spend(self._price(error.used or (estimated_prompt(ask.prompt), 0)))
                if error.is_understood:
                    break
            finally:
                self._count(waited_s=time.monotonic() - began)
        return self._kept(ask, failed(self._scrub(problem), limit), usd)

    def _kept(self, ask: Ask, answer: Answer, usd: float) -> Answer:
        """An answer with what the calls before it cost, journalled if anything was paid."""
        answer = replace(answer, usd=answer.usd + usd)
        if answer.usd or answer.finish != "failed":
            self.journal.write(ask.key.hex(), asdict(answer))
        return answer

    def _price(self, used: tuple[int, int]) -> float:
        """USD for prompt and answer tokens."""
        t = self.teacher
        return (used[0] * t.usd_per_million_input_tokens + used[1] * t.usd_per_million_output_tokens) / 1e6

    def _spend(self, usd: float) -> float:
        with self._lock:
            self.spent_usd += usd
        return usd

    def _call(self, ask: Ask) -> Answer:
        raw = self.client.chat.completions.with_raw_response.create(**self._asking(ask))
        self._count(retries=raw.retries_taken)
        reply = read_reply(raw.text)
        used = reply.used or estimated(ask.prompt, reply.text + reply.calls)
        usd, limit = self._spend(self._price(used)), self.draw.limit
        if reply.refusal:
            kept = f"the server keeps its answer back: {self._scrub(reply.refusal)}"
            return replace(failed(kept, limit, used[0]), answer_tokens=used[1], usd=usd)
        said = Answer(reply.text, reply.finish, "", *used, limit, usd=usd)
        return replace(said, reasoning=reply.reasoning, tool_calls=reply.calls)

    def _asking(self, ask: Ask) -> dict[str, Any]:
        """What a call sends. `extra_body` comes last: what it names replaces ours, and null removes it."""
        t, draw = self.teacher, self.draw
        ours: dict[str, Any] = {
            "model": t.model,
            "messages": ask.prompt.for_server(),
            "temperature": draw.temperature,
            "top_p": draw.top_p,
            t.limit_name: draw.limit,
            "seed": derive_seed(draw.seed, ask.key.hex()) % 2**31,
        }
        if ask.prompt.tools:
            ours["tools"] = ask.prompt.tools_for_server()
        ours = {name: value for name, value in ours.items() if name not in t.extra_body}
        return {**ours, "extra_body": {k: v for k, v in t.extra_body.items() if v is not None}}

    def _count(self, retries: int = 0, waited_s: float = 0.0) -> None:
        with self._lock:
            self.retries += retries
            self.waited_s += waited_s

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


def spent_on(
    table: Table,
    asked: Collection[bytes],
    journalled: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> float:
    """USD that the answers to these asks have cost, whoever paid: the budget covers it all.

    Args:
        journalled: records of paid answers by key; those that are in parts count there.
    """
    spent, held = 0.0, set[tuple[str, int, float]]()
    for name in table.parts(sorted(asked)):
        part = table.read(name, [KEY, "usd", "limit_tokens"])
        for key, usd, limit in zip(part[KEY], part["usd"], part["limit_tokens"], strict=True):
            if key in asked:
                spent += float(usd)
                held.add((key.hex(), int(limit), float(usd)))
    for key in asked:
        for paid in (journalled or {}).get(key.hex(), ()):
            if (key.hex(), int(paid["limit_tokens"]), float(paid["usd"])) not in held:
                spent += float(paid["usd"])
    return spent


def forget_journalled(table: Table) -> None:
    """Remove what of a table's journal is in its parts by now."""
    place, held = table.directory / JOURNAL, set[tuple[str, int]]()
    if not place.exists():
        return
    for name in table.parts([bytes(16), b"\xff" * 16]):
        part = table.read(name, [KEY, "limit_tokens"])
        held |= {(key.hex(), limit) for key, limit in zip(part[KEY], part["limit_tokens"], strict=True)}
    drop_journalled(place, lambda key, value: (key, value["limit_tokens"]) in held)
    if not place.glob("*.jsonl"):
        place.remove()
