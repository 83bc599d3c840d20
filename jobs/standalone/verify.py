"""Verdicts on answers: in memory beside their references, or in a file whose rows hold both."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from jobs.files.answers import answer_and_references
from jobs.files.columns import id_of
from jobs.files.given import Column, Lists, Rows, read_checked
from jobs.files.layouts import answer_name
from jobs.files.refusals import LeftOut, Missing, NotUnderstood, warn_of
from jobs.files.rows import read_rows, unread_in
from jobs.files.values import whole
from jobs.run.progress import Terminal
from jobs.run.store import write_atomically
from selection.checking import Verifier
from selection.verification import METHODS, VerifySettings, reads_rows

VERDICT = ["verdict", "extracted", "reason"]
OTHER_FORMATS = (".parquet", ".csv", ".tsv", ".arrow", ".gz", ".zst", ".xlsx")  # nobody writes these here


def verify(
    answers: Lists | Rows,
    references: Column | None = None,
    method: str = "math",
    *,
    pattern: str | None = None,
    function: str | None = None,
    timeout_s: float = 5.0,
    tolerance: float = 0.0,
    answer_field: str | None = None,
    reference_field: str | None = None,
    verbose: bool = False,
) -> pd.DataFrame:
    """Whether answers are right. Each is checked in a process of its own, which a slow check cannot hang.

    Args:
        answers: as in `tutelage.score`: lists beside the references, or rows that hold both.
        references: one entry a question: a text, a number, or a list of which one is enough. Leave it out
            where the answers come as rows.
        method: `math`, `exact`, `numeric`, `choice`, or `function`.
        pattern: a regular expression whose one group is the final answer; None finds it as `docs/methods.md`
            says.
        function: `package.module:name` of your own check `(answer, reference) -> bool`, for method
            `function`. It has to be in a file, which another process can import.
        timeout_s: wall-clock limit of one check.
        tolerance: of `numeric`, relative.
        answer_field, reference_field: dotted paths of both in rows, where they are not found.
        verbose: show progress.

    Returns:
        One row an answer, in the order given. Of lists: `question_id` (the place, as text), `answer_id`,
        `teacher`, `answer` and the verdict; question and answer ids are those of `tutelage.score` on the same
        lists. Of rows: their own columns and the verdict. The verdict is `verdict` (`correct`, `wrong`,
        `unparsed`, `timed_out`, `checker_error`, `not_understood`), `extracted` (the final answer that was
        found) and `reason`; columns of these names in the rows are replaced. Of a frame the index is the
        frame's, and of Series with one answer a question it is theirs.

    Raises:
        BadInput: an unknown method, lists of different lengths, no row with an answer and a reference, a
            function that cannot be imported.

    Warns:
        UserWarning: some answers are neither correct nor wrong; says how many of each verdict.

    Example:
        >>> import tutelage
        >>> tutelage.verify(["A: 1/2", "A: 3"], ["0.5", "4"])["verdict"].tolist()  # doctest: +SKIP
        ['correct', 'wrong']
    """
    settings = VerifySettings(method, pattern, function, timeout_s, tolerance)  # type: ignore[arg-type]
    check_method(method, function)
    left_out, rows = LeftOut("answers"), read_checked(answers, references)
    how = Checking(settings, answer_field, reference_field)
    judged = list(judged_rows(rows, how, left_out, Terminal(quiet=not verbose)))
    left_out.refuse_all()
    table = pd.DataFrame([{"reason": ""} | row for row in judged])
    if references is not None:
        columns = (table[name] for name in ("teacher", "id", "sample"))
        ids = [answer_name(*names) for names in zip(*columns, strict=True)]
        table = table.assign(answer_id=ids).rename(columns={"id": "question_id", "completion": "answer"})
    own = [name for name in table.columns if name not in VERDICT]
    named = ["question_id", "answer_id", "teacher", "answer"] if references is not None else own
    warn_of(table["verdict"].tolist(), ("correct", "wrong"), "no verdict")
    if isinstance(answers, pd.DataFrame | pd.Series) and len(answers) == len(table):
        table.index = answers.index
    return table[[*named, *VERDICT]]


@dataclass(frozen=True)
class Checking:
    """How the rows of a source are checked, and where they keep an answer and its references."""

    settings: VerifySettings
    answer_field: str | None = None
    reference_field: str | None = None


def check_method(method: str, function: object = None) -> None:
    """Refuse a method that is none of a program's, and a function that it would not call.

    Raises:
        BadInput: with those that are.
    """
    if function is not None and method != "function":
        raise BadInput("--function", f"with method {method}", "--method function", "or leave it out")
    known = [name for name in METHODS if name not in ("none", "judge")]
    if method not in known:
        raise BadInput("--method", method, ", ".join(known), "")


@dataclass(frozen=True)
class VerifyOptions:
    """The options of `tutelage verify`."""

    answers: str | Path
    out: Path
    method: str
    answer_field: str | None
    reference_field: str | None
    pattern: str | None
    function: str | None
    timeout_s: float
    skip_broken_lines: bool
    only_correct: bool = False

    @property
    def checker(self) -> VerifySettings:
        """The checker's own settings."""
        return VerifySettings(
            method=self.method,  # type: ignore[arg-type]
            pattern=self.pattern,
            function=self.function,
            timeout_s=self.timeout_s,
        )


