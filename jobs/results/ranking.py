"""Teachers in the order of what their answers cost one student, and what speaks against believing it."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from jobs.results.judged import named_clusters
from jobs.results.outcome import Outcome
from jobs.results.tables import first_scored, scas_settings
from jobs.stages.scorer import beyond_line
from selection.agreement import agreement_table, stability_table
from selection.costs import COSTS, COSTS_OF_STATISTICS, CostSettings, aslec_casl
from selection.ranking import Matched, match, order_table
from selection.teacher_costs import casl

WRONG, OTHER_FAMILY = "wrong answers", "other family"
CLUSTER, UNIT = "cluster", "_unit"  # what questions share; what counts as one question
# costs of further measures, and the columns that each needs
FURTHER = {
    "local_naturalness": ("local_loss",),
    "ifd": ("alone_loss", "n_alone"),
    "aslec_drop": ("first_loss", "n_first"),
    "aslec_casl": ("first_loss", "n_first"),
    "gradient_norm": ("gradient_norm",),
}
TURN_OF = r"/turn \d+$"  # the end of the id of a turn that is an answer of its own
CONTROLS = ("shortest", "longest", WRONG, OTHER_FAMILY)
JUDGED = ("correct", "wrong", "unparsed", "timed_out", "checker_error")
FEW = 20  # questions
LIKE_LENGTH = 0.6  # a tau with length from which an order is said to be that of length
FEWEST_FOR_TAU = 4  # teachers
VERBOSE = 1.5  # times as many tokens
WORSE = 0.1  # of answers, how many more are wrong


@dataclass(frozen=True)
class RankSettings:
    """How teachers are ranked.

    Attributes:
        primary: the cost that the summary speaks of.
        families: teacher -> the family of its model. Teachers without one are families of their own.
        student_family: the student's, if it is known.
        kin: teacher -> in what its tokenizer is the student's: vocabulary, chat template, or both. Empty if
            in nothing.
        are_right: whether only right answers are ranked, so that nothing is said of wrong ones.
    """

    primary: str = "scas"
    scas_lambda: float = 0.5
    draws: int = 2000
    seed: int = 0
    families: Mapping[str, str] = field(default_factory=dict)
    student_family: str | None = None
    kin: Mapping[str, str] = field(default_factory=dict)
    are_right: bool = False


@dataclass(frozen=True)
class Ranking:
    """Teachers in the order of every cost.

    Attributes:
        order: a row for each cost and teacher (`selection.ranking.order_table`), the primary cost first.
        agreement: Kendall's tau-b between costs, with intervals (`agreement_table`).
        stability: how orders hold on fewer questions (`stability_table`).
        teachers: a row for each teacher: `teacher`, `family`, `is_students_family`, `given` (its answers),
            `lost` (how many of them have no cost, by state), `answered` (questions with a cost), `tokens`
            (mean of an answer on the shared questions), `right` (share of judged answers there; NaN if none
            was judged).
        questions: how many all teachers answered.
        warnings: what speaks against believing the order.
    """

    student: str
    settings: RankSettings
    order: pd.DataFrame
    agreement: pd.DataFrame
    stability: pd.DataFrame
    teachers: pd.DataFrame
    questions: int
    warnings: list[str]

    @property
    def primary(self) -> pd.DataFrame:
        """The order of the primary cost."""
        return self.order[self.order["cost"] == self.settings.primary].reset_index(drop=True)


def refuse_unscored(answers: pd.DataFrame) -> None:
    """Refuse teachers of whom no answer could be scored: nobody could be ranked with them.

    Raises:
        BadInput: names the teachers, what became of their answers, and the first reason.
    """
    is_scored = answers["state"] == "scored"
    without = sorted(set(answers["teacher"]) - set(answers["teacher"][is_scored]))
    if not without:
        return
    lost = answers[answers["teacher"].isin(without)]
    states = ", ".join(f"{n} {state}" for state, n in lost["state"].value_counts().items())
    reasons = [str(text) for text in lost["reason"] if text] if "reason" in lost else []
    told = f"{', '.join(without[:4])}: {states}" + (f"; {reasons[0][:200]}" if reasons else "")
    raise BadInput("no answer of a teacher could be scored", told, "one at least of each teacher", "")


def rank_answers(answers: pd.DataFrame, student: str, settings: RankSettings) -> Ranking:
    """Rank the teachers of scored answers.

    Args:
        answers: one row an answer, as `tutelage.score` returns: `question_id`, `teacher`, `state` and the
            statistics of those that were scored. A column `verdict` says which are right; it is empty for
            answers that were not judged. With a column `cluster`, questions of one cluster are not
            independent: a cluster counts as one question, with the mean over its answers. An empty one is a
            cluster of its own.

    Raises:
        BadInput: an unknown cost or family, fewer than two teachers, a teacher without a scored answer, no
            question that all answered.
    """
    answers = answers.assign(teacher=answers["teacher"].astype(str))
    answers = answers.assign(question_id=answers["question_id"].astype(str))
    answers = with_own_clusters(answers)
    matched, own = matched_of(answers, settings)
    families = [settings.families.get(t, t) for t in matched.teachers]
    order = order_table(matched, settings.draws, settings.seed)
    agreement = agreement_table(matched, settings.draws, settings.seed, families)
    stability = stability_table(matched, settings.draws, settings.seed)
    teachers = _teachers(matched, answers, own, settings)
    ranking = Ranking(student, settings, order, agreement, stability, teachers, len(matched.questions), [])
    if "reason" in answers and (line := beyond_line(answers["reason"])):
        ranking.warnings.append(line)
    questions, units = (answers[name].replace("", None).nunique() for name in ("question_id", UNIT))
    if (answers[UNIT] != answers["question_id"]).any():
        told = f"{questions:,} questions in {units:,} clusters: each cluster counts as one question"
        ranking.warnings.append(told)
    ranking.warnings.extend(_warnings(ranking, matched, units))
    return ranking


def with_own_clusters(answers: pd.DataFrame) -> pd.DataFrame:
    """Answers with a column that says what counts as one question: the cluster of their question if it has
    one.
    """
    own = answers["question_id"]
    if CLUSTER not in answers:
        return answers.assign(**{UNIT: own})
    named = answers[CLUSTER].fillna("").astype(str)
    return answers.assign(**{UNIT: own.where(named == "", "cluster " + named)})


def matched_of(answers: pd.DataFrame, settings: RankSettings) -> tuple[Matched, pd.DataFrame]:
    """All costs of scored answers, on the questions that every teacher answered, and the answers to these
    questions.

    Raises:
        BadInput: as for `rank_answers`.
    """
    answers = answers if UNIT in answers else with_own_clusters(answers)
    every = sorted(answers["teacher"].unique())
    if unknown := sorted({*settings.families, *settings.kin} - set(every)):
        raise BadInput("a family or model of a teacher that has no answers", unknown[0], ", ".join(every), "")
    scored = answers.assign(n_answer=answers["n_answer"].where(answers["state"] == "scored"))
    refuse_unscored(answers)
    shared = match(scored, [])
    own = scored[scored["question_id"].isin(set(shared.questions)) & scored["n_answer"].notna()]
    further = [cost for cost, needs in FURTHER.items() if set(needs) <= set(own)]
    if settings.primary not in (*COSTS_OF_STATISTICS, *further):
        raise BadInput("--cost", settings.primary, ", ".join((*COSTS_OF_STATISTICS, *further)), "")
    every_cost = (*COSTS_OF_STATISTICS, *further)
    own = own.assign(**{cost: costs_of(own, cost, settings.scas_lambda) for cost in every_cost})
    own = own.assign(**{WRONG: _wrong(own), "question_id": own[UNIT]})
    matched = match(own, COSTS_OF_STATISTICS, [*further, *([WRONG] if own[WRONG].any() else [])])
    if settings.primary not in matched.values:
        raise BadInput(
            f"the cost {settings.primary} is not known for all teachers",
            f"lacking on {matched.left_out[settings.primary]:,} of {len(matched.questions):,} questions",
            "a value for each teacher and question",
            "take another cost",
        )
    costs = [settings.primary, *(c for c in matched.values if c != settings.primary)]
    values = {cost: matched.values[cost] for cost in costs}
    families = [settings.families.get(t, t) for t in matched.teachers]
    if settings.student_family is not None and settings.families:
        others = np.array([float(not _same(f, settings.student_family)) for f in families])
        values[OTHER_FAMILY] = np.repeat(others[:, None], len(matched.questions), 1)
    lost = own[UNIT].nunique() - len(matched.questions)
    unmatched = {teacher: count + lost for teacher, count in shared.unmatched.items()}
    return replace(matched, values=values, unmatched=unmatched, instead=shared.instead), own


def rank_run(outcome: Outcome) -> dict[str, Ranking]:
    """The teachers of a run for each of its students, from the costs before training of right answers: all of
    them in a run of one slice, else those of the first slices. Students without such costs are left out, and
    so is everything if no question was answered rightly by all teachers.
    """
    e, found = outcome.start.experiment, dict[str, Ranking]()
    families = {t.name: getattr(t, "lineage", None) or t.family or "" for t in e.teachers}
    clusters = named_clusters([*outcome.start.questions.values()])
    for student in e.students:
        scores = outcome.first_scores(student.name)
        if scores is None:
            continue
        scored = first_scored(replace(scores, further=()))
        if clusters:
            scored = scored.assign(**{CLUSTER: scored["question_id"].map(clusters)})
        named = {t: f for t, f in families.items() if f and t in set(scored["teacher"])}
        lambda_ = scas_settings(outcome).scas_lambda
        settings = RankSettings(
            "scas", lambda_, families=named, student_family=student.lineage, are_right=True
        )
        with contextlib.suppress(BadInput):  # one teacher alone, or no question that all of them answered
            ranking = rank_answers(scored, student.name, settings)
            if outcome.start.pool.count > 1:
                ranking.warnings.append(f"it rests on the run's first {len(scored):,} right answers")
            found[student.name] = ranking
    return found


def costs_of(table: pd.DataFrame, cost: str, scas_lambda: float) -> pd.Series:
    """A cost of every answer. NaN where it is no finite number, which costs only that answer."""
    settings = CostSettings(cost, scas_lambda)  # type: ignore[arg-type]
    if cost == "aslec_casl":
        found = aslec_casl(table, casl([table], dict.fromkeys(table["teacher"], 1.0), settings))
    else:
        found = COSTS[cost](table, settings).astype(float)
    return found.where(np.isfinite(found))


def _wrong(answers: pd.DataFrame) -> pd.Series:
    """1 for every judged answer that is not right, 0 for right ones, NaN for those that were not judged."""
    if "verdict" not in answers:
        return pd.Series(math.nan, index=answers.index)
    wrong = (answers["verdict"] != "correct").astype(float)
    return wrong.where(answers["verdict"].isin(JUDGED))


def _same(family: str, other: str) -> bool:
    return family.casefold() == other.casefold()


def _teachers(
    matched: Matched, given: pd.DataFrame, scored: pd.DataFrame, settings: RankSettings
) -> pd.DataFrame:
    known = scored[scored["question_id"].isin(set(matched.questions))]
    whole = known["answer_id"].str.replace(TURN_OF, "", regex=True) if "answer_id" in known else known.index
    tokens = known.groupby(["teacher", "question_id", whole])["n_answer"].sum()
    tokens = tokens.groupby(level=[0, 1]).mean().groupby(level=0).mean()
    right = 1 - known[WRONG].groupby(known["teacher"]).mean()
    lost = given[given["state"] != "scored"]
    families = [settings.families.get(t, "") for t in matched.teachers]
    return pd.DataFrame(
        {
            "teacher": matched.teachers,
            "family": families,
            "is_students_family": [
                f != "" and settings.student_family is not None and _same(f, settings.student_family)
                for f in families
            ],
            "given": [int((given["teacher"] == t).sum()) for t in matched.teachers],
            "lost": [
                ", ".join(
                    f"{n} {s}" for s, n in lost.loc[lost["teacher"] == t, "state"].value_counts().items()
                )
                for t in matched.teachers
            ],
            "answered": [len(matched.questions) + matched.unmatched[t] for t in matched.teachers],
            "tokens": tokens.reindex(list(matched.teachers)).to_numpy(float),
            "right": right.reindex(list(matched.teachers)).to_numpy(float),
        }
    )


def _warnings(r: Ranking, matched: Matched, questions: int) -> list[str]:
    return [
        *_of_chance(r),
        *_of_questions(r, matched, questions),
        *_of_length(r),
        *_of_families(r),
        *_of_answers(r),
    ]


def _of_chance(r: Ranking) -> list[str]:
    """Too few questions to tell the first teacher from others."""
    if r.questions == 1:
        return ["one question: nothing is known of chance"]
    found = []
    if r.questions < FEW:
        found.append(f"{r.questions} questions are few: with other ones the order may be another")
    others = r.primary.iloc[1:]
    near = others[~others["told"]]
    if near.empty:
        return found
    first, names = r.primary["teacher"].iloc[0], ", ".join(near["teacher"])
    needed, more = near["questions_to_tell"].iloc[0], ""
    if math.isfinite(needed):
        more = (
            f" If the difference is as seen, about {needed:,.0f} questions would tell {first} from the next."
        )
    told = f"{r.settings.primary} does not tell {first} from {names}, all pairs of teachers taken together"
    return [*found, f"{told}.{more}"]


def _of_questions(r: Ranking, matched: Matched, questions: int) -> list[str]:
    """Questions that not all teachers answered, answers without a cost, and costs that were left out."""
    found = []
    if r.questions < questions:
        told = f"only {r.questions:,} of {questions:,} questions have answers with a cost from all teachers"
        if matched.instead is not None:
            told += f"; without {matched.instead[0]} it would be {matched.instead[1]:,}"
        found.append(told)
    for _, own in r.teachers.iterrows():
        if own["lost"]:
            found.append(f"answers of {own['teacher']} without a cost: {own['lost']}, of {own['given']:,}")
    for cost, count in matched.left_out.items():
        found.append(f"{cost} is left out: it is not known for some teacher on {count:,} of the questions")
    return found


def _of_length(r: Ranking) -> list[str]:
    """Orders that length may explain."""
    found, tokens = [], r.teachers.set_index("teacher")["tokens"]
    if tokens.max() > VERBOSE * tokens.min():
        ratio = tokens.max() / tokens.min()
        found.append(
            f"{tokens.idxmax()} writes {ratio:.1f} times as many tokens as {tokens.idxmin()}: with equally "
            "many answers a student trains on more of its tokens"
        )
    is_primary = (r.agreement["cost"] == r.settings.primary) & (r.agreement["with"] == "shortest")
    if r.settings.primary != "shortest" and len(r.teachers) >= FEWEST_FOR_TAU and is_primary.any():
        tau = float(r.agreement.loc[is_primary, "tau"].iloc[0])
        if abs(tau) >= LIKE_LENGTH:
            which = "shortest" if tau > 0 else "longest"
            found.append(
                f"the order of {r.settings.primary} is nearly that of length, the {which} first (tau "
                f"{abs(tau):.2f})"
            )
    even = r.primary.dropna(subset=["even_place"])
    if len(even) and even["even_place"].iloc[0] != 1:
        first = even.loc[even["even_place"] == 1, "teacher"].iloc[0]
        found.append(f"at equal length {first} is first and not {r.primary['teacher'].iloc[0]}")
    return found


def _of_families(r: Ranking) -> list[str]:
    """Costs of likelihood favour the student's own family."""
    own = r.teachers.loc[r.teachers["is_students_family"], "teacher"].tolist()
    like = [
        f"{teacher} has the student's {how}: it may be of the student's family"
        for teacher, how in sorted(r.settings.kin.items())
        if how and teacher not in own
    ]
    if r.settings.student_family is None and not r.settings.kin:
        return ["the student's family is not named, so nothing is known of teachers of its own family"]
    if not own:
        return like
    return [
        *like,
        f"{', '.join(own)}: of the student's own family ({r.settings.student_family}); what a model's "
        "relatives write is likelier to it, whether or not it learns more from that",
    ]


def _of_answers(r: Ranking) -> list[str]:
    """Wrong answers, which no cost of likelihood sees."""
    right = r.teachers.set_index("teacher")["right"].dropna()
    if r.settings.are_right:
        return []
    if right.empty:
        return ["no answer was checked: a teacher of wrong answers may be first"]
    first = r.primary["teacher"].iloc[0]
    if first not in right or right.max() - right[first] < WORSE:
        return []
    return [
        f"{first} is right on {right[first]:.0%} of its answers, {right.idxmax()} on {right.max():.0%}: "
        "costs do not see that"
    ]
