"""Teachers in the order of what their answers cost one student, and what speaks against believing it."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from jobs.results.outcome import Outcome
from jobs.results.tables import first_scored, scas_settings
from selection.costs import COSTS, COSTS_OF_STATISTICS, CostSettings, aslec_casl
from selection.ranking import Matched, agreement_table, match, order_table, stability_table
from selection.teacher_costs import casl

WRONG, OTHER_FAMILY = "wrong answers", "other family"
# costs of further measures, and the columns that each needs
FURTHER = {
    "local_naturalness": ("local_loss",),
    "ifd": ("alone_loss", "n_alone"),
    "aslec_drop": ("first_loss", "n_first"),
    "aslec_casl": ("first_loss", "n_first"),
    "gradient_norm": ("gradient_norm",),
}
CONTROLS = ("shortest", "longest", WRONG, OTHER_FAMILY)
JUDGED = ("correct", "wrong", "unparsed", "timed_out", "checker_error")
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
    """

    primary: str = "scas"
    scas_lambda: float = 0.5
    draws: int = 2000
    seed: int = 0
    families: Mapping[str, str] = field(default_factory=dict)
    student_family: str | None = None
    kin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranking:
    """Teachers in the order of every cost.

    Attributes:
        order: a row for each cost and teacher (`selection.ranking.order_table`), the primary cost first.
        agreement: Kendall's tau-b between costs, with intervals (`agreement_table`).
        stability: how orders hold on fewer questions (`stability_table`).
        teachers: a row for each teacher: `teacher`, `family`, `is_students_family`, `answered` (questions
            with a cost), `tokens` (mean of an answer on the shared questions), `right` (share of judged
            answers there; NaN if none was judged).
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


def rank_answers(answers: pd.DataFrame, student: str, settings: RankSettings) -> Ranking:
    """Rank the teachers of scored answers.

    Args:
        answers: one row an answer, as `tutelage.score` returns: `question_id`, `teacher`, `state` and the
            statistics of those that were scored. A column `verdict` says which are right.

    Raises:
        BadInput: an unknown cost or family, fewer than two teachers, no question that all answered.
    """
    every = sorted(answers["teacher"].unique())
    if unknown := sorted({*settings.families, *settings.kin} - set(every)):
        raise BadInput("a family or model of a teacher that has no answers", unknown[0], ", ".join(every), "")
    scored = answers.assign(n_answer=answers["n_answer"].where(answers["state"] == "scored"))
    shared = match(scored, [])
    own = scored[scored["question_id"].isin(set(shared.questions)) & scored["n_answer"].notna()]
    known = [*COSTS_OF_STATISTICS, *(c for c, needs in FURTHER.items() if set(needs) <= set(own))]
    if settings.primary not in known:
        raise BadInput("--cost", settings.primary, ", ".join(known), "")
    costs = [settings.primary, *(c for c in known if c != settings.primary)]
    own = own.assign(**{cost: costs_of(own, cost, settings.scas_lambda) for cost in costs})
    judged = _judged(own)
    if judged is not None:
        own, costs = own.assign(**{WRONG: judged}), [*costs, WRONG]
    matched = match(own, costs)
    families = [settings.families.get(t, t) for t in matched.teachers]
    if settings.student_family is not None and settings.families:
        others = np.array([float(f != settings.student_family) for f in families])
        values = {**matched.values, OTHER_FAMILY: np.repeat(others[:, None], len(matched.questions), 1)}
        matched = Matched(
            matched.teachers, matched.questions, values, matched.tokens, matched.logs, matched.unmatched
        )
    order = order_table(matched, settings.draws, settings.seed)
    agreement = agreement_table(matched, settings.draws, settings.seed, families)
    stability = stability_table(matched, settings.draws, settings.seed)
    teachers = _teachers(matched, shared, own, settings)
    ranking = Ranking(student, settings, order, agreement, stability, teachers, len(matched.questions), [])
    ranking.warnings.extend(_warnings(ranking, shared))
    return ranking


def rank_run(outcome: Outcome) -> dict[str, Ranking]:
    """The teachers of a run for each of its students, from the costs before training of right answers: all of
    them in a run of one slice, else those of the first slices. Students without such costs are left out, and
    so is everything if no question was answered rightly by all teachers.
    """
    e, found = outcome.start.experiment, dict[str, Ranking]()
    families = {t.name: getattr(t, "lineage", None) or t.family or "" for t in e.teachers}
    for student in e.students:
        paths = (path for path in outcome.paths if path.student == student.name)
        scores = next((s for path in paths if (s := outcome.scores(path, 1)) is not None), None)
        if scores is None:
            continue
        scored = first_scored(replace(scores, further=()))
        named = {t: f for t, f in families.items() if f and t in set(scored["teacher"])}
        lambda_ = scas_settings(outcome).scas_lambda
        settings = RankSettings("scas", lambda_, families=named, student_family=student.lineage)
        with contextlib.suppress(BadInput):  # one teacher alone, or no question that all of them answered
            found[student.name] = rank_answers(scored.assign(verdict="correct"), student.name, settings)
    return found


def costs_of(table: pd.DataFrame, cost: str, scas_lambda: float) -> pd.Series:
    """A cost of every answer. NaN where it is no finite number, which costs only that answer."""
    settings = CostSettings(cost, scas_lambda)  # type: ignore[arg-type]
    if cost == "aslec_casl":
        found = aslec_casl(table, casl([table], dict.fromkeys(table["teacher"], 1.0), settings))
    else:
        found = COSTS[cost](table, settings).astype(float)
    return found.where(np.isfinite(found))


def _judged(answers: pd.DataFrame) -> pd.Series | None:
    """1 for every answer that is not right. None unless all answers were judged and one is not right."""
    if "verdict" not in answers or not answers["verdict"].isin(JUDGED).all():
        return None
    wrong = (answers["verdict"] != "correct").astype(float)
    return wrong if wrong.any() else None


def _teachers(
    matched: Matched, shared: Matched, answers: pd.DataFrame, settings: RankSettings
) -> pd.DataFrame:
    known = answers[answers["question_id"].isin(set(matched.questions))]
    right = pd.Series(math.nan, index=list(matched.teachers))
    if "verdict" in known:
        judged = known[known["verdict"].isin(JUDGED)]
        is_right = (judged["verdict"] == "correct").astype(float)
        right = is_right.groupby(judged["teacher"]).mean().reindex(right.index)
    families = [settings.families.get(t, "") for t in matched.teachers]
    return pd.DataFrame(
        {
            "teacher": matched.teachers,
            "family": families,
            "is_students_family": [f != "" and f == settings.student_family for f in families],
            "answered": [len(shared.questions) + shared.unmatched[t] for t in matched.teachers],
            "tokens": matched.tokens.mean(axis=1),
            "right": right.to_numpy(float),
        }
    )


def _warnings(r: Ranking, shared: Matched) -> list[str]:
    return [*_of_chance(r), *_of_questions(r, shared), *_of_length(r), *_of_families(r), *_of_answers(r)]


def _of_chance(r: Ranking) -> list[str]:
    """Too few questions to tell the first teacher from others."""
    others = r.primary.iloc[1:]
    near = others[~(others["behind_low"] > 0)]
    if near.empty:
        return []
    first, names = r.primary["teacher"].iloc[0], ", ".join(near["teacher"])
    needed = near["questions_to_tell"].iloc[0]
    more = ""
    if math.isfinite(needed):
        more = (
            f" If the difference is as seen, about {needed:,.0f} questions would tell {first} from the next."
        )
    return [
        f"{r.settings.primary} does not tell {first} from {names}: the intervals of differences hold 0.{more}"
    ]


def _of_questions(r: Ranking, shared: Matched) -> list[str]:
    """Questions that not all teachers answered."""
    most = int(r.teachers["answered"].max())
    if most == r.questions:
        return []
    told = f"only {r.questions:,} of up to {most:,} questions have answers with a cost from all teachers"
    if shared.instead is not None:
        told += f"; without {shared.instead[0]} it would be {shared.instead[1]:,}"
    return [told]


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
    if right.empty:
        return ["no answer was checked: a teacher of wrong answers may be first"]
    first = r.primary["teacher"].iloc[0]
    if first not in right or right.max() - right[first] < WORSE:
        return []
    return [
        f"{first} is right on {right[first]:.0%} of its answers, {right.idxmax()} on {right.max():.0%}: "
        "costs do not see that"
    ]
