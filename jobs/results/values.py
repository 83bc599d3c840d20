"""What the paths of a run came to, question by question: all that intervals and comparisons follow from, and
what a study publishes.

Shapes: S training seeds, Q questions.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from jobs.experiment.schema import BEFORE, IN_HINDSIGHT
from training.comparison import Comparison, compare
from training.evaluation import (
    Interval,
    SeedVariance,
    arm_interval,
    by_cluster,
    linearised,
    louder,
    pool_seeds,
)
from training.hindsight import best_in_hindsight

Path = tuple[str, str]  # student, arm


@dataclass(frozen=True)
class Values:
    """What paths came to after one round.

    Attributes:
        questions: the keys of the held-out questions.
        families: of each question; empty texts where there are none.
        paths: [S, Q] of every student and arm, NaN where a question could not be judged.
        tokens: [Q] of every student that is judged by its loss: the tokens that a question's mean is over.
        clusters: of each question. Clusters are independent, and questions of one are not. None if every
            question is independent.
    """

    metric: str
    questions: Sequence[str]
    families: np.ndarray
    paths: Mapping[Path, np.ndarray]
    tokens: Mapping[str, np.ndarray]
    clusters: np.ndarray | None = None

    def known(self, *paths: Path) -> np.ndarray:
        """[Q], whether a question could be judged under every seed of all these paths."""
        each = [np.isfinite(self.paths[path]).all(axis=0) for path in paths]
        each += [self.tokens[path[0]] > 0 for path in paths if self.metric == "loss"]
        return np.logical_and.reduce(each)

    def table(self, path: Path, kept_Q: np.ndarray) -> np.ndarray:
        """A path's values on some questions, or on their clusters; its mean is the accuracy, or minus the
        loss per token.
        """
        values_SQ = self.paths[path][:, kept_Q]
        weights_Q = self.tokens[path[0]][kept_Q] if self.metric == "loss" else None
        return independent(values_SQ, weights_Q, None if self.clusters is None else self.clusters[kept_Q])

    def units(self, kept_Q: np.ndarray) -> list[str]:
        """The names of what `table` has a column for: questions, or clusters of them."""
        if self.clusters is None:
            return [key for key, is_kept in zip(self.questions, kept_Q, strict=True) if is_kept]
        return np.unique(self.clusters[kept_Q].astype(str)).tolist()

    @property
    def unit(self) -> str:
        return "questions" if self.clusters is None else "clusters of questions"

    def mean(self, path: Path) -> float:
        """Over seeds and the questions that could be judged; NaN of none."""
        known = self.known(path)
        return float(self.table(path, known).mean()) if known.any() else float("nan")

    def gain(self, student: str, arm: str) -> float:
        """What an arm gave a student, on the questions that could be judged before and after; NaN of none."""
        after, before = (student, arm), (student, BEFORE)
        both = self.known(after, before)
        if not both.any():
            return float("nan")
        return float(self.table(after, both).mean() - self.table(before, both).mean())

    @cached_property
    def named_families(self) -> list[str]:
        return sorted({str(family) for family in self.families if family})

    @property
    def trained(self) -> list[Path]:
        """All paths but those before training."""
        return [path for path in self.paths if path[1] != BEFORE]


def independent(
    values_SQ: np.ndarray, weights_Q: np.ndarray | None, clusters_Q: np.ndarray | None
) -> np.ndarray:
    """Values of questions, or of clusters of them, whose plain mean is what a model came to."""
    if not values_SQ.shape[1]:
        return values_SQ
    if clusters_Q is not None:
        return by_cluster(values_SQ, clusters_Q, weights_Q)
    return values_SQ if weights_Q is None else linearised(values_SQ, weights_Q)


def pool_of(every: Iterable[Values], family: str | None = None) -> SeedVariance:
    """What seeds differ by, over all paths of all of these; within one family of questions if it is named."""
    tables = []
    for values in every:
        within = np.ones(len(values.families), bool) if family is None else values.families == family
        tables += [values.table(path, values.known(path) & within) for path in values.trained]
    return pool_seeds(tables)


def interval_of(values: Values, path: Path, pool: SeedVariance, family: str | None = None) -> Interval:
    """One path's mean with its interval; neither where no question could be judged."""
    known = values.known(path)
    if family is not None:
        known &= values.families == family
    return arm_interval(values.table(path, known), pool, values.metric)


def compared(
    values: Values,
    student: str,
    arm: str,
    baseline: str,
    pool: SeedVariance,
    is_same: bool = False,
    same_trainings: bool = False,
) -> Comparison:
    """An arm against a baseline, on the questions that both were judged on; it says so if there are none.

    Args:
        is_same: the two trained on the same choices.
        same_trainings: the two are ways of answering of the same trained models, see `compare`.
    """
    mine, theirs = (student, arm), (student, baseline)
    both = values.known(mine, theirs)
    one, other = (values.table(path, both) for path in (mine, theirs))
    unit = values.unit
    return compare(one, other, arm, baseline, values.metric, pool, is_same, same_trainings, unit=unit)


