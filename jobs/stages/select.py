"""The stage `select`. One arm's rule turns costs into a choice. Every question and answer gets its state in
the ledger.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from jobs.experiment.arms.select import SelectArm
from jobs.files.questions import Question, Refused
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.slices import Made, Sliced, Task, do_tasks, joined, make_slices
from jobs.run.store import Stage, Store, write_table
from jobs.run.tables import unusual
from jobs.stages.pool import AnswerPool
from jobs.stages.questions import read_slice
from jobs.stages.score import PoolScores
from selection.costs import compute_cost
from selection.rules import RuleSettings, choose, is_sequential
from selection.teacher_costs import TEACHER_COSTS

VERSION = 4
# Parts with what one worker computed from all slices. Lineage reads the teachers' costs later; the other is
# only used here.
ALL, OF_TEACHERS = "of-all", "of-teachers"
# the state of a question, by the furthest state that an answer to it reached
OF_QUESTION = ("no_answer", "no_verified_answer", "no_scorable_answer", "left_out_by_rule", "selected")
REACHED = {"selected": 4, "not_selected": 3}
REACHED |= dict.fromkeys(("too_long", "unrenderable", "quarantined", "empty", "verified"), 2)
LEDGER_COLUMNS = ["kind", "id", "state", "teacher", "length_tokens", "reason"]


@dataclass(frozen=True)
class Choice:
    """A rule for choosing, and the seed of its draws."""

    arm: SelectArm
    seed: int


def select_stage(store: Store, choice: Choice, scores: PoolScores, pool: AnswerPool) -> Stage:
    """The stage that holds an arm's choice."""
    arm = choice.arm
    cost = arm.cost_settings
    config = {
        "cost": unusual(asdict(cost), {"window": 4, "beta": 1.0, "coefficients": ()}) if cost else None,
        "rule": {
            name: value
            for name, value in asdict(arm.rule_settings).items()
            # newer than the other settings, so its default is left out of the identity
            if name != "most_questions" or value is not None
        },
        "seed": choice.seed,
    }
    return store.stage("select", VERSION, config, {"scores": scores.id, "pool": pool.id})


def select_answers(run: Run, label: str, choice: Choice, pool: AnswerPool, scores: PoolScores) -> Sliced:
    """Choose an arm's training set from scored answers. Makes the tables `chosen` and `ledger`.

    Args:
        scores: the statistics under the student that chooses. Rules without a cost need them for lengths
            only.
    """
    stage = select_stage(run.store, choice, scores, pool)
    sliced = Sliced(stage, ("chosen", "ledger"), pool.count)
    if run.mode == "plan":
        run.note("select", label, stage)
        return sliced
    return make_slices(
        run,
        "select",
        label,
        sliced,
        SelectSlice(choice, pool, scores, stage),
        keeps=[OF_TEACHERS],
        before=partial(look_at_all, run, label, choice, pool, scores, stage),
        questions="questions",
        chosen="chosen",
    )


def look_at_all(
    run: Run, label: str, choice: Choice, pool: AnswerPool, scores: PoolScores, stage: Stage
) -> None:
    """Let one worker read all slices, if the arm needs it: for the teachers' costs, for a quantile of all
    costs, or for a rule whose choice for one question depends on other questions.
    """
    rule = choice.arm.rule_settings
    if pool.count == 1:
        return
    if choice.arm.cost in TEACHER_COSTS and not stage.has(OF_TEACHERS):
        task = Task(write_teacher_costs, (choice, pool, scores, stage))
        do_tasks(run, "select", label, [(OF_TEACHERS, task)])
    if (is_sequential(rule) or rule.threshold_quantile is not None) and not stage.has(ALL):
        task = Task(choose_from_all if is_sequential(rule) else find_quantile, (choice, pool, scores, stage))
        do_tasks(run, "select", label, [(ALL, task)])


def teacher_costs(arm: SelectArm, pool: AnswerPool, scores: PoolScores) -> dict[str, float]:
    """The teachers' costs, computed from all slices. Empty if the arm does not choose by them."""
    cost = arm.cost_settings
    if cost is None or cost.name not in TEACHER_COSTS:
        return {}
    usable = (scored[scored["state"] == "scored"] for scored in scores.each())
    return TEACHER_COSTS[cost.name](usable, pool.accuracy, cost)


def write_teacher_costs(choice: Choice, pool: AnswerPool, scores: PoolScores, stage: Stage) -> None:
    """Runs in a worker. Writes the teachers' costs."""
    found = teacher_costs(choice.arm, pool, scores)
    write_table(stage.part(OF_TEACHERS), pd.DataFrame({"teacher": list(found), "cost": list(found.values())}))


