"""Questions that a teacher writes. It is shown a task's description and some seed questions, and its texts
are searched for new questions. Each found question has exactly one state: it is kept, or says why not.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cluster.errors import BadInput
from cluster.models.messages import Prompt, plain
from cluster.seeds import derive_seed
from jobs.experiment.elicit import TAGGED, Elicit
from jobs.experiment.schema import Experiment
from jobs.files.overlap import text_of
from jobs.files.questions import Question
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.store import digest
from jobs.run.tables import KEY
from jobs.stages.answers import Ask, request_of
from jobs.stages.ask import Hosted, Wave, ask
from jobs.stages.hosted import Draw

# states of texts and of the questions found in them
KEPT, UNPARSED, UNTAGGED, DUPLICATE, KNOWN, SPARE = (
    "kept",
    "unparsed",
    "no_answer_tag",
    "duplicate",
    "known_item",
    "more_than_wanted",
)
FAILED, CUT_OFF = "failed", "cut_off"


@dataclass(frozen=True)
class TaskSet:
    """The user's questions of one task: those that the teacher is shown, and those that say what a student
    prefers.
    """

    seeds: tuple[Question, ...]
    validation: tuple[Question, ...]


def split_tasks(
    elicit: Elicit, questions: Mapping[str, Question], seed: int, method: str = ""
) -> dict[str, TaskSet]:
    """Divide the questions of each task by the seed.

    Args:
        method: the experiment's way of checking.

    Raises:
        BadInput: a task has too few questions, two of its questions have the same text, or one is checked in
            a way of its own.
    """
    found = {}
    for task in elicit.tasks:
        own = sorted(
            (q for q in questions.values() if q.family == task),
            key=lambda q: digest([seed, question_key(q.prompt).hex()]),
        )
        needed = elicit.seeds + elicit.validation
        if len(own) < needed:
            families = Counter(q.family for q in questions.values())
            raise BadInput(
                f"task {task} has too few questions in questions.train",
                f"{len(own)}; families there: {', '.join(sorted(f for f in families if f)) or 'none'}",
                f"{needed}: elicit.seeds {elicit.seeds} and elicit.validation {elicit.validation}",
                "lower these numbers, or name a family of the file as the task",
            )
        refuse_other_methods(own[:needed], method)
        refuse_alike(own[:needed])
        found[task] = TaskSet(tuple(own[: elicit.seeds]), tuple(own[elicit.seeds : needed]))
    return found


def refuse_other_methods(questions: Sequence[Question], method: str) -> None:
    """Refuse questions that are checked in a way of their own: what a teacher writes has none.

    Raises:
        BadInput: names one.
    """
    for question in questions:
        if question.method not in ("", method):
            raise BadInput(
                "arms of kind arte check all questions of a task alike",
                f"question {question.id}, method {question.method}",
                f"verify.method {method}",
                "leave the field method out of the questions' file",
            )


def refuse_alike(questions: Sequence[Question]) -> None:
    """Refuse questions that differ by case or white space alone: one could be a seed and the other an item.

    Raises:
        BadInput: names two.
    """
    seen: dict[int, str] = {}
    for question in questions:
        other = seen.setdefault(text_of(question.prompt), question.id)
        if other != question.id:
            raise BadInput(
                "two questions of a task have the same text",
                f"{other} and {question.id}: {question.text[:60]!r}",
                "separate seeds and validation questions",
                "remove one of them",
            )


@dataclass(frozen=True)
class Written:
    """What a teacher wrote: questions by id, and how many texts and questions are in each state, by task.

    Attributes:
        tagged: the results that the teacher wrote beside its questions, by id. Empty where there is none.
    """

    questions: dict[str, Question]
    tagged: dict[str, str]
    states: dict[str, Counter[str]]

    def ledger(self) -> Counter[str]:
        """The states of all tasks together."""
        return sum(self.states.values(), Counter())


@dataclass
class _Searching:
    """What has been found so far in one teacher's texts."""

    elicit: Elicit
    known: frozenset[int]
    system: str | None
    calls: dict[str, int]
    found: dict[str, dict[int, tuple[Question, str]]] = field(default_factory=dict)
    states: dict[str, Counter[str]] = field(default_factory=dict)

    def lacking(self, task: str) -> int:
        return self.elicit.questions - len(self.found.get(task, {}))

    def take(self, task: str, text: str, finish: str) -> None:
        """Search one text."""
        own, states = self.found.setdefault(task, {}), self.states.setdefault(task, Counter())
        if finish == "failed":
            states[FAILED] += 1
            return
        matches = [m for m in re.finditer(self.elicit.pattern, text) if (m["question"] or "").strip()]
        if not matches:
            states[UNPARSED] += 1
        for match in matches:
            if finish == "length" and match.end() == len(text):  # it may have gone on
                states[CUT_OFF] += 1
                continue
            said = match["question"].strip()
            tag = (match.groupdict().get("answer") or "").strip()
            question = question_of(task, said, self.system)
            key = text_of(question.prompt)
            state = self._state(own, key, tag)
            states[state] += 1
            if state == KEPT:
                own[key] = question, tag

    def _state(self, own: Mapping[int, tuple[Question, str]], key: int, tag: str) -> str:
        if key in self.known:
            return KNOWN
        if self.elicit.truth == TAGGED and not tag:
            return UNTAGGED
        if key in own:
            return DUPLICATE
        return KEPT if len(own) < self.elicit.questions else SPARE

    def written(self) -> Written:
        rows = [row for own in self.found.values() for row in own.values()]
        questions = {q.id: q for q, _ in rows}
        return Written(questions, {q.id: tag for q, tag in rows}, self.states)


