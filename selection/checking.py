"""Checking answers in a child process. It is killed and replaced when one answer takes too long, because a
comparison may hang or crash, and neither a signal nor a thread can stop it safely.

Answers are sent through the pipe in batches. The child writes into shared memory which answer it is checking
and since when. So each answer has its own time limit.

The child is no `multiprocessing.Process`: that would run the user's script again, from its first line, unless
all of it stands under `if __name__ == "__main__"`.
"""

import contextlib
import json
import math
import mmap
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Sequence
from functools import lru_cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType

from cluster import own_packages
from cluster.errors import BadInput
from cluster.own_modules import SAFE_PATH, source_of
from selection.verification import Case, State, Verdict, VerifySettings, check_settings, judge, load_function

BATCH = 512  # how many answers are sent through the pipe at once
BATCH_CHARACTERS = 2**22
START_S = 300.0  # for the child to begin: importing takes minutes from a slow network disk
# Seconds after which the child sends its verdicts. Verdicts that were not sent before a kill are made again.
TELL_S = 0.2
# Places in shared memory: the number of the answer in the batch, and since when, by the monotonic clock.
AT, SINCE = 0, 1
PLACE_BYTES = 16  # two numbers of eight bytes
CHILD = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "runpy.run_path(sys.argv[2])['claim_packages'](); "
    "from selection.checking import serve; serve(int(sys.argv[3]), int(sys.argv[4]))"
)


def serve(pipe_fd: int, place_fd: int) -> None:
    """The child's loop: check batches until the pipe closes. It ignores Ctrl-C at a terminal, which the
    parent handles.
    """
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    pipe, place = Connection(pipe_fd), shared_place(place_fd)
    settings: VerifySettings = pipe.recv()
    if settings.method == "math":
        import latex2sympy2_extended  # noqa: F401  # imported before the clock of the first answer starts
    if settings.function:
        os.environ.pop(SAFE_PATH, None)  # processes that a user's function starts belong to the user
        try:
            load_function(settings.function)
        except BadInput as error:  # it could be imported in the parent, and cannot be once more
            pipe.send(error)
            return
    pipe.send("ready")
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        while True:
            batch, told, since = pipe.recv(), list[object](), time.monotonic()
            for number, case in enumerate(batch):
                now = time.monotonic()
                place[SINCE], place[AT] = now, number
                told.append(_verdict(case[0], case[1], case[2], settings))
                if isinstance(told[-1], BadInput) or now - since > TELL_S:
                    pipe.send(told)
                    told, since = [], now
            pipe.send(told)


def _verdict(
    text: str, references: tuple[str, ...], row: str, settings: VerifySettings
) -> tuple[State, str] | BadInput:
    try:
        verdict = judge(text, references, settings, row)
        return verdict.state, verdict.extracted
    except BadInput as error:
        return error
    except Exception as error:  # a user's function or sympy may raise anything; it is a verdict, not a crash
        return "checker_error", f"{type(error).__name__}: {error}"[:200]


def shared_place(descriptor: int) -> "memoryview[float]":
    """The two numbers that parent and child share."""
    return memoryview(mmap.mmap(descriptor, PLACE_BYTES)).cast("d")


