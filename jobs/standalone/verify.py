"""Verifying answers of one file whose rows hold an answer and a reference."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import BadInput
from jobs.files.answers import answer_and_reference
from jobs.files.rows import read_rows
from jobs.run.progress import Terminal
from jobs.run.store import write_atomically
from selection.checking import Verifier
from selection.verification import METHODS, VerifySettings, reads_rows


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
        BadInput: an unknown method, a row without an answer or a reference, a defect of the file.
    """
    known = [method for method in METHODS if method not in ("none", "judge")]
    if options.method not in known:
        raise BadInput("--method", options.method, ", ".join(known), "")
    settings = options.checker
    terminal, lines, counts = Terminal(), [], Counter[str]()
    rows = list(read_rows(options.answers, terminal.say if options.skip_broken_lines else None))
    with Verifier(settings) as verifier, terminal.bar("verify", len(rows), "answers") as bar:
        for number, row in rows:
            where = f"{options.answers} line {number}"
            answer, references = answer_and_reference(
                row, where, options.answer_field, options.reference_field
            )
            given = json.dumps(row, ensure_ascii=False, default=str) if reads_rows(settings) else ""
            verdict = verifier.check(answer, references, given)
            counts[verdict.state] += 1
            judged = {**row, "verdict": verdict.state, "extracted": verdict.extracted}
            lines.append(json.dumps(judged, ensure_ascii=False, default=str))
            bar.advance()
    write_atomically(options.out, ("\n".join(lines) + "\n" if lines else "").encode("utf-8", "surrogatepass"))
    terminal.say(f"{', '.join(f'{n:,} {s}' for s, n in counts.most_common())}; wrote {options.out}")