def question_of(task: str, text: str, system: str | None) -> Question:
    """A question that a teacher wrote. Its id follows from its text."""
    identity = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Question(f"{task}-written-{identity}", plain(text, system), family=task)


def prompt_for(elicit: Elicit, task: str, seeds: Sequence[Question], count: int) -> str:
    """The text that asks for new questions of a task."""
    shown = "\n".join(example_of(elicit, q.text, q.reference) for q in seeds)
    said = {"description": elicit.tasks[task], "examples": shown, "count": str(count)}
    return re.sub(r"\{(description|examples|count)\}", lambda m: said[m[1]], elicit.prompt)


def example_of(elicit: Elicit, question: str, reference: str) -> str:
    """A question as it is shown to the teacher, and as the teacher should write it."""
    said = {"question": question, "reference": reference}
    return re.sub(r"\{(question|reference)\}", lambda m: said[m[1]], elicit.example)


def shown_in(elicit: Elicit, seeds: Sequence[Question], seed: int, *about: str | int) -> list[Question]:
    """The seed questions of one prompt. They follow from the seed and from what the prompt is for."""
    rng = np.random.default_rng(derive_seed(seed, "shown", *map(str, about)))
    return [seeds[i] for i in rng.permutation(len(seeds))[: elicit.shown]]


def write_questions(
    run: Run,
    e: Experiment,
    elicit: Elicit,
    teachers: Mapping[str, Hosted],
    tasks: Mapping[str, TaskSet],
    held_out: Sequence[Question],
    kind: str = "write questions",
) -> dict[str, Written]:
    """Ask teachers for questions, until every task has as many new ones as wanted, or no more calls are
    allowed. Returns label -> what was written. In a plan, teachers whose texts do not exist yet are left out.

    Args:
        teachers: by label. All get the same prompts.
        held_out: questions that nobody may learn from.
        kind: the work as users see it.
    """
    every = [q for own in tasks.values() for q in (*own.seeds, *own.validation)]
    known = frozenset(text_of(q.prompt) for q in (*every, *held_out))
    draw = Draw(elicit.temperature, elicit.top_p, elicit.max_new_tokens, derive_seed(e.seed, "written"))
    searches = {
        label: _Searching(elicit, known, e.questions.system, dict.fromkeys(tasks, 0)) for label in teachers
    }
    most = math.ceil(elicit.most_calls * elicit.questions / elicit.count)
    unfinished = set[str]()
    for number in range(100):
        asks = {
            label: asked
            for label, search in searches.items()
            if label not in unfinished and (asked := next_asks(e, elicit, tasks, search, most))
        }
        if not asks:
            break
        waves = {
            f"{label} {number}": Wave(teachers[label], draw, request_of(a for _, a in own))
            for label, own in asks.items()
        }
        views = ask(run, kind, waves, e.generate.shard_size)
        for label, own in asks.items():
            view = views[f"{label} {number}"]
            if not view.is_finished:
                unfinished.add(label)
                continue
            rows = view.read().set_index(KEY)
            for task, one in own:
                row = rows.loc[one.key]
                searches[label].take(task, str(row["text"]), str(row["finish"]))
    return {label: search.written() for label, search in searches.items() if label not in unfinished}


def next_asks(
    e: Experiment, elicit: Elicit, tasks: Mapping[str, TaskSet], search: _Searching, most: int
) -> list[tuple[str, Ask]]:
    """The next calls for the tasks that lack questions, with their tasks. Empty if no more calls are
    allowed.
    """
    asks = []
    for task, own in tasks.items():
        lacking, done = search.lacking(task), search.calls[task]
        # later waves ask for half as many again, because some texts give nothing
        wanted = math.ceil(lacking * (1.0 if done == 0 else 1.5) / elicit.count)
        for call in range(done, min(done + max(0, wanted), most)):
            shown = shown_in(elicit, own.seeds, e.seed, task, call)
            asks.append((task, Ask(plain(prompt_for(elicit, task, shown, elicit.count)), call)))
            search.calls[task] = call + 1
    return asks


def with_references(written: Written, references: Mapping[str, str]) -> dict[str, Question]:
    """The questions with their right results. Those without one are left out."""
    return {
        identity: replace(question, references=(references[identity],))
        for identity, question in written.questions.items()
        if references.get(identity)
    }


def naive_prompt(prompt: Prompt, elicit: Elicit) -> Prompt:
    """A question under the naive prompt."""
    return prompt.told(elicit.plain)