@dataclass(frozen=True)
class Hindsight:
    """The best single teacher, known only in hindsight: its value, its difference from a baseline, and which
    arms were taken for it.
    """

    value: Interval
    comparison: Comparison
    taken: tuple[str, ...]


def hindsight(
    values: Values, student: str, single: Sequence[str], baseline: str, seed: int, pool: SeedVariance
) -> Hindsight | None:
    """The best of the arms that learn from one teacher alone; None where there are fewer than two, or fewer
    than two questions, or no baseline.

    Args:
        seed: of the halves of questions and seeds.
    """
    arms = [arm for arm in single if (student, arm) in values.paths]
    if len(arms) < 2 or (student, baseline) not in values.paths:
        return None
    known = values.known(*((student, arm) for arm in (*arms, baseline)))
    names = values.units(known)
    if len(names) < 2:
        return None
    choices = {arm: values.table((student, arm), known) for arm in arms}
    found, taken = best_in_hindsight(choices, seed, names)
    against = values.table((student, baseline), known)
    comparison = compare(found, against, IN_HINDSIGHT, baseline, values.metric, pool, unit=values.unit)
    return Hindsight(arm_interval(found, pool, values.metric), comparison, taken)


def unjudged_lines(every: Sequence[Values]) -> list[str]:
    """Of paths that have no value, because no question could be judged under every seed, by name; and of how
    many questions the others lack.
    """
    lacking = dict[int, list[str]]()
    for values in every:
        for path in values.paths:
            known = values.known(path)
            if known.any() and not known.all():
                lacking.setdefault(int((~known).sum()), []).append(" ".join(path))
    some = []
    for count, names in lacking.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        told = f"{count:,} of {len(every[0].questions):,} questions could not be judged of"
        some.append(f"{told} {', '.join(names[:4])}{more}: they count for nothing")
    return some + [
        f"no question could be judged of {student} {arm} under every seed: it has no value, no "
        "interval and no comparison (references too long for score.max_length, or a judge that failed, which "
        "--retry-failed asks again)"
        for values in every
        for student, arm in values.paths
        if not values.known((student, arm)).any()
    ]


def loud_lines(every: Sequence[Values]) -> list[str]:
    """Of paths whose seeds lie much farther apart than the others' of the run or part, by name."""
    pool = pool_of(every)
    number = sum(len(values.trained) for values in every)
    lines = []
    for values in every:
        for path in values.trained:
            table = values.table(path, values.known(path))
            times = louder(table, pool, number) if table.shape[1] > 1 else None
            if times is not None:
                lines.append(loud_line(f"{path[0]} {path[1]}", times))
    return lines


def loud_line(name: str, times: float) -> str:
    """What is said of a path whose seeds lie so many times as far apart as the others'."""
    farther = (
        f"{times:.1f} times as far apart as the others'" if np.isfinite(times) else "apart, the others' not"
    )
    return f"the seeds of {name} lie {farther}: its intervals are too narrow"


def rows_of(values: Values) -> pd.DataFrame:
    """The values as a table, a row for every path, seed and question; read again by `values_from`."""
    frames = []
    for (student, arm), table in values.paths.items():
        for seed, own in enumerate(table):
            about = {"student": student, "arm": arm, "seed": seed, "question": list(values.questions)}
            if values.clusters is not None:
                about["cluster"] = list(values.clusters)
            frame = pd.DataFrame({**about, "family": values.families, "value": own})
            frames.append(frame.assign(tokens=values.tokens[student]) if values.tokens else frame)
    return pd.concat(frames, ignore_index=True)


def values_from(rows: pd.DataFrame, metric: str) -> Values:
    """The values that a table of theirs holds."""
    first = rows[(rows["student"] == rows["student"].iloc[0]) & (rows["arm"] == rows["arm"].iloc[0])]
    first = first[first["seed"] == first["seed"].iloc[0]]
    questions = [str(key) for key in first["question"]]
    paths, tokens = {}, {}
    for (student, arm), own in rows.groupby(["student", "arm"], sort=False):
        wide = own.pivot(index="seed", columns="question", values="value").sort_index()[questions]
        paths[str(student), str(arm)] = wide.to_numpy(float)
        if "tokens" in own:
            once = own.drop_duplicates("question").set_index("question")["tokens"]
            tokens[str(student)] = once[questions].to_numpy(float)
    families = first["family"].to_numpy(str).astype(object)
    clusters = first["cluster"].to_numpy(str).astype(object) if "cluster" in first else None
    return Values(metric, questions, families, paths, tokens, clusters)


def as_parquet(rows: pd.DataFrame) -> bytes:
    """Values by question as a Parquet file: every text once, so that it stays small."""
    texts = dict.fromkeys(rows.select_dtypes(exclude="number").columns, "category")
    whole = {column: "int16" for column in ("seed", "round") if column in rows}
    buffer = io.BytesIO()
    rows.astype({**texts, **whole}).to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()
