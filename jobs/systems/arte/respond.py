"""How models answer the validation items: after no, one, two and three drafts as demonstrations. It tells
which items tell students apart, and whether a student can learn from a demonstration at all.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import BadInput
from cluster.models.messages import plain
from jobs.experiment.elicit import Elicit
from jobs.experiment.schema import Experiment
from jobs.files.answers import Row
from jobs.files.questions import Question
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.run.tables import KEY
from jobs.stages.answers import Ask, request_of
from jobs.stages.ask import Hosted, Wave, ask
from jobs.stages.hosted import Draw
from jobs.stages.verify import Checked, read_verdicts, verdicts_on
from jobs.systems.arte.prefer import Drafts
from jobs.systems.arte.questions import TaskSet
from selection.preferences import standard_error
from selection.verification import Case

SHOTS = 4  # 0 to 3 demonstrations
LEAST_RIGHT = 0.02  # one-shot accuracy below which nearly all scores would be tied


@dataclass(frozen=True)
class Responses:
    """Verdicts on the validation items of each task: 1 where a respondent is right [respondents, items].

    Attributes:
        names: the respondents, in order: model and number of demonstrations.
    """

    names: list[tuple[str, int]]
    right: Mapping[str, np.ndarray]

    def of(self, model: str, shots: int) -> np.ndarray:
        """A model's verdicts on the items of all tasks."""
        place = self.names.index((model, shots))
        return np.concatenate([own[place] for own in self.right.values()])


def respond(
    run: Run,
    e: Experiment,
    elicit: Elicit,
    models: Mapping[str, Hosted],
    tasks: Mapping[str, TaskSet],
    drafts: Drafts,
) -> Responses | None:
    """Let models answer the validation items. None in a plan, if answers do not exist yet."""
    asks: dict[tuple[str, int], list[tuple[Question, Ask]]] = {}
    for task, own in tasks.items():
        shown = demonstrations(e, drafts, task)
        for shots in range(SHOTS):
            text = "".join(beginning(elicit, row) for row in shown[:shots])
            end = elicit.demonstration.partition("{item}")[2] if shots else ""
            asks[task, shots] = [
                (q, Ask(plain(text + q.text + end, e.questions.system), 0)) for q in own.validation
            ]
    draw = Draw(0.0, 1.0, e.evaluate.max_new_tokens, e.seed)
    request = request_of(one for own in asks.values() for _, one in own)
    views = ask(run, "respond", {m: Wave(h, draw, request) for m, h in models.items()}, e.generate.shard_size)
    if not all(view.is_finished for view in views.values()):
        return None
    given: list[Checked] = []
    names = [(model, shots) for model in models for shots in range(SHOTS)]
    for model, shots in names:
        rows = views[model].read().set_index(KEY)[["text", "finish"]]
        said = {key: text if finish == "stop" else "" for key, text, finish in rows.itertuples()}
        for task in tasks:
            given += [Checked(one.key[:8], Case(said[one.key], q.references)) for q, one in asks[task, shots]]
    view = verdicts_on(run, "verdicts on", "the validation items", e.verify, given)
    run.need("verdicts on", [view])
    verdicts = iter([float(v.state == "correct") for v in read_verdicts(view, given)])
    right: dict[str, list[list[float]]] = {task: [] for task in tasks}
    for _ in names:
        for task, own in tasks.items():
            right[task].append([next(verdicts) for _ in own.validation])
    return Responses(names, {task: np.array(own) for task, own in right.items()})


def demonstrations(e: Experiment, drafts: Drafts, task: str) -> list[Row]:
    """The drafts that are shown to respondents. They follow from the seed."""
    of_task = dict(zip(drafts.table["answer_id"], drafts.table["task"], strict=True))
    own = [row for row in drafts.rows if of_task[row.answer_id] == task]
    return sorted(own, key=lambda r: digest([e.seed, "shown", r.answer_id]))[: SHOTS - 1]


def beginning(elicit: Elicit, draft: Row) -> str:
    """A demonstration up to where the item stands."""
    before = elicit.demonstration.partition("{item}")[0]
    said = {"question": draft.prompt.text, "rationale": draft.answer}
    return re.sub(r"\{(question|rationale)\}", lambda m: said[m[1]], before)


def refuse_no_ability(responses: Responses, students: Sequence[str]) -> None:
    """Refuse signal `icl` for students that cannot use a demonstration: it makes their answers worse, or they
    are right so rarely that nearly all scores would be tied.

    Raises:
        BadInput: names the student, with both accuracies.
    """
    for student in students:
        none, one = responses.of(student, 0), responses.of(student, 1)
        change = one - none
        if change.mean() + 1.96 * standard_error(change.tolist()) < 0 or one.mean() < LEAST_RIGHT:
            raise BadInput(
                f"student {student} does not learn from a demonstration, so signal icl would be noise",
                f"{100 * none.mean():.1f} % of {len(none)} validation items right without one, "
                f"{100 * one.mean():.1f} % with one",
                "a student with in-context ability, from about 1B parameters up",
                "use signal influence, which takes a training step instead",
            )