class Verifier:
    """Checks answers in a child process. The child is killed and replaced when one answer takes too long."""

    def __init__(self, settings: VerifySettings) -> None:
        check_settings(settings)
        self.settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._place: memoryview[float] = memoryview(bytearray(PLACE_BYTES)).cast("d")

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._pipe = None

    def _child(self) -> Connection:
        if self._pipe is not None:
            return self._pipe
        self._pipe, theirs = Pipe()
        place = os.memfd_create("place")
        os.ftruncate(place, PLACE_BYTES)
        self._place = shared_place(place)
        try:
            self._process = start_child(theirs.fileno(), place)
        finally:
            theirs.close()
            os.close(place)
        weakref.finalize(self, self._process.kill)
        self._pipe.send(self.settings)
        self._wait_until_ready(self._pipe)
        return self._pipe

    def _wait_until_ready(self, pipe: Connection) -> None:
        """Wait until the child has imported what it checks with.

        Raises:
            BadInput: it cannot import the user's function, ended meanwhile, or takes too long for it.
        """
        what, told = self.settings.function or self.settings.method, "took longer"
        try:
            answer = pipe.recv() if pipe.poll(START_S) else None
        except (EOFError, ConnectionResetError):
            answer, told = None, "ended meanwhile"
        if isinstance(answer, BadInput):
            self.close()
            raise answer
        if answer is None:
            self.close()
            raise BadInput(
                "a second process could not import what checks answers",
                f"{what}: it {told}",
                f"a module that can be imported again, within {START_S:g} s",
                "a module must not end, wait or make files while it is imported",
            )

    def check(self, text: str, reference: str | tuple[str, ...], row: str = "") -> Verdict:
        """Verify one answer against its references, of which one is enough.

        Raises:
            BadInput: a reference cannot be used with this method.
        """
        references = (reference,) if isinstance(reference, str) else reference
        return self.check_all([Case(text, references, row)])[0]

    def check_all(self, cases: Iterable[Case]) -> list[Verdict]:
        """Verify answers in order. A repeated answer is not checked twice.

        Raises:
            BadInput: a reference cannot be used with this method.
        """
        every = list(cases)
        distinct = list(dict.fromkeys(every))
        known: dict[Case, Verdict] = {}
        while len(known) < len(distinct):
            batch = first_of(distinct[len(known) : len(known) + BATCH])
            found = self._batch(batch)
            known.update(zip(batch, found, strict=False))  # after a kill the rest comes in the next batch
        return [known[case] for case in every]

    def _batch(self, cases: Sequence[Case]) -> list[Verdict]:
        """The verdicts on the first of these answers: on all of them, or up to one whose check was ended."""
        pipe = self._child()
        self._place[AT], self._place[SINCE] = 0, math.inf  # no time limit runs while the batch is sent
        try:
            # plain tuples: to pickle the cases themselves takes nearly three times as long
            pipe.send([(case.text, case.references, case.row) for case in cases])
        except (
            BrokenPipeError,
            ConnectionResetError,
        ):  # it died before this batch: none of these is the cause
            self.close()
            return []
        found: list[Verdict] = []
        while len(found) < len(cases):
            left = self._place[SINCE] + self.settings.timeout_s - time.monotonic()
            if pipe.poll(min(max(0.0, left), 1.0)):
                try:
                    told = pipe.recv()
                except (EOFError, ConnectionResetError):
                    return self._ended(cases, found, Verdict("checker_error", "the checking process died"))
                for verdict in told:
                    if isinstance(verdict, BadInput):
                        self.close()
                        raise verdict
                    found.append(Verdict(*verdict))
            elif time.monotonic() - self._place[SINCE] >= self.settings.timeout_s:
                return self._ended(cases, found, Verdict("timed_out", ""))
        return found

    def _ended(self, cases: Sequence[Case], found: list[Verdict], verdict: Verdict) -> list[Verdict]:
        """The verdicts after one answer has ended a batch: those sent before, those checked again up to that
        answer, and the verdict on that answer.
        """
        at = int(self._place[AT])
        self.close()
        between = cases[len(found) : at]
        return [*found, *(self.check_all(between) if between else ()), verdict]


def start_child(pipe_fd: int, place_fd: int) -> "subprocess.Popen[bytes]":
    """A Python process that serves at the other end of a pipe, with this one's search path."""
    arguments = [
        json.dumps([str(folder) for folder in sys.path]),
        own_packages.__file__,
        str(pipe_fd),
        str(place_fd),
    ]
    return subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, *arguments],
        pass_fds=(pipe_fd, place_fd),
        stdin=subprocess.DEVNULL,
    )


def first_of(cases: Sequence[Case]) -> Sequence[Case]:
    """The first of these answers, up to a number of characters. Answers without a verdict before a kill are
    sent again.
    """
    size, count = 0, 0
    while count < len(cases) and (count == 0 or size < BATCH_CHARACTERS):
        size += len(cases[count].text) + len(cases[count].row)
        count += 1
    return cases[:count]


def process_verifier(settings: VerifySettings) -> Verifier:
    """The verifier of this process. There is only one, because starting the child takes longer than checking
    a thousand answers.
    """
    function = settings.function
    return _verifier_of(settings, source_of(function, load_function(function)) if function else "")


@lru_cache(maxsize=1)
def _verifier_of(settings: VerifySettings, _source: str) -> Verifier:
    return Verifier(settings)