def verify_file(options: VerifyOptions) -> None:
    """Write every row with its verdict, and say how many of each there are.

    Raises:
        BadInput: an unknown method, no row with an answer and a reference, a defect of the file.
    """
    check_method(options.method, options.function)
    if options.out.suffix.lower() in OTHER_FORMATS:
        raise BadInput("--out is a file of JSON lines", options.out, "a name that ends in .jsonl", "")
    terminal, counts = Terminal(), Counter[str]()
    if unread := unread_in(str(options.answers)):
        terminal.say(unread)
    rows = list(read_rows(options.answers, terminal.say if options.skip_broken_lines else None))
    if not rows:
        raise BadInput(f"{options.answers} holds no rows", "", "rows of an answer and a reference", "")
    left_out = LeftOut(str(options.answers))
    how, lines = Checking(options.checker, options.answer_field, options.reference_field), []
    for judged in judged_rows(rows, how, left_out, terminal):
        counts[judged["verdict"]] += 1
        if options.only_correct and judged["verdict"] != "correct":
            continue
        lines.append(json.dumps(whole(judged), ensure_ascii=False, default=str))
    left_out.refuse_all()
    write_atomically(options.out, ("\n".join(lines) + "\n" if lines else "").encode("utf-8", "surrogatepass"))
    for line in left_out.first:
        terminal.say(line)
    kept = f" the {len(lines):,} correct rows to" if options.only_correct else ""
    terminal.say(f"{', '.join(f'{n:,} {s}' for s, n in counts.most_common())}; wrote{kept} {options.out}")


def judged_rows(
    rows: Sequence[tuple[str, dict[str, Any]]], how: Checking, left_out: LeftOut, terminal: Terminal
) -> Iterator[dict[str, Any]]:
    """Every row with its verdict, in order."""
    with Verifier(how.settings) as verifier, terminal.bar("verify", len(rows), "answers") as bar:
        for place, row in rows:
            yield judged_row(row, place, how, verifier, left_out)
            bar.advance()


def judged_row(
    row: dict[str, Any], place: str, how: Checking, verifier: Verifier, left_out: LeftOut
) -> dict[str, Any]:
    """A row with its verdict. One without an answer, or whose reference the method cannot read, is unparsed,
    with the reason. What an earlier check wrote into the row is gone.
    """
    row = {name: value for name, value in row.items() if name not in VERDICT}
    try:
        answer, references = answer_and_references(row, how.answer_field, how.reference_field)
        given = json.dumps(row, ensure_ascii=False, default=str) if reads_rows(how.settings) else ""
        verdict = verifier.check(answer, references, given)
        if verdict.state == "unreadable_reference":
            raise Unreadable(verdict.extracted, how.settings.method)
    except NotUnderstood as error:
        left_out.add(place, error, id_of(row))
        state = "unparsed" if isinstance(error, Missing | Unreadable) else "not_understood"
        return {**row, "verdict": state, "extracted": "", "reason": str(error)}
    left_out.taken += 1
    if verdict.state in ("checker_error", "timed_out"):
        return {**row, "verdict": verdict.state, "extracted": "", "reason": verdict.extracted}
    return {**row, "verdict": verdict.state, "extracted": verdict.extracted}


class Unreadable(NotUnderstood):
    """A reference that the method cannot read."""

    def __init__(self, why: str, method: str) -> None:
        super().__init__(f"a reference that the method cannot read: {why}")
        self.why, self.method = why, method

    def stopping(self, where: str) -> BadInput:
        return BadInput(f"{where}: {self.why}", self.method, "a method that reads it", "use --method exact")
