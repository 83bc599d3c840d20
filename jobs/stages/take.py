"""Taking answers that exist: a file teacher's, read and checked here, in the same table as what others
answer.
"""

import hashlib
from collections.abc import Mapping

import pandas as pd

from cluster.errors import BadInput
from cluster.storage import local_copy
from jobs.experiment.teachers import FileTeacher
from jobs.files.answers import read_answers, refuse_other_texts
from jobs.files.questions import Question
from jobs.run.run import Planned, Run
from jobs.run.store import Stage, write_table
from jobs.stages.answers import ANSWER_COLUMNS, VERSION, Ask, answer_row


def take_file(
    run: Run, teacher: FileTeacher, questions: Mapping[str, Question], skip_broken_lines: bool
) -> Stage:
    """Read a file teacher's answers into the store. Answers to unknown questions are kept and counted by the
    ledger.

    Args:
        skip_broken_lines: say what is broken and leave it out, instead of stopping.

    Raises:
        BadInput: a broken line, or a question with another text than ours.
    """
    path = local_copy(teacher.path)
    found = read_answers(path, teacher.fields, run.terminal.say if skip_broken_lines else None)
    refuse_other_texts(found, questions, path)
    by_text = {q.text: q.id for q in questions.values()}
    rows = []
    for a in found:
        known = (
            a.question_id if a.question_id in questions else by_text.get(a.question_text or "", a.question_id)
        )
        rows.append(answer_row(teacher.name, Ask(known, "", None, a.sample), a.text, "stop"))
    table = pd.DataFrame(rows, columns=ANSWER_COLUMNS)
    twice = table["answer_id"].duplicated()
    if twice.any():
        raise BadInput(
            f"{path} answers one question under two ids",
            table.loc[twice, "question_id"].iloc[0],
            "one id a question",
            "",
        )
    content = hashlib.sha256(table.to_json(orient="records").encode("utf-8", "surrogatepass")).hexdigest()
    config = {"teacher": {"kind": "file", "name": teacher.name}}
    stage = run.note(teacher.name, run.store.stage("generate", VERSION, config, {"answers": content}))
    with run.claimed([stage]):
        if not stage.is_finished and run.mode == "make":
            write_table(stage.part("answers"), table)
            stage.finish(["answers"], answers=len(table), failed=0, prompt_tokens=0, answer_tokens=0, usd=0.0)
    if run.mode == "plan":
        left = None if stage.is_finished else f"read from {path.name}"
        run.planned.append(Planned(stage, teacher.name, left, "this process"))
    return stage
