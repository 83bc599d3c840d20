"""Verdicts of a model. An endpoint is asked a rubric about an answer. Its reply is an answer like any other:
it is journalled, paid for once and kept with its rationale.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from cluster.models.messages import Prompt, plain
from cluster.models.reasoning import split_reasoning
from jobs.experiment.judge import Judge
from jobs.run.run import Run
from jobs.run.tables import KEY, Owner, Request, SlicedRequest
from jobs.run.views import View
from jobs.stages.answers import Ask, request_of
from jobs.stages.ask import Wave, ask, ask_again, owner_of
from jobs.stages.hosted import Draw
from selection.verification import Verdict

ENDING = "\n\nThink it through, then end with a line of its own: `VERDICT: right` or `VERDICT: wrong`."
VERDICT = re.compile(r"[\W_]*VERDICT[\W_]*(right|wrong)[\W_]*", re.IGNORECASE)
JUDGE_FAILED = "the judge"  # begins the reason of an answer that the judge failed to check
PLACE = re.compile(r"\{(question|reference|answer)\}")
SHARD_SIZE = 128


@dataclass(frozen=True, slots=True)
class JudgeCase:
    """One answer that has to be judged."""

    prompt: Prompt
    references: tuple[str, ...]
    text: str
    calls: str = ""


@dataclass(frozen=True)
class Agreement:
    """How a judge's verdicts on a sample compare with a method's.

    Attributes:
        method: the method that the judge is compared with.
        counts: the number of answers by outcome: `both right`, `both wrong`, `judge only` (right by the judge
            alone), `method only`.
    """

    method: str
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def agreed(self) -> int:
        return self.counts.get("both right", 0) + self.counts.get("both wrong", 0)


def draw_of(judge: Judge) -> Draw:
    """How a judge is asked."""
    return Draw(0.0, 1.0, judge.max_new_tokens, 0)


def judge_owner(judge: Judge) -> Owner:
    """The owner of a judge's replies."""
    return owner_of(judge, draw_of(judge))


def asked_of(judge: Judge, case: JudgeCase) -> Ask:
    """The rubric about one answer. Placeholders are filled once: a text that looks like a placeholder itself
    is not filled again.
    """
    said = f"{split_reasoning(case.text)[1]}\n{case.calls}".strip()
    texts = {
        "question": written(case.prompt),
        "reference": "\nor\n".join(case.references),
        "answer": said or "(no answer after its reasoning)",
    }
    return Ask(plain(PLACE.sub(lambda found: texts[found[1]], judge.rubric) + ENDING), 0)


def written(prompt: Prompt) -> str:
    """A prompt as plain text. If it is one text, that text alone."""
    if prompt.is_plain and prompt.system is None:
        return prompt.text
    turns = [
        f"{t.role}: {t.content}" + "".join(f" [{c.name} {c.arguments}]" for c in t.tool_calls)
        for t in prompt.turns
    ]
    if prompt.tools:
        turns.insert(0, f"tools: {prompt.tools}")
    return "\n\n".join(turns)


def verdicts_of(
    run: Run, what: str, label: str, judge: Judge, cases: Sequence[JudgeCase]
) -> tuple[list[Verdict], View]:
    """Let the judge judge those answers that it has not judged yet.

    Args:
        what: the name of the work that needs the verdicts, for a plan's message.

    Raises:
        Unmade: in a plan, the judge is still to be asked.
    """
    asks = [asked_of(judge, case) for case in cases]
    view = judge_requested(run, what, label, judge, request_of(asks))
    told = said_by_judge(view.read())
    return [told[one.key] for one in asks], view


def judge_requested(run: Run, what: str, label: str, judge: Judge, request: Request | SlicedRequest) -> View:
    """Ask the judge those prompts that it has not been asked yet.

    Args:
        what: the name of the work that needs the verdicts, for a plan's message.

    Raises:
        Unmade: in a plan, the judge is still to be asked.
    """
    wave = Wave(judge, draw_of(judge), request)
    ask(run, "judge", {label: wave}, SHARD_SIZE)
    view = ask_again(run, label, wave, SHARD_SIZE, "judge")
    run.need(what, [view])
    return view


def said_by_judge(rows: pd.DataFrame) -> dict[bytes, Verdict]:
    """Turn the judge's replies into verdicts by key."""
    if rows.empty:
        return {}
    columns = zip(rows[KEY], rows["text"], rows["finish"], rows["error"], strict=True)
    return {key: read_verdict(text, finish, error) for key, text, finish, error in columns}


def read_verdict(text: str, finish: str, error: str) -> Verdict:
    """Read the verdict at the end of a judge's reply, with its reason.

    >>> read_verdict("6 is not 7.\\nVERDICT: wrong", "stop", "")
    Verdict(state='wrong', extracted='6 is not 7.')
    """
    if finish == "failed":
        return Verdict("checker_error", f"{JUDGE_FAILED} failed: {error}"[:300])
    said = split_reasoning(text)[1].strip()
    before, _, last = said.rpartition("\n")
    found = VERDICT.fullmatch(last)
    if found is None or finish == "length":
        why = "was cut off" if finish == "length" else "gave no verdict"
        return Verdict("checker_error", f"{JUDGE_FAILED} {why}: {said[-200:]}")
    return Verdict("correct" if found[1].lower() == "right" else "wrong", before.strip()[-300:])