def known_teacher_costs(
    arm: SelectArm, pool: AnswerPool, scores: PoolScores, stage: Stage
) -> dict[str, float]:
    """The teachers' costs. In a run of several slices one worker has computed them before. Earlier versions
    did not store them.
    """
    if pool.count == 1 or arm.cost not in TEACHER_COSTS or not stage.has(OF_TEACHERS):
        return teacher_costs(arm, pool, scores)
    found = stage.read(OF_TEACHERS)
    return dict(zip(found["teacher"].tolist(), found["cost"].tolist(), strict=True))


def find_quantile(choice: Choice, pool: AnswerPool, scores: PoolScores, stage: Stage) -> None:
    """Runs in a worker. Writes the quantile of all costs."""
    known = known_teacher_costs(choice.arm, pool, scores, stage)
    costs = [with_costs(scored, choice.arm, known)["cost"].to_numpy() for scored in scores.each()]
    every = pd.Series(np.concatenate(costs))
    ceiling = float(every.quantile(choice.arm.rule_settings.threshold_quantile or 0.0))
    write_table(stage.part(ALL), pd.DataFrame({"ceiling": [ceiling if len(every) else math.inf]}))


def choose_from_all(choice: Choice, pool: AnswerPool, scores: PoolScores, stage: Stage) -> None:
    """Runs in a worker. Makes the choice of a rule whose choice for one question depends on earlier
    questions. Only the names,
    teacher and cost of each answer are held.
    """
    names, kept = Names({}, {}), []
    known = known_teacher_costs(choice.arm, pool, scores, stage)
    for number, scored in enumerate(scores.each()):
        own = names_by_key(scored, pool.told(number), read_slice(pool.questions, number))
        names = Names({**names.questions, **own.questions}, {**names.answers, **own.answers})
        kept.append(with_costs(scored, choice.arm, known)[["question_id", "answer_id", "teacher", "cost"]])
    every = joined(kept)
    chosen = choose_named(every, choice.arm.rule_settings, choice.seed, pool.accuracy, names)
    write_table(stage.part(ALL), chosen)


@dataclass(frozen=True)
class SelectSlice:
    """Runs in a worker. Makes an arm's choice among a slice's answers, and the state of every answer."""

    choice: Choice
    pool: AnswerPool
    scores: PoolScores
    stage: Stage

    def __call__(self, number: int) -> Made:
        questions, answers = read_slice(self.pool.questions, number), self.pool.told(number)
        scored = self.scores.slice(number)
        chosen = self._chosen(scored, answers, questions)
        refused = self.pool.refused if number == 0 else ()
        ledger = build_ledger(answers, refused, scored, chosen, list(questions))
        told = {"questions": len(questions), "chosen": len(chosen)}
        return Made({"chosen": chosen, "ledger": ledger}, told)

    def _chosen(
        self, scored: pd.DataFrame, answers: pd.DataFrame, questions: Mapping[str, Question]
    ) -> pd.DataFrame:
        choice, rule = self.choice, self.choice.arm.rule_settings
        if self.pool.count > 1 and is_sequential(rule):
            every = self.stage.read(ALL)
            return every[every["question_id"].isin(list(questions))].reset_index(drop=True)
        if self.pool.count > 1 and rule.threshold_quantile is not None:
            ceiling = float(self.stage.read(ALL)["ceiling"].iloc[0])
            rule = replace(rule, threshold=ceiling, threshold_quantile=None)
        names = names_by_key(scored, answers, questions)
        known = known_teacher_costs(choice.arm, self.pool, self.scores, self.stage)
        usable = with_costs(scored, choice.arm, known)
        return choose_named(usable, rule, choice.seed, self.pool.accuracy, names)


@dataclass(frozen=True)
class Names:
    """Names by id. A rule uses the names for random draws, ties and order, so that ids do not matter."""

    questions: Mapping[str, str]
    answers: Mapping[str, str]


def names_by_key(scored: pd.DataFrame, answers: pd.DataFrame, questions: Mapping[str, Question]) -> Names:
    """Names made from the keys of questions and answers, which follow from content. Questions with the same
    messages are numbered. Answers with the same text are distinguished by teacher, then by question id.

    Args:
        answers: the pool's answers, with their keys.
    """
    seen: Counter[bytes] = Counter()
    of_questions = {}
    for q in sorted(questions.values(), key=lambda q: q.id):
        key = question_key(q.prompt)
        of_questions[q.id] = f"{key.hex()}-{seen[key]}"
        seen[key] += 1
    content = dict(zip(answers["answer_id"].tolist(), answers["answer_key"].tolist(), strict=True))
    rows = (scored[c].tolist() for c in ("question_id", "answer_id", "teacher"))
    return Names(of_questions, {a: f"{content[a]} {t} {q}" for q, a, t in zip(*rows, strict=True)})


