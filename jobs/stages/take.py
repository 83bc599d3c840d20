"""Taking answers that exist: a file teacher's, read and checked here, in the columns of others' answers."""

from collections.abc import Callable, Mapping

import pandas as pd

from cluster.errors import BadInput
from jobs.experiment.teachers import FileTeacher
from jobs.files.answers import FoundAnswer, body_of, read_answers, refuse_other_texts
from jobs.files.questions import Question
from jobs.files.rows import OnBroken
from jobs.run.keys import question_key
from jobs.stages.answers import Answer, table_of


def take_file(
    teacher: FileTeacher,
    questions: Mapping[str, Question],
    on_broken: OnBroken,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """A file teacher's answers, with question_id and sample. Answers to unknown questions are kept and
    counted by the ledger.

    Args:
        on_broken: told what is broken and left out; None stops instead.
        say: told what was found.

    Raises:
        BadInput: a broken line, or a question with another text than ours.
    """
    read = read_answers(teacher.path, teacher.fields, on_broken, rows_of=teacher.rows_of)
    found = read.answers
    say(f"{teacher.name}: {read}")
    refuse_other_texts(found, questions, read.path)
    by_turns: dict[bytes | tuple[tuple[str, str], ...], list[str]] = {}
    for q in questions.values():
        by_turns.setdefault(question_key(q.prompt), []).append(q.id)
        by_turns.setdefault(body_of(q.prompt), []).append(q.id)
    ids = [_ids(a, questions, by_turns) for a in found]
    table = table_of(
        Answer(a.text, "refused" if a.problem else "stop", a.problem, tool_calls=a.calls) for a in found
    )
    table = table.assign(question_id=pd.Series(ids, dtype=object), sample=[a.sample for a in found])
    table = table.explode("question_id", ignore_index=True)
    twice = table.duplicated(["question_id", "sample"])
    if twice.any():
        raise BadInput(
            f"{read.path} answers one question under two ids",
            table.loc[twice, "question_id"].iloc[0],
            "one id a question",
            "",
        )
    return table


def _ids(
    answer: FoundAnswer,
    questions: Mapping[str, Question],
    by_turns: Mapping[bytes | tuple[tuple[str, str], ...], list[str]],
) -> list[str]:
    """The questions of ours that an answer is to: the one with its id; else those with the same turns; else,
    whatever the system text, the only one with the same other turns. Its own id where there is none.

    Raises:
        BadInput: several questions differ in their system text alone, and the answer has none of them.
    """
    if answer.question_id in questions or answer.prompt is None:
        return [answer.question_id]
    exact = by_turns.get(question_key(answer.prompt))
    if exact is not None:
        return exact
    near = by_turns.get(body_of(answer.prompt), [answer.question_id])
    if len({questions[q].prompt for q in near if q in questions}) > 1:
        raise BadInput(
            "an answer could be to several questions, which differ in their system text",
            ", ".join(near[:4]),
            "the question's id, or its system text",
            "",
        )
    return near
