"""The exceptions that a user can cause. Each says what happened, the value got, what was expected and what to
do.
"""


class TutelageError(Exception):
    """A failure that the user can mend. It is printed as one line; `--debug` shows the traceback.

    The four parts are positional arguments, so the exception pickles and crosses process borders unchanged.
    """

    def __init__(self, what: str, got: object = "", expected: str = "", remedy: str = "") -> None:
        super().__init__(what, str(got), expected, remedy)

    @property
    def what(self) -> str:
        return str(self.args[0])

    def __str__(self) -> str:
        what, got, expected, remedy = self.args
        parts = [what]
        if got:
            parts.append(f"got {got}")
        if expected:
            parts.append(f"expected {expected}")
        if remedy:
            parts.append(remedy)
        return "; ".join(parts)


class BadInput(TutelageError):
    """A file, key, value or model that cannot be used as it is."""


class Unrenderable(BadInput):
    """One row that cannot be rendered faithfully; `state` is its name in the ledger."""

    @property
    def state(self) -> str:
        return "unrenderable"


class NoRoom(TutelageError):
    """More CPUs, GPUs or memory asked for than the cluster has."""


class ShardFailed(TutelageError):
    """A shard could not be finished: its handler raised, or its worker died too often."""


def describe(error: BaseException) -> str:
    """An exception as text, for the reason of a row that is set aside: its type and message, on one line of
    at most 300 characters.
    """
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
