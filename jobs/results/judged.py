"""What a run's evaluations say: read off the store once, then results of single arms and of pairs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from cluster.errors import BadInput
from jobs.experiment.arms.select import single_teachers, strongest_arm
from jobs.experiment.schema import BEFORE, IN_HINDSIGHT, Experiment
from jobs.files.questions import Question
from jobs.results.outcome import Outcome, StudentPath
from jobs.results.values import (
    Values,
    compared,
    hindsight,
    interval_of,
    loud_lines,
    pool_of,
    rows_of,
    unjudged_lines,
)
from jobs.run.keys import question_key
from jobs.run.store import Stage
from jobs.stages.evaluate import parts_line
from jobs.stages.examples import longer_than
from training.comparison import Comparison
from training.evaluation import Interval, SeedVariance

PASSAGE = 200  # characters at the beginning of a question that may be a passage
MOST_TASKS = 10  # fewer different beginnings may be instructions


@dataclass(frozen=True)
class ArmResult:
    """One arm of one student after one round: its mean value over questions, all and per family."""

    student: str
    arm: str
    round: int
    seeds: int
    value: Interval
    families: dict[str, Interval]
    cut_off: float


def baseline_of(experiment: Experiment) -> str:
    """The arm that the others are compared with: the one that is named, else the strongest teacher's, else
    the first.
    """
    e = experiment
    return e.evaluate.baseline or strongest_arm(e.arms) or e.arms[0].name


class Judged:
    """What a run's evaluations say, question by question, in one order."""

    def __init__(self, outcome: Outcome) -> None:
        """Read every evaluation.

        Raises:
            BadInput: one is of other questions.
        """
        start = outcome.start
        self.outcome, self.experiment = outcome, start.experiment
        order = [q.id for q in start.held_out]
        self._first = {name: _read(name, stage, order) for name, stage in start.before.items()}
        self._after = {
            (path, number): _read(f"{path.label} round {number}", stage, order)["value"].to_numpy(float)
            for path, number, stage in outcome.evaluated()
        }
        self._by_round: dict[int, Values] = {}
        self._pools: dict[tuple[int, str | None], SeedVariance] = {}

    def came_to(self, student: str, arm: str, number: int) -> bool:
        """Whether an arm of a student was judged after a round under every seed."""
        return all((path, number) in self._after for path in self._own(student, arm))

    def after(self, number: int) -> Values:
        """The values of all paths that came to a round under every seed, and of the students as they were."""
        if number not in self._by_round:
            self._by_round[number] = self._values(number)
        return self._by_round[number]

    @cached_property
    def last(self) -> Values:
        """The values after the last round."""
        return self.after(self.experiment.rounds)

    def _values(self, number: int) -> Values:
        e, held_out = self.experiment, self.outcome.start.held_out
        first = {(name, BEFORE): table["value"].to_numpy(float)[None] for name, table in self._first.items()}
        trained = {
            (s.name, a.name): np.stack([self._after[p, number] for p in self._own(s.name, a.name)])
            for s in e.students
            for a in e.arms
            if self.came_to(s.name, a.name, number)
        }
        tokens = {name: table["tokens"].to_numpy(float) for name, table in self._first.items()}
        families = np.array([q.family for q in held_out], dtype=object)
        is_loss = e.evaluate.metric == "loss"
        return Values(
            *(e.evaluate.metric, keys_of(held_out), families, first | trained, tokens if is_loss else {}),
            clusters=clusters_of(held_out),
        )

    def before(self, student: str) -> ArmResult:
        """A student as it was."""
        counts = self.outcome.start.before[student].manifest()["counts"]
        return self._result(self.last, student, BEFORE, 0, counts["cut_off"] / len(self.last.questions))

    def arm(self, student: str, arm: str, number: int) -> ArmResult:
        """One arm of a student after one round."""
        own = self._own(student, arm)
        stages = [self.outcome.rounds[p, number].evaluation for p in own]
        counts = [stage.manifest()["counts"]["cut_off"] for stage in stages if stage is not None]
        cut = float(np.mean([count / len(self.last.questions) for count in counts]))
        return self._result(self.after(number), student, arm, number, cut)

    def compared(self, student: str, arm: str, baseline: str) -> Comparison:
        """An arm against a baseline after the last round, on the questions that both were judged on."""
        is_same = self.chose_alike(student, arm, baseline)
        return compared(self.last, student, arm, baseline, self._pool(self.last), is_same)

    def comparisons(self, against: Sequence[str]) -> list[tuple[str, str, Comparison]]:
        """Every arm of every student against each of some others that came as far, each pair once."""
        return [
            (student.name, arm.name, self.compared(student.name, arm.name, other))
            for k, other in enumerate(against)
            for student in self.experiment.students
            for arm in self.experiment.arms
            if arm.name not in against[: k + 1]
            and {(student.name, arm.name), (student.name, other)} <= set(self.last.paths)
        ]

    def known(self, path: StudentPath, number: int) -> int:
        """On how many questions a path could be judged after a round."""
        return int(np.isfinite(self._after[path, number]).sum())

    def value(self, path: StudentPath, number: int) -> float:
        """A path's accuracy, or minus its loss per token, after a round; NaN where nothing was judged."""
        values = self.after(number)
        one = {(path.student, path.arm.name): self._after[path, number][None]}
        return replace(values, paths=one).mean((path.student, path.arm.name))

    def in_hindsight(self, baseline: str) -> list[tuple[ArmResult, Comparison | None]]:
        """For every student the best of the arms that learn from one teacher alone, where there are several,
        judged on other questions and seeds than it was chosen by. No comparison where the baseline itself was
        taken.
        """
        e, results = self.experiment, list[tuple[ArmResult, Comparison | None]]()
        single = list(single_teachers(e.arms))
        for student in (s.name for s in e.students):
            found = hindsight(self.last, student, single, baseline, e.seed, self._pool(self.last))
            if found is None:
                continue
            cut = float(np.mean([self.arm(student, name, e.rounds).cut_off for name in found.taken]))
            arm = ArmResult(student, IN_HINDSIGHT, e.rounds, e.seeds, found.value, {}, cut)
            told = f"{found.comparison.verdict} (taken: {' and '.join(found.taken)})"
            is_itself = set(found.taken) == {baseline}
            results.append((arm, None if is_itself else replace(found.comparison, verdict=told)))
        return results

    def rows(self) -> pd.DataFrame:
        """The value of every question of every path and seed after every round, and before training as round
        0: all intervals follow from these.
        """
        frames = []
        for number in range(1, self.experiment.rounds + 1):
            rows = rows_of(self.after(number))
            is_before = rows["arm"] == BEFORE
            frames.append(rows.assign(round=np.where(is_before, 0, number))[~is_before | (number == 1)])
        return pd.concat(frames, ignore_index=True)

    def notes(self) -> list[str]:
        """Paths that could not be judged, and those whose seeds lie much farther apart than the others', in
        words. Then choices with answers that are longer than the student may generate, and what losses are
        taken over, if that is not the whole of every reference.
        """
        pattern, held = self.experiment.evaluate.loss_on, self.outcome.start.held_out
        parts = [] if pattern is None else [parts_line(held, pattern)]
        lines = [*unjudged_lines([self.last]), *loud_lines([self.last]), *self._longer(), *parts]
        return [*lines, *cluster_lines(held)]

    def _longer(self) -> list[str]:
        """One line for all arms that chose such answers."""
        evaluate, found = self.experiment.evaluate, dict[str, list[int | None]]()
        for (path, _), own in self.outcome.rounds.items():
            if own.chosen is not None and own.examples is not None and evaluate.metric == "accuracy":
                longer = longer_than(own.examples.manifest()["counts"], evaluate.max_new_tokens)
                found.setdefault(path.arm.name, []).append(longer)
        told = ", ".join(
            f"{arm} {'some' if None in counts else sum(filter(None, counts))}"
            for arm, counts in found.items()
            if any(count != 0 for count in counts)
        )
        limit = f"evaluate.max_new_tokens ({evaluate.max_new_tokens:,})"
        return [f"chosen answers that are longer than {limit}, all rounds and seeds: {told}"] if told else []

    def chose_alike(self, student: str, arm: str, baseline: str) -> bool:
        """Whether two arms trained on the same answers, with the same weights, in every round and seed, and
        came to the same.
        """
        table, other = self.last.paths[student, arm], self.last.paths[student, baseline]
        if not np.array_equal(table, other, equal_nan=True):
            return False
        what = ["answer_id", "weight"]
        for mine, theirs in zip(self._own(student, arm), self._own(student, baseline), strict=True):
            for number in range(1, self.experiment.rounds + 1):
                chosen = [self.outcome.chosen(path, number) for path in (mine, theirs)]
                if chosen[0] is None or chosen[1] is None:
                    return False
                both = zip(chosen[0].each("chosen", what), chosen[1].each("chosen", what), strict=True)
                if not all(one.equals(other) for one, other in both):
                    return False
        return True

    def _own(self, student: str, arm: str) -> list[StudentPath]:
        return [p for p in self.outcome.paths if p.student == student and p.arm.name == arm]

    def _pool(self, values: Values, family: str | None = None) -> SeedVariance:
        key = (id(values), family)
        if key not in self._pools:
            self._pools[key] = pool_of([values], family)
        return self._pools[key]

    def _result(self, values: Values, student: str, arm: str, number: int, cut: float) -> ArmResult:
        path = (student, arm)
        whole = interval_of(values, path, self._pool(values))
        known = values.known(path)
        families = {
            family: interval_of(values, path, self._pool(values, family), family)
            for family in values.named_families
            if (known & (values.families == family)).any()
        }
        return ArmResult(student, arm, number, len(values.paths[path]), whole, families, cut)


