"""Verifying answers of one file whose rows hold an answer and a reference."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import BadInput
from jobs.files.answers import answer_and_references
from jobs.files.columns import id_of
from jobs.files.refusals import LeftOut, Missing, NotUnderstood
from jobs.files.rows import read_rows, unread_in
from jobs.run.progress import Terminal
from jobs.run.store import write_atomically
from selection.checking import Verifier
from selection.verification import METHODS, VerifySettings, reads_rows

OTHER_FORMATS = (".parquet", ".csv", ".tsv", ".arrow", ".gz", ".zst", ".xlsx")  # nobody writes these here


@dataclass(frozen=True)
class VerifyOptions:
    """The options of `tutelage verify`."""

    answers: Path
    out: Path
    method: str
    answer_field: str | None
    reference_field: str | None
    pattern: str | None
    function: str | None
    timeout_s: float
    skip_broken_lines: bool

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
    known = [method for method in METHODS if method not in ("none", "judge")]
    if options.method not in known:
        raise BadInput("--method", options.method, ", ".join(known), "")
    if options.out.suffix.lower() in OTHER_FORMATS:
        raise BadInput("--out is a file of JSON lines", options.out, "a name that ends in .jsonl", "")
    terminal, counts = Terminal(), Counter[str]()
    if unread := unread_in(str(options.answers)):
        terminal.say(unread)
    rows = list(read_rows(options.answers, terminal.say if options.skip_broken_lines else None))
    if not rows:
        raise BadInput(f"{options.answers} holds no rows", "", "rows of an answer and a reference", "")
    left_out = LeftOut(str(options.answers))
    with Verifier(options.checker) as verifier, terminal.bar("verify", len(rows), "answers") as bar:
        lines = []
        for place, row in rows:
            judged = judged_row(row, place, options, verifier, left_out)
            counts[judged["verdict"]] += 1
            lines.append(json.dumps(judged, ensure_ascii=False, default=str))
            bar.advance()
    left_out.refuse_all()
    write_atomically(options.out, ("\n".join(lines) + "\n" if lines else "").encode("utf-8", "surrogatepass"))
    for line in left_out.first:
        terminal.say(line)
    terminal.say(f"{', '.join(f'{n:,} {s}' for s, n in counts.most_common())}; wrote {options.out}")


def judged_row(
    row: dict[str, Any], place: str, options: VerifyOptions, verifier: Verifier, left_out: LeftOut
) -> dict[str, Any]:
    """A row with its verdict. One without an answer, or whose reference the method cannot read, is unparsed,
    with the reason.
    """
    try:
        answer, references = answer_and_references(row, options.answer_field, options.reference_field)
        given = json.dumps(row, ensure_ascii=False, default=str) if reads_rows(options.checker) else ""
        verdict = verifier.check(answer, references, given)
        if verdict.state == "unreadable_reference":
            raise Unreadable(verdict.extracted, options.method)
    except NotUnderstood as error:
        left_out.add(place, error, id_of(row))
        state = "unparsed" if isinstance(error, Missing | Unreadable) else "not_understood"
        return {**row, "verdict": state, "extracted": "", "reason": str(error)}
    left_out.taken += 1
    return {**row, "verdict": verdict.state, "extracted": verdict.extracted}


class Unreadable(NotUnderstood):
    """A reference that the method cannot read."""

    def __init__(self, why: str, method: str) -> None:
        super().__init__(f"a reference that the method cannot read: {why}")
        self.why, self.method = why, method

    def stopping(self, where: str) -> BadInput:
        return BadInput(f"{where}: {self.why}", self.method, "a method that reads it", "use --method exact")
