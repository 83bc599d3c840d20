"""Taking answers that exist: a file teacher's, read and checked here, in the columns of others' answers."""

from collections.abc import Mapping

import pandas as pd

from cluster.errors import BadInput
from cluster.storage import local_copy
from jobs.experiment.teachers import FileTeacher
from jobs.files.answers import read_answers, refuse_other_texts
from jobs.files.questions import Question
from jobs.files.rows import OnBroken
from jobs.stages.answers import Answer, table_of


def take_file(teacher: FileTeacher, questions: Mapping[str, Question], on_broken: OnBroken) -> pd.DataFrame:
    """A file teacher's answers, with question_id and sample. Answers to unknown questions are kept and
    counted by the ledger.

    Args:
        on_broken: told what is broken and left out; None stops instead.

    Raises:
        BadInput: a broken line, or a question with another text than ours.
    """
    path = local_copy(teacher.path)
    found = read_answers(path, teacher.fields, on_broken)
    refuse_other_texts(found, questions, path)
    by_text: dict[str, list[str]] = {}
    for q in questions.values():
        by_text.setdefault(q.text, []).append(q.id)
    ids = [
        [a.question_id] if a.question_id in questions else by_text.get(a.question_text or "", [a.question_id])
        for a in found
    ]
    table = table_of(Answer(a.text, "stop") for a in found)
    table = table.assign(question_id=pd.Series(ids, dtype=object), sample=[a.sample for a in found])
    table = table.explode("question_id", ignore_index=True)
    twice = table.duplicated(["question_id", "sample"])
    if twice.any():
        raise BadInput(
            f"{path} answers one question under two ids",
            table.loc[twice, "question_id"].iloc[0],
            "one id a question",
            "",
        )
    return table