def clusters_of(questions: Sequence[Question]) -> np.ndarray | None:
    """[Q], the cluster of each question; one without is a cluster of its own. None if none has one."""
    if not any(q.cluster for q in questions):
        return None
    keys = keys_of(questions)
    own = [q.cluster or f"question {key}" for q, key in zip(questions, keys, strict=True)]
    return np.array(own, dtype=object)


def named_clusters(questions: Sequence[Question]) -> dict[str, str]:
    """The clusters of questions by id, as `clusters_of` has them. Empty if none is named."""
    clusters = clusters_of(questions)
    return {} if clusters is None else {q.id: str(c) for q, c in zip(questions, clusters, strict=True)}


def cluster_lines(questions: Sequence[Question]) -> list[str]:
    """How many clusters the held-out questions are in. If none is named, whether some seem to have a passage
    in common.
    """
    clusters = clusters_of(questions)
    if clusters is not None:
        count = len(set(clusters))
        return [f"{len(questions):,} questions in {count:,} clusters: intervals and p-values are of clusters"]
    begins = Counter(q.text[:PASSAGE] for q in questions if len(q.text) > PASSAGE)
    several = [count for count in begins.values() if count > 1]
    if len(several) < MOST_TASKS or 2 * sum(several) < len(questions):
        return []
    return [
        f"{sum(several):,} of {len(questions):,} held-out questions begin with one of {len(several):,} texts "
        f"of {PASSAGE} characters; if they are about the same passages, they are not independent, and "
        "intervals are too narrow: name what they share by questions.evaluate_fields.cluster"
    ]


def keys_of(questions: Sequence[Question]) -> list[str]:
    """Names of questions by what they ask; of those that ask the same, numbered ones."""
    seen: Counter[str] = Counter()
    names = []
    for question in questions:
        key = question_key(question.prompt).hex()
        seen[key] += 1
        names.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return names


def _read(name: str, stage: Stage, order: list[str]) -> pd.DataFrame:
    """An evaluation's value and tokens by question, joined by id; a value is NaN where there is none."""
    table = stage.read().set_index("question_id")[["value", "tokens"]]
    if set(table.index) != set(order):
        raise BadInput(
            f"the evaluation {name} is of other questions",
            len(table),
            f"{len(order)} questions",
            "run again with --resume never",
        )
    return table.loc[order]