def with_costs(scored: pd.DataFrame, arm: SelectArm, of_teachers: Mapping[str, float]) -> pd.DataFrame:
    """The answers that could be scored, with their costs. The cost is 0 if the arm uses none."""
    usable = scored[scored["state"] == "scored"].reset_index(drop=True)
    costs = (
        compute_cost(usable, arm.cost_settings, of_teachers)
        if arm.cost_settings and len(usable)
        else pd.Series(0.0, index=usable.index)
    )
    return usable.assign(cost=costs)


def choose_named(
    usable: pd.DataFrame, rule: RuleSettings, seed: int, accuracy: Mapping[str, float], names: Names
) -> pd.DataFrame:
    """Apply a rule to answers with costs, using names in place of ids. Returns the choice with the ids."""
    answers, questions = usable["answer_id"].tolist(), usable["question_id"].tolist()
    named = [names.answers[a] for a in answers]
    ids = dict(zip(named, zip(questions, answers, strict=True), strict=True))
    keyed = usable.assign(question_id=[names.questions[q] for q in questions], answer_id=named)
    chosen = choose(keyed, rule, seed, accuracy)
    found = [ids[name] for name in chosen["answer_id"].tolist()]
    return chosen.assign(question_id=[q for q, _ in found], answer_id=[a for _, a in found])


def build_ledger(
    answers: pd.DataFrame,
    refused: Sequence[Refused],
    scored: pd.DataFrame,
    chosen: pd.DataFrame,
    questions: list[str],
) -> pd.DataFrame:
    """Build the ledger: one row for each question and each answer, in exactly one state, with the reason if
    there is one.

    States of answers: selected, not_selected, or an earlier state that ended them. States of questions:
    selected, left_out_by_rule, no_scorable_answer, no_verified_answer, no_answer. Rows of the questions' file
    that are no questions of the run: not_understood, or duplicate if an earlier row has the same question.

    Raises:
        RuntimeError: the totals do not add up.
    """
    ids, asked, teachers = (answers[c].tolist() for c in ("answer_id", "question_id", "teacher"))
    scored_ids = scored["answer_id"].tolist()
    why = dict(zip(ids, answers["error"].tolist(), strict=True))
    no_reference = answers[answers["state"] == "unreadable_reference"]
    why |= dict(zip(no_reference["answer_id"].tolist(), no_reference["extracted"].tolist(), strict=True))
    why |= dict(zip(scored_ids, scored["reason"].tolist(), strict=True))
    state = dict(zip(ids, answers["state"].tolist(), strict=True))
    for identity, s in zip(scored_ids, scored["state"].tolist(), strict=True):
        state[identity] = "not_selected" if s == "scored" else s
    state.update(dict.fromkeys(chosen["answer_id"].tolist(), "selected"))
    lengths = dict(zip(scored_ids, scored["n_answer"].astype(int).tolist(), strict=True))
    of_answers = {
        "kind": "answer",
        "id": ids,
        "state": [state[a] for a in ids],
        "teacher": teachers,
        "length_tokens": [lengths.get(a, 0) for a in ids],
        "reason": [why[a] for a in ids],
    }
    best: dict[str, int] = {}
    for question, s in zip(asked, of_answers["state"], strict=True):
        level = REACHED.get(s, 1)
        if level > best.get(question, 0):
            best[question] = level
    of_questions = [("question", q, OF_QUESTION[best.get(q, 0)], "", 0, "") for q in questions]
    of_questions += [("question", f"{r.id} (row)", r.state, "", 0, r.reason) for r in refused]
    ledger = joined([pd.DataFrame(of_questions, columns=LEDGER_COLUMNS), pd.DataFrame(of_answers)])
    check_balance(ledger, len(of_questions), len(answers), chosen)
    return ledger


def check_balance(ledger: pd.DataFrame, questions: int, answers: int, chosen: pd.DataFrame) -> None:
    """Check that every question and answer is in the ledger once, and that as many are selected as were
    chosen.

    Raises:
        RuntimeError: it is not so. The run stops, because something was lost or doubled.
    """
    if ledger.duplicated(["kind", "id"]).any():
        raise RuntimeError(
            f"the ledger holds {ledger[ledger.duplicated(['kind', 'id'])].iloc[0]['id']} twice"
        )
    counts = ledger["kind"].value_counts()
    if counts.get("question", 0) != questions or counts.get("answer", 0) != answers:
        raise RuntimeError(
            f"the ledger holds {dict(counts)}, not {questions} questions and {answers} answers"
        )
    in_ledger = ledger[ledger["state"] == "selected"]
    want = {"question": chosen["question_id"].nunique(), "answer": chosen["answer_id"].nunique()}
    have = {kind: int((in_ledger["kind"] == kind).sum()) for kind in want}
    if have != want:
        raise RuntimeError(f"the ledger has {have} selected, the choice {want}")
    if (ledger["state"] == "verified").any():
        raise RuntimeError(
            "a verified answer was never scored: "
            + str(ledger.loc[ledger["state"] == "verified", "id"].iloc[0])
        )
