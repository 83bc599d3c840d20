"""Asking an OpenAI-compatible server: calls in threads, with retries, a rate limit, a budget, and a key that
is shown nowhere. An error of a call fails that answer alone. Only an error that concerns every question ends
the run.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import pandas as pd

from cluster.errors import BadInput, describe
from cluster.metrics import Tally
from cluster.seeds import derive_seed
from jobs.experiment.teachers import EndpointTeacher
from jobs.run.rows import JOURNAL
from jobs.run.store import write_fallbacks
from jobs.run.tables import Table
from jobs.stages.answers import Answer, Ask, failed, serves, table_of, tally_of
from jobs.stages.completion import Reply, estimated, estimated_prompt, is_same_model, read_reply
from jobs.stages.hosted import Draw
from jobs.stages.journal import Journal, has_answers, spent_on
from jobs.stages.refusal import OF_PARAMETER, SAID, KeyRefused, NoAnswer, refused_with
from jobs.stages.secret import MARK, Secret
from jobs.stages.wire import Wire

TEXTS = ("text", "error", "reasoning", "tool_calls")
PAUSE_S, LONGEST_S = 0.5, 30.0  # seconds before the second call, doubled from call to call
FEW = 4  # questions
OTHERS_S = 3.0  # seconds within which other shards, which start one by one, have begun to ask


class EndpointAsker:
    """Handler for an OpenAI-compatible server. Every answer that did not fail, and every failed one that cost
    money, is written to the journal at once.
    """

    def __init__(
        self, teacher: EndpointTeacher, draw: Draw, table: Table, asked: frozenset[bytes], key: Secret
    ) -> None:
        """Count what has been spent so far. Actors that died may have spent some of it.

        Args:
            asked: the keys of everything that the run asked this teacher. Their cost counts.
        """
        self.teacher, self.draw, self.table, self.asked, self.key = teacher, draw, table, asked, key
        self.journal = Journal(table.directory / JOURNAL)
        self.spent_usd = spent_on(table, asked, self.journal.known)
        self.fallbacks: dict[str, str] = {}
        if self.journal.refused:
            told = f"{self.journal.refused} journalled answers have counts out of range: asked again"
            self.fallbacks["journal"] = told
        self.wire = Wire(teacher.base_url, key, teacher.timeout_s, teacher.concurrency)
        # parallel shards share these, so the next shard's calls begin while a call of this one is slow
        self.threads = ThreadPoolExecutor(teacher.concurrency)
        self._lock, self._next_call, self.retries, self.waited_s = threading.Lock(), 0.0, 0, 0.0
        self._is_over, self._over = threading.Event(), BadInput("")
        self._under_way: set[Future[Answer]] = set()
        self._refused: dict[bytes, str] = {}
        self._has_answered, self._echoes, self._others = False, 0, Counter[str]()

    def give_up(self, ask: Ask, reason: str) -> pd.DataFrame:
        return table_of([failed(reason, self.draw.limit)])

    def compute(self, asks: Sequence[Ask]) -> pd.DataFrame:
        calls = [self.threads.submit(self._ask, ask) for ask in asks]
        with self._lock:
            self._under_way.update(calls)
        try:
            answers = [call.result() for call in calls]
            self._refuse_if_all_are(asks)
            return table_of(answers)
        finally:  # if a call was refused, running calls are waited for, because they are paid for
            for call in calls:
                call.cancel()
            wait(calls)
            with self._lock:
                self._under_way.difference_update(calls)
            self.journal.flush()
            self._tell_echoes()
            self._tell_others()

    def tally(self, table: pd.DataFrame) -> Tally:
        with self._lock:
            retries, self.retries = self.retries, 0
            waited, self.waited_s = self.waited_s, 0.0
        return replace(tally_of(table), retries=retries, waited_s=waited)

    def _ask(self, ask: Ask) -> Answer:
        """The answer, or the error of the last of its calls."""
        paid = self.journal.known.get(ask.key.hex(), ())
        if (found := next((p for p in paid if serves(self.draw.limit, asdict(p))), None)) is not None:
            return found
        problem, usd, pause_s = "", 0.0, 0.0
        for attempt in range(self.teacher.max_retries + 1):
            if self._is_over.wait(pause_s):
                raise self._over
            if self._keep_the_rate():
                raise self._over
            if spent := self._budget_is_spent():
                problem = f"{problem}, then {spent}" if problem else spent
                break
            self._count(retries=int(attempt > 0))
            try:
                return self._kept(ask, self._call(ask), usd)
            except NoAnswer as error:
                problem = f"{error.kind}{error}"
                usd += self._spend(self._price_of(error, ask))
                if error.is_of_teacher:
                    self._refused[ask.key] = problem
                if error.is_final:
                    break
                pause_s = max(error.after_s, _backoff_s(attempt))
        return self._kept(ask, failed(problem[:SAID], self.draw.limit), usd)

    def _call(self, ask: Ask) -> Answer:
        """One call.

        Raises:
            NoAnswer: the call gave no answer.
            BadInput: every call of this teacher will fail.
        """
        began = time.monotonic()
        try:
            return self._answer(ask)
        except KeyRefused as error:
            raise self._refused_for_all("refuses", str(error)) from error
        except NoAnswer:
            raise
        except Exception as error:  # an error of this call must not end the others
            raise NoAnswer(self.key.hide(describe(error)), is_final=True) from error
        finally:
            self._count(waited_s=time.monotonic() - began)

    def _answer(self, ask: Ask) -> Answer:
        response = self.wire.post(self._asking(ask))
        try:
            if response.status >= 300:
                raise refused_with(response.status, response.text)
            reply = read_reply(response.text)
        except NoAnswer as error:
            error.wait_for(response.headers)
            raise
        if reply.is_interrupted:
            raise NoAnswer(reply.refusal, reply.used or estimated(ask.prompt, reply.text))
        self._has_answered = True
        if not is_same_model(self.teacher.model, reply.model):
            with self._lock:
                self._others[self.key.hide(reply.model)] += 1
        return self._said(ask, reply, response.held_key)

    def _said(self, ask: Ask, reply: Reply, held_key: bool) -> Answer:
        """A reply as an answer, with its price."""
        used = reply.used or estimated(ask.prompt, reply.text + reply.calls)
        usd, limit = self._spend(self._price(used)), self.draw.limit
        if reply.refusal:
            kept = f"the server withheld the answer: {reply.refusal}"[:SAID]
            return replace(failed(kept, limit, used[0]), answer_tokens=used[1], usd=usd)
        is_cut = not reply.tells_finish and reply.used is not None and reply.used[1] >= limit
        said = Answer(reply.text, "length" if is_cut else reply.finish, "", *used, limit, usd=usd)
        said = replace(said, reasoning=reply.reasoning, tool_calls=reply.calls)
        self._count(echoes=int(held_key or said.row(TEXTS) != self._hidden(said).row(TEXTS)))
        return said

    def _hidden(self, answer: Answer) -> Answer:
        """An answer with the key removed. JSON can escape a key, so a search of the raw body may miss it."""
        hidden: dict[str, Any] = {name: self.key.hide(getattr(answer, name)) for name in TEXTS}
        return replace(answer, **hidden)

    def _kept(self, ask: Ask, answer: Answer, usd: float) -> Answer:
        """An answer with the cost of the calls before it added. It is written to the journal if it did not
        fail or cost money.
        """
        answer = replace(self._hidden(answer), usd=answer.usd + usd)
        if answer.usd or answer.finish != "failed":
            self.journal.write(ask.key.hex(), answer)
        return answer

    def _refuse_if_all_are(self, asks: Sequence[Ask]) -> None:
        """Stop the run if the server rejects every question, for example because of a wrong model or address.
        If any question has an answer, only the rejected rows fail. So this waits for running calls of other
        shards first.

        Raises:
            BadInput: every question was rejected. Has the server's message.
        """
        words = {self._refused.get(ask.key, "") for ask in asks}
        if any(map(_is_of_parameter, words)) and (len(asks) < FEW or len(words) > 1):
            return  # a few questions may be at fault, and not the parameters
        until = time.monotonic() + OTHERS_S
        while all(ask.key in self._refused for ask in asks) and not self._has_answered:
            if self.journal.known or self._answered_before:
                return
            with self._lock:
                others = {call for call in self._under_way if not call.done()}
            if others:
                wait(others, return_when=FIRST_COMPLETED)
            elif time.monotonic() >= until:
                raise self._refused_for_all("refuses every question", self._refused[asks[0].key])
            else:
                self._is_over.wait(OTHERS_S / 20)

    def _refused_for_all(self, how: str, words: str) -> BadInput:
        """Stop all further calls of this teacher, also retries. Calls that are running end by themselves.
        Returns the error to raise.
        """
        expected = "a valid key, model and base_url, and credit"
        remedy = "extra_body: {seed: null} leaves out a parameter that it does not take"
        self._over = BadInput(
            f"teacher {self.teacher.name} {how}", words, expected, remedy if _is_of_parameter(words) else ""
        )
        self._is_over.set()
        return self._over

    @cached_property
    def _answered_before(self) -> bool:
        return has_answers(self.table, self.asked)

    def _tell_echoes(self) -> None:
        """Record how many answers contained the key. The end of the run and the report mention it."""
        if self._echoes:
            told = f"the server put the key into {self._echoes} answers: {MARK} stands there instead"
            self.fallbacks["key"] = told
            write_fallbacks(self.table.directory, self.fallbacks)

    def _tell_others(self) -> None:
        """Record how many answers the server says to be of other models."""
        with self._lock:
            counts = ", ".join(f"{n:,} of {name}" for name, n in self._others.most_common(FEW))
        if counts:
            told = f"{self.teacher.model} was asked for, and the server names other models: {counts} answers"
            self.fallbacks["model"] = told
            write_fallbacks(self.table.directory, self.fallbacks)

    def _price(self, used: tuple[int, int]) -> float:
        """USD for prompt and answer tokens."""
        t = self.teacher
        return (used[0] * t.usd_per_million_input_tokens + used[1] * t.usd_per_million_output_tokens) / 1e6

    def _price_of(self, error: NoAnswer, ask: Ask) -> float:
        """USD of a call without an answer: of the tokens that it reports, or of its prompt if it may cost
        something.
        """
        return self._price(error.used or ((estimated_prompt(ask.prompt), 0) if error.may_cost else (0, 0)))

    def _spend(self, usd: float) -> float:
        with self._lock:
            self.spent_usd += usd
        return usd

    def _budget_is_spent(self) -> str:
        """The message that the budget is spent. Empty if it is not."""
        most = self.teacher.budget_usd
        return f"budget of {most} USD is spent" if most is not None and self.spent_usd >= most else ""

    def _asking(self, ask: Ask) -> Mapping[str, Any]:
        """The body of a call. `extra_body` is applied last: its fields replace ours, and null removes a
        field.
        """
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
        return {name: value for name, value in (ours | t.extra_body).items() if value is not None}

    def _count(self, retries: int = 0, waited_s: float = 0.0, echoes: int = 0) -> None:
        with self._lock:
            self.retries += retries
            self.waited_s += waited_s
            self._echoes += echoes

    def _keep_the_rate(self) -> bool:
        """Wait until requests_per_minute allows this call. Whether all calls have been stopped meanwhile."""
        if self.teacher.requests_per_minute is None:
            return self._is_over.is_set()
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_call)
            self._next_call = turn + 60.0 / self.teacher.requests_per_minute
        return self._is_over.wait(max(0.0, turn - now))


def _is_of_parameter(words: str) -> bool:
    """Whether a refusal may concern a parameter of all calls."""
    return words.startswith(tuple(f"HTTP {status}" for status in OF_PARAMETER))


def _backoff_s(attempt: int) -> float:
    """Seconds to wait after a failed call. They are varied at random, so that calls do not all come back at
    once.
    """
    return min(PAUSE_S * 2.0**attempt, LONGEST_S) * random.uniform(1.0, 1.25)
