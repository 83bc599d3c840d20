"""From costs to a choice: of answers in memory, and of scored answers in the authors' layout."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from jobs.experiment.arms.select import READ_BY
from jobs.files.scores import SCORED_BY, read_scores
from jobs.files.selections import Ranking, in_group, ranked, write_manifest, write_selection
from jobs.files.values import is_no
from jobs.run.progress import Terminal
from jobs.standalone.numbers import number, whole
from selection.costs import COSTS_OF_STATISTICS, CostSettings, compute_cost
from selection.rules import RULES, RuleName, RuleSettings, WeightName, check_rule
from selection.rules import choose as choose_by_rule

KEYS = ("question_id", "answer_id", "teacher")


def choose(
    costs: pd.DataFrame,
    rule: RuleName = "groups",
    *,
    cost: str = "cost",
    groups: int = 5,
    group: int = 1,
    k: int = 1,
    weights: WeightName = "equal",
    teacher: str | None = None,
    temperature: float = 1.0,
    threshold: float | None = None,
    threshold_quantile: float | None = None,
    cap: float | None = None,
    most_questions: int | None = None,
    accuracy: Mapping[str, float] | None = None,
    seed: int = 0,
    compat: Literal["ours", "reference"] = "ours",
) -> pd.DataFrame:
    """Choose answers for every question.

    Args:
        costs: one row an answer, as `tutelage.score` returns them; `question_id` and the cost are enough.
            Rows without a finite cost are no candidates. With a column `verdict` only `correct` ones are.
        rule: `groups` (a draw from group `group` of `groups`; 1 is the cheapest), `minimum`, `top_k` (the `k`
            cheapest), `softmax` (a draw at a `temperature` in units of the cost), `random`, `round_robin`
            over teachers, `strongest` (the teacher with the best accuracy), `teacher` (only that one).
        cost: a column of costs, or the name of a cost that follows from the statistics in `costs`.
        weights: of the k of `top_k`: `equal`, or by `margin` over the cheapest one left out.
        threshold, threshold_quantile: a question whose cheapest answer costs more is left out.
        cap: no teacher answers more than this share of the questions, 0 to 1.
        most_questions: so many questions are kept, drawn by the seed.
        accuracy: share of questions, 0 to 1, that each teacher got right, for `strongest`; None takes it from
            the column `verdict`.
        seed: of the draws. Each question draws alone: other questions change nothing, but under `cap`,
            `most_questions` and `round_robin`.
        compat: `reference` leaves group 1 empty where a question has fewer answers than groups, as the
            program of the SCAS authors does.

    Returns:
        The chosen rows, in the order of their questions, with all their columns; before these `rank` (1 is
        the cheapest), `candidates` and `weight` (a question's weights sum to 1). Questions that the rule
        leaves out are absent.

    Raises:
        BadInput: an unknown rule, a parameter out of range, a column that is missing, no candidate.

    Example:
        >>> import tutelage
        >>> rows = {"question_id": ["q", "q"], "teacher": ["ann", "bob"], "cost": [2.0, 1.0]}
        >>> tutelage.choose(pd.DataFrame(rows), "minimum")["teacher"].tolist()
        ['bob']
    """
    if not isinstance(costs, pd.DataFrame):
        got = type(costs).__name__
        raise BadInput("costs are no table", got, "a DataFrame", "pandas.DataFrame(rows) makes one")
    seed = whole("seed", seed, 0)
    settings = RuleSettings(
        name=_known_rule(rule),
        groups=whole("groups", groups),
        group=whole("group", group),
        k=whole("k", k),
        weights=weights,
        teacher=teacher,
        temperature=number("temperature", temperature),
        threshold=None if threshold is None else number("threshold", threshold),
        threshold_quantile=None
        if threshold_quantile is None
        else number("threshold_quantile", threshold_quantile),
        cap=None if cap is None else number("cap", cap),
        compat=compat,
        most_questions=None if most_questions is None else whole("most_questions", most_questions),
    )
    for name, own in READ_BY.items():
        given = getattr(settings, name)
        if rule != own and given != getattr(RuleSettings(), name):
            raise BadInput(f"rule {rule} reads no {name}", given, f"rule {own}", f"leave out {name}")
    every = keyed(costs)
    right = every[every["verdict"] == "correct"] if "verdict" in every else every
    if len(every) and not len(right):
        got = ", ".join(sorted({repr(v) for v in every["verdict"]})[:4])
        expected = "correct in one row at least, as tutelage.verify writes it"
        raise BadInput("no verdict is correct", got, expected, "leave out the column to choose among all")
    pool = right.assign(_cost=cost_of(right, cost))
    pool = pool[np.isfinite(pool["_cost"])]
    if pool.empty:
        got = f"{len(costs):,} rows, {len(right):,} of them to choose from"
        raise BadInput("no answer with a finite cost", got, "one at least", "look at the column state")
    twice = pool["answer_id"][pool["answer_id"].duplicated()]
    if len(twice):
        raise BadInput("an answer_id comes twice", twice.iloc[0], "one row an answer", "drop duplicates")
    known = accuracy_of(every) if accuracy is None else _accuracies(accuracy)
    lacking = sorted(set(pool["teacher"]) - set(known)) if rule == "strongest" else []
    if lacking:
        expected = "a column verdict, or accuracy= of every teacher"
        raise BadInput("strongest knows no accuracy", ", ".join(lacking[:8]), expected, "")
    candidates = pool[list(KEYS)].assign(cost=pool["_cost"])
    return _with_columns(choose_by_rule(candidates, settings, seed, known), right, costs)


def _accuracies(given: Mapping[str, float]) -> dict[str, float]:
    """Each teacher's accuracy.

    Raises:
        BadInput: one is no number from 0 to 1. NaN comes from a mean over nothing.
    """
    if not isinstance(given, Mapping):
        given = getattr(given, "to_dict", dict)()  # a Series
    known = {str(teacher): number(f"accuracy of {teacher}", value) for teacher, value in given.items()}
    odd = next((teacher for teacher, value in known.items() if not 0 <= value <= 1), None)
    if odd is not None or not known:
        got = "nothing" if odd is None else known[odd]
        raise BadInput(f"accuracy of {odd or 'teachers'}", got, "a share, 0 to 1, of each teacher", "")
    return known


def _known_rule(rule: str) -> RuleName:
    if rule not in RULES:
        near = difflib.get_close_matches(rule, RULES, 1)
        raise BadInput("no such rule", rule, ", ".join(RULES), f"did you mean {near[0]}?" if near else "")
    return rule  # type: ignore[return-value]


def keyed(costs: pd.DataFrame) -> pd.DataFrame:
    """The rows under text ids, each with a teacher and an id.

    Raises:
        BadInput: no column of questions.
    """
    if "question_id" not in costs:
        got = ", ".join(map(str, costs.columns))
        raise BadInput("costs without their questions", got, "a column question_id", "add it")
    table = costs.reset_index(drop=True)
    if "teacher" not in table:
        table["teacher"] = "answers"
    table["question_id"], table["teacher"] = table["question_id"].map(str), table["teacher"].map(str)
    if "answer_id" not in table:
        number = table.groupby(["teacher", "question_id"]).cumcount().astype(str)
        table["answer_id"] = table["teacher"] + "/" + table["question_id"] + "/" + number
    return table


def cost_of(table: pd.DataFrame, cost: str) -> pd.Series:
    """A column of costs, or a cost that is computed from statistics; NaN where there is none.

    Raises:
        BadInput: neither.
    """
    if cost in table:
        return pd.to_numeric(table[cost], errors="coerce").astype(float)
    if cost not in COSTS_OF_STATISTICS or "n_answer" not in table:
        expected = "a column, or a cost of the statistics that tutelage.score returns"
        raise BadInput("no such cost", cost, expected, "name the column with cost=")
    with_statistics = table[table["n_answer"].notna()]
    found = compute_cost(with_statistics, CostSettings(cost))  # type: ignore[arg-type]
    return found.reindex(table.index)


def accuracy_of(table: pd.DataFrame) -> dict[str, float]:
    """Teacher -> the share of all questions that its first answer got right; empty without verdicts."""
    if "verdict" not in table:
        return {}
    first = table.drop_duplicates(["teacher", "question_id"])
    right = (first["verdict"] == "correct").groupby(first["teacher"]).sum() / table["question_id"].nunique()
    return {str(name): float(share) for name, share in right.items()}


def _with_columns(chosen: pd.DataFrame, candidates: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """The chosen rows as they were given, in the order of their questions."""
    places = pd.Series(candidates.index, index=candidates["answer_id"])
    first = candidates.groupby("question_id", sort=False).ngroup()
    at = places.loc[chosen["answer_id"].tolist()].to_numpy()
    order = np.lexsort((chosen["rank"].to_numpy(), first.loc[at].to_numpy()))
    given = costs.reset_index(drop=True).loc[at[order]].reset_index(drop=True)
    told = chosen[["rank", "candidates", "weight"]].iloc[order].reset_index(drop=True)
    return pd.concat([told, given.drop(columns=list(told), errors="ignore")], axis=1)


@dataclass(frozen=True)
class SelectOptions:
    """The options of `tutelage select`."""

    scores: Path
    out: Path
    score_key: str
    num_groups: int
    selected_group: int
    seed: int
    compat: str

    @property
    def rule(self) -> RuleSettings:
        """The draw from the selected group."""
        compat: Any = self.compat
        return RuleSettings("groups", self.num_groups, self.selected_group, compat=compat)


def select_from_files(options: SelectOptions) -> None:
    """Write both selected sets and say how many rows they have.

    Raises:
        BadInput: an option out of its range, a defect of a file.
    """
    check_rule(options.rule, set())
    if options.compat not in ("ours", "reference"):
        raise BadInput("--compat", options.compat, "ours or reference", "")
    terminal, key = Terminal(), options.score_key
    rows = of_one_text(read_scores(options.scores, key, terminal.say), terminal.say)
    if not rows:
        raise BadInput("no row has a score", options.scores, f"a number under {key} in one row at least", "")
    lambdas = {row.get("lambda_scas") for row in rows}
    if len(lambdas) > 1:
        several = ", ".join(sorted(map(str, lambdas)))
        terminal.say(
            f"beware: these scores were made with several lambdas ({several}), so they are no one cost: "
            "files of an earlier scoring may be left there"
        )
    students = {str(row[SCORED_BY]) for row in rows if SCORED_BY in row}
    if len(students) > 1:
        raise BadInput(
            f"{options.scores} holds scores of several students",
            ", ".join(sorted(students)),
            "scores of one",
            "remove the files of an earlier scoring, or score into another folder",
        )
    questions = ranked(rows, key, options.num_groups, options.compat)
    compared = sum(len({str(row["teacher_name"]) for row in own}) > 1 for own in questions.values())
    if len({str(row["teacher_name"]) for row in rows}) > 1 and 2 * compared < len(questions):
        terminal.say(
            f"beware: only {compared:,} of {len(questions):,} questions have answers of two teachers or "
            "more: texts or ids of the questions may differ between their files"
        )
    drawn = draw_from_groups(questions, options)
    minimum = options.out / "min_score_selected.jsonl"
    folder = options.out / f"{options.num_groups}_groups"
    group = folder / f"selected_group_{options.selected_group}.jsonl"
    write_selection(minimum, [own[0] for own in questions.values()], key)
    for place in range(1, options.num_groups + 1):
        write_selection(folder / f"group_{place}.jsonl", in_group(questions, place), key)
    write_selection(group, drawn, key)
    write_manifest(folder, key, options.num_groups, options.selected_group, options.seed, questions)
    cheapest = [own[0] for own in questions.values()]
    for file, kept in ((minimum, cheapest), (group, drawn)):
        if wrong := sum(map(says_wrong, kept)):
            terminal.say(
                f"beware: {wrong:,} of the {len(kept):,} rows of {file.name} say themselves that they are "
                "wrong (verdict, is_correct); leave such rows out before you score"
            )
    empty = len(questions) - len(drawn)
    note = f"; {empty:,} questions have no answer in group {options.selected_group}" if empty else ""
    terminal.say(
        f"{len(questions):,} questions; wrote {minimum}, {group} ({len(drawn):,} rows) "
        f"and every group beside it{note}"
    )


def says_wrong(row: Mapping[str, Any]) -> bool:
    """Whether a row has a column that calls its answer wrong."""
    verdict = row.get("verdict")
    is_told = isinstance(verdict, str) and verdict not in ("", "correct")
    return is_told or any(is_no(row.get(name)) for name in ("is_correct", "correct", "exact_match", "acc"))


def of_one_text(rows: Iterable[Mapping[str, Any]], say: Callable[[str], None]) -> list[Mapping[str, Any]]:
    """Rows whose id has the question that it had first; two questions under one id are not compared."""
    first: dict[str, str] = {}
    kept, others = [], list[str]()
    for row in rows:
        text = " ".join(str(row.get("instruction") or "").split())
        if first.setdefault(str(row["id"]), text) == text:
            kept.append(row)
        else:
            others.append(str(row["id"]))
    if others:
        say(f"left out {len(others):,} rows whose id has another question in an earlier row: {others[0]} ...")
    return kept


def draw_from_groups(questions: Ranking, options: SelectOptions) -> list[Mapping[str, Any]]:
    """One row of the selected group of every question that has any there, by the question's own generator."""
    rows = [row for own in questions.values() for row in own]
    pool = pd.DataFrame(
        {
            "question_id": [row["id"] for row in rows],
            "answer_id": [f"{row['score_rank']:09d}" for row in rows],
            "teacher": [str(row["teacher_name"]) for row in rows],
            "cost": [float(row[options.score_key]) for row in rows],
        }
    )
    chosen = choose_by_rule(pool, options.rule, options.seed, {})
    return [questions[q][rank - 1] for q, rank in zip(chosen["question_id"], chosen["rank"], strict=True)]
