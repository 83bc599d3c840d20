"""What a ranking of teachers reads: statistics and further measures of answers, their verdicts, and the
tokenizers of teachers.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from cluster.errors import BadInput
from cluster.models.loading import ModelSource, load_tokenizer
from cluster.models.rendering import Renderer
from jobs.files.answers import Row, answer_and_references, body_of
from jobs.files.columns import id_of, name_in
from jobs.files.given import Column, plain
from jobs.files.layouts import Answers, state_of
from jobs.files.questions import Question
from jobs.files.refusals import NotUnderstood
from jobs.files.values import as_text, is_nothing
from jobs.run.progress import Terminal
from jobs.stages.scorer import AnyScorer
from jobs.standalone.score import score_in_shards
from jobs.standalone.student import Student, open_student
from selection.answer_alone import Unconditioned
from selection.checking import Verifier
from selection.costs import CostSettings
from selection.gradients import Gradients
from selection.scoring import Scorer
from selection.steps import Steps
from selection.verification import VerifySettings
from selection.windows import Windows


@dataclass(frozen=True)
class Reading:
    """How a student reads answers in this process."""

    chat_template: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    max_length: int = 4096
    cut: bool = False


def read_answers_of(
    student: Student, how: Reading, rows: Sequence[Row], measures: Sequence[str], terminal: Terminal
) -> pd.DataFrame:
    """The statistics of all answers, and the columns of further measures. An answer that a measure failed for
    has no values in its columns.
    """
    with open_student(student, how.chat_template, "ours", how.dtype, how.device) as (model, renderer):
        scorer = Scorer(model, renderer.special_ids)
        for line in scorer.proof.lines.values():
            terminal.say(line)
        scores = score_in_shards(rows, renderer, scorer, how.max_length, terminal, cuts=how.cut)
        for name in measures:
            measure = MEASURES[name](model, renderer, scorer)
            table = score_in_shards(rows, renderer, measure, how.max_length, terminal, name)
            columns = [field.name for field in fields(measure.result)]
            table[columns] = table[columns].astype(float).where(table["state"] == "scored")
            scores = scores.join(table.set_index("answer_id")[columns], on="answer_id")
    return scores


# the further passes, by the name of their measure
MEASURES: dict[str, Callable[[Any, Renderer, Scorer], AnyScorer]] = {
    "sentences": lambda _, renderer, scorer: Windows(scorer, renderer.tokenizer, CostSettings().window),
    "alone": lambda _, renderer, scorer: Unconditioned(scorer, renderer.header_ids),
    "steps": lambda model, renderer, _: Steps(model, renderer.tokenizer, renderer.special_ids),
    "gradient": lambda model, renderer, _: Gradients(model, renderer.special_ids),
}


def check_beside(questions: Column | None, given: Column | None, what: str = "references") -> None:
    """Refuse references, or another column, that cannot be joined to the questions by place.

    Raises:
        BadInput: they are a text, there are no questions, or not as many.
    """
    if given is None:
        return
    if questions is None or isinstance(given, str):
        raise BadInput(
            f"{what} in a list, without a list of questions",
            str(given)[:40],
            f"both lists, or rows that hold their {what}",
            f"leave out {what} where answers come as rows",
        )
    if len(given) != len(questions):
        got = f"{len(given):,} and {len(questions):,}"
        raise BadInput(f"the {what} are not as many as the questions", got, "one entry a question", "")


def with_refused(scores: pd.DataFrame, found: Answers) -> pd.DataFrame:
    """The scores with a row for each answer that could not be understood, so that it is counted."""
    refused = [
        {"question_id": id_of(row) or "", "teacher": teacher, "state": state_of(reason), "reason": reason}
        for teacher, row, reason in found.refused
    ]
    return pd.concat([scores, pd.DataFrame(refused)], ignore_index=True) if refused else scores


def listed(references: Column) -> dict[str, tuple[str, ...]]:
    """References by the ids of listed questions, which are their places. A reference that is neither a value
    nor a list of values is none, and its question's answers are not checked.
    """
    found = {}
    for k, given in enumerate(references):
        own = plain(given)
        texts = [as_text(one) for one in (own if isinstance(own, list) else [own]) if not is_nothing(one)]
        found[str(k)] = () if None in texts else tuple(text for text in texts if text is not None)
    return found


def joined_to(found: Answers, questions: Sequence[Question]) -> tuple[dict[str, Question | None], str]:
    """The questions that answers belong to, by the answers' questions, and a line for the user about answers
    to another text. It is empty if there are none.

    Answers find their question by its id, otherwise by its turns. If the text under an id is another one, its
    answers are not checked.
    """
    by_id = {q.id: q for q in questions}
    bodies = Counter(body_of(q.prompt) for q in questions)
    by_body = {body: q for q in questions if bodies[body := body_of(q.prompt)] == 1}
    known, other = dict[str, Question | None](), list[str]()
    for row in found.rows:
        if row.question_id in known:
            continue
        own, asked = by_id.get(row.question_id), body_of(row.prompt)
        if own is not None and asked[: len(body := body_of(own.prompt))] != body:
            other.append(row.question_id)
            own = None
        elif own is None:
            own = by_body.get(asked)
        if own is not None or row.question_id in other:
            known[row.question_id] = own
    if not other:
        return known, ""
    many = f"{len(other):,} questions have another text under the same id, so their answers are not checked"
    return known, f"{many}: {', '.join(other[:4])}"


def clusters_in(found: Answers, field: str) -> dict[str, str]:
    """The clusters of questions, from the answers' own rows.

    Args:
        field: the column that names a cluster, as a dotted path.

    Raises:
        BadInput: no row has it.
    """
    clusters = dict[str, str]()
    for row in found.rows:
        named = name_in(found.sources[row.answer_id], field, ())
        if named is not None:
            clusters.setdefault(row.question_id, named)
    if not clusters:
        raise BadInput("--cluster is in no row", field, "a column of the answers, or of --questions", "")
    return clusters


def with_clusters(scores: pd.DataFrame, clusters: Mapping[str, str]) -> pd.DataFrame:
    """Scores with a column `cluster`, empty for questions without one."""
    return scores.assign(cluster=[clusters.get(q, "") for q in scores["question_id"].astype(str)])


def judged(
    scores: pd.DataFrame,
    found: Answers,
    references: Mapping[str, tuple[str, ...]],
    method: str,
    terminal: Terminal,
) -> pd.DataFrame:
    """The scores with a column `verdict`, empty where no reference is known or the method cannot read it.

    Args:
        references: by question. A question that is not there has those of its answers' own rows.
    """
    if method == "none" or "verdict" in scores:
        return scores
    known = {
        row.answer_id: _references_of(row.question_id, found.sources[row.answer_id], references)
        for row in found.rows
    }
    verdicts, scored = {}, set(scores.loc[scores["state"] == "scored", "answer_id"])
    to_check = [r for r in found.rows if known[r.answer_id] and r.answer_id in scored and r.is_last]
    if not to_check:
        return scores
    settings = VerifySettings(method)  # type: ignore[arg-type]
    with Verifier(settings) as verifier, terminal.bar("verify", len(to_check), "answers") as bar:
        for row in to_check:
            state = verifier.check(row.answer, known[row.answer_id]).state
            verdicts[row.answer_id] = "" if state == "unreadable_reference" else state
            bar.advance()
    return scores.assign(verdict=[verdicts.get(i, "") for i in scores["answer_id"]])


def _references_of(
    question: str, row: Mapping[str, object], references: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    if question in references:
        return references[question]
    try:
        return answer_and_references(row, None, None)[1]
    except NotUnderstood:
        return ()


def kin_of(
    student: Student | None, models: Mapping[str, str], chat_template: str | None = None
) -> dict[str, str]:
    """In what each teacher's tokenizer is the student's: vocabulary, chat template, or both.

    Raises:
        BadInput: there is no student, or a model that cannot be loaded.
    """
    if not models:
        return {}
    if student is None or student == "":
        raise BadInput("--teacher-model", "no student to compare with", "--student too", "")
    own = load_tokenizer(ModelSource(str(student))) if isinstance(student, str | Path) else student[1]
    template = Renderer(own, chat_template).template
    found = {}
    for teacher, path in models.items():
        other = load_tokenizer(ModelSource(path))
        alike = ["vocabulary"] if other.get_vocab() == own.get_vocab() else []
        with contextlib.suppress(BadInput):  # a base model has no template
            alike += ["chat template"] if Renderer(other).template == template else []
        found[teacher] = " and ".join(alike)
    return found
