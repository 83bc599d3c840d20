"""Stage select: one arm's rule turns costs into a choice, and every question and answer gets its state in the
ledger.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd

from jobs.experiment.arms import Arm
from jobs.files.questions import Question
from jobs.run.keys import question_key
from jobs.run.run import Run
from jobs.run.store import Stage, Store, write_table
from jobs.stages.pool import AnswerPool
from jobs.stages.score import Scores
from selection.costs import compute_cost
from selection.rules import choose

VERSION = 3
LEDGER_COLUMNS = ["kind", "id", "state", "teacher", "length_tokens", "reason"]


@dataclass(frozen=True)
class Choice:
    """A rule to choose by, and the seed of what it draws."""

    arm: Arm
    seed: int


def select_stage(store: Store, choice: Choice, scores: Scores, pool: AnswerPool) -> Stage:
    """The stage that holds an arm's choice."""
    arm = choice.arm
    config = {
        "cost": asdict(arm.cost_settings) if arm.cost_settings else None,
        "rule": asdict(arm.rule_settings),
        "seed": choice.seed,
    }
    return store.stage("select", VERSION, config, {"scores": scores.id, "pool": pool.id})


def select_answers(
    run: Run,
    label: str,
    choice: Choice,
    pool: AnswerPool,
    questions: Mapping[str, Question],
    scores: Scores,
) -> Stage:
    """Choose an arm's training set from scored answers; writes `chosen` and `ledger`.

    Args:
        questions: all that were asked.
        scores: of the student that chooses; rules without a cost need them for lengths only.
    """
    stage = select_stage(run.store, choice, scores, pool)
    run.note("select", label, stage)
    with run.claimed([stage]):
        if not stage.is_finished and run.mode == "make":
            scored = scores.read()
            chosen = choose_by_key(scored, choice, pool.accuracy, names_by_key(scored, pool, questions))
            ledger = build_ledger(pool, scored, chosen, list(questions))
            write_table(stage.part("chosen"), chosen)
            write_table(stage.part("ledger"), ledger)
            stage.finish(["chosen", "ledger"], questions=len(questions), chosen=len(chosen))
    return stage


@dataclass(frozen=True)
class Names:
    """What draws, ties and the order of a choice follow in place of ids, by id."""

    questions: Mapping[str, str]
    answers: Mapping[str, str]


def names_by_key(scored: pd.DataFrame, pool: AnswerPool, questions: Mapping[str, Question]) -> Names:
    """Names from the keys of questions and answers, which are content: the questions' messages, numbered
    where several questions have the same, and the answers' texts, parted by teacher where they are the same.
    """
    seen: Counter[bytes] = Counter()
    of_questions = {}
    for q in sorted(questions.values(), key=lambda q: q.id):
        key = question_key(q.prompt)
        of_questions[q.id] = f"{key.hex()}-{seen[key]}"
        seen[key] += 1
    content = dict(zip(pool.answers["answer_id"], pool.answers["answer_key"], strict=True))
    rows = zip(scored["question_id"], scored["answer_id"], scored["teacher"], strict=True)
    return Names(of_questions, {a: f"{content[a]} {t} {q}" for q, a, t in rows})


def choose_by_key(
    scored: pd.DataFrame, choice: Choice, accuracy: Mapping[str, float], names: Names
) -> pd.DataFrame:
    """Apply an arm's rule with names in place of ids; returns the choice with the ids."""
    arm = choice.arm
    usable = scored[scored["state"] == "scored"].reset_index(drop=True)
    costs = (
        compute_cost(usable, arm.cost_settings)
        if arm.cost_settings and len(usable)
        else pd.Series(0.0, index=usable.index)
    )
    named = [names.answers[a] for a in usable["answer_id"]]
    ids = dict(zip(named, zip(usable["question_id"], usable["answer_id"], strict=True), strict=True))
    keyed = usable.assign(
        cost=costs, question_id=[names.questions[q] for q in usable["question_id"]], answer_id=named
    )
    chosen = choose(keyed, arm.rule_settings, choice.seed, accuracy)
    found = [ids[name] for name in chosen["answer_id"]]
    return chosen.assign(question_id=[q for q, _ in found], answer_id=[a for _, a in found])


def build_ledger(
    pool: AnswerPool, scored: pd.DataFrame, chosen: pd.DataFrame, questions: list[str]
) -> pd.DataFrame:
    """One row per question and per answer, each in exactly one state, with the reason where there is one.

    Answers: selected, not_selected, or what ended them earlier. Questions: selected, left_out_by_rule,
    no_scorable_answer, no_verified_answer, no_answer, and not_understood for the rows of which no question
    could be made.

    Raises:
        RuntimeError: the totals do not add up.
    """
    answers = pool.answers
    why = dict(zip(answers["answer_id"], answers["error"], strict=True))
    why |= dict(zip(scored["answer_id"], scored["reason"], strict=True))
    state = dict(zip(answers["answer_id"], answers["state"], strict=True))
    for identity, s in zip(scored["answer_id"], scored["state"], strict=True):
        state[identity] = "not_selected" if s == "scored" else s
    state.update(dict.fromkeys(chosen["answer_id"], "selected"))
    lengths = dict(zip(scored["answer_id"], scored["n_answer"].astype(int), strict=True))
    rows = [
        ("answer", a, state[a], t, lengths.get(a, 0), why[a])
        for a, t in zip(answers["answer_id"], answers["teacher"], strict=True)
    ]
    best: dict[str, int] = {}
    order = ["no_answer", "no_verified_answer", "no_scorable_answer", "left_out_by_rule", "selected"]
    for identity, question in zip(answers["answer_id"], answers["question_id"], strict=True):
        s = state[identity]
        level = {
            "selected": 4,
            "not_selected": 3,
            "too_long": 2,
            "unrenderable": 2,
            "quarantined": 2,
            "empty": 2,
            "verified": 2,
        }.get(s, 1)
        best[question] = max(best.get(question, 0), level)
    asked = [("question", q, order[best.get(q, 0)], "", 0, "") for q in questions]
    asked += [("question", f"{r.id} (row)", "not_understood", "", 0, r.reason) for r in pool.refused]
    ledger = pd.DataFrame(asked + rows, columns=LEDGER_COLUMNS)
    check_balance(ledger, len(asked), len(answers), chosen)
    return ledger


def check_balance(ledger: pd.DataFrame, questions: int, answers: int, chosen: pd.DataFrame) -> None:
    """Every question and answer once, in one final state, and as many selected as chosen.

    Raises:
        RuntimeError: otherwise; the run stops, because something was lost or doubled.
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
