"""Questions that are not independent: those of one cluster count together, wherever arms are compared."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.models.messages import plain
from jobs.experiment.parsing import parse_experiment
from jobs.experiment.questions import Fields
from jobs.files.questions import Question, read_questions
from jobs.pipeline import load_questions
from jobs.results.judged import PASSAGE, Judged, cluster_lines, clusters_of, named_clusters
from jobs.results.strongest import strongest_table
from jobs.results.values import Values, compared, hindsight, pool_of, rows_of, values_from
from jobs.sweep.evaluations import choosing
from tests.runs import run, tutelage, write_experiment
from training.comparison import compare
from training.evaluation import ONE_SEED, arm_interval, by_cluster


def test_copies_of_a_question_in_one_cluster_say_no_more_than_the_question() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.random((3, 40)) < p for p in (0.7, 0.5))
    clusters = np.repeat([f"c{k:02}" for k in range(40)], 5)
    alone = compare(one, other, "a", "b")
    tables = [by_cluster(np.repeat(t, 5, axis=1).astype(float), clusters) for t in (one, other)]
    together = compare(*tables, "a", "b")
    assert together.difference.low == pytest.approx(alone.difference.low)
    assert together.p_value == pytest.approx(alone.p_value)
    apart = compare(*(np.repeat(t[:1], 5, axis=1) for t in (one, other)), "a", "b").uncertainty
    assert apart.reach < 0.6 * compare(one[:1], other[:1], "a", "b").uncertainty.reach


def test_clusters_of_unequal_sizes_leave_means_as_they_are_and_losses_too() -> None:
    rng = np.random.default_rng(1)
    values, tokens = rng.random((2, 30)), rng.integers(1, 60, 30).astype(float)
    clusters = rng.choice(["a", "b", "c", "d"], 30, p=[0.6, 0.2, 0.1, 0.1])
    assert by_cluster(values, clusters).mean(axis=1) == pytest.approx(values.mean(axis=1))
    weighed = by_cluster(values, clusters, tokens).mean(axis=1)
    assert weighed == pytest.approx((values * tokens).sum(axis=1) / tokens.sum())
    assert by_cluster(values, np.arange(30).astype(str)).shape == (2, 30)


def test_where_nothing_differs_clusters_are_called_as_rarely_as_they_should() -> None:
    """300 draws of 40 passages with 1 to 12 questions each; half of what differs hangs on the passage."""
    rng, called = np.random.default_rng(2), {"clusters": 0, "questions": 0}
    for _ in range(300):
        clusters = np.repeat([f"c{k:02}" for k in range(40)], rng.integers(1, 13, 40))
        number = np.unique(clusters, return_inverse=True)[1]
        d = rng.normal(size=(2, 40))[:, number] + rng.normal(size=(2, len(clusters)))
        called["questions"] += compare(d[0], d[1], "a", "b", "loss").p_value < 0.05
        tables = [by_cluster(own[None], clusters) for own in d]
        called["clusters"] += compare(*tables, "a", "b", "loss").p_value < 0.05
    assert called["clusters"] <= 30
    assert called["questions"] >= 60


def test_an_accuracy_over_clusters_stays_within_0_and_1_and_is_wider() -> None:
    clusters = np.repeat(["a", "b", "c", "d"], 10)
    right = np.repeat([1.0, 1.0, 1.0, 0.0], 10)[None]
    wide = arm_interval(by_cluster(right, clusters), ONE_SEED)
    narrow = arm_interval(right, ONE_SEED)
    assert 0 <= wide.low < narrow.low < 0.75 < narrow.high < wide.high <= 1


def a_table(clusters: np.ndarray | None, metric: str = "accuracy") -> Values:
    rng = np.random.default_rng(3)
    paths = {("kid", arm): (rng.random((2, 60)) < p).astype(float) for arm, p in PATHS.items()}
    paths["kid", "only t"][1, 7] = np.nan
    tokens = {"kid": rng.integers(1, 9, 60).astype(float)} if metric == "loss" else {}
    keys = [f"{k:016x}" for k in range(60)]
    return Values(metric, keys, np.array([""] * 60, dtype=object), paths, tokens, clusters)


PATHS = {"scas": 0.7, "strongest": 0.5, "only t": 0.55, "only u": 0.45}
FIVE = np.repeat([f"text {k}" for k in range(12)], 5).astype(object)


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_comparisons_of_a_run_are_over_clusters_also_when_read_again(metric: str) -> None:
    values = a_table(FIVE, metric)
    found = compared(values, "kid", "scas", "strongest", pool_of([values]))
    assert found.questions == 12
    apart = compared(replace(values, clusters=None), "kid", "scas", "strongest", pool_of([values]))
    assert found.difference.value == pytest.approx(apart.difference.value)
    again = values_from(rows_of(values), metric)
    same = compared(again, "kid", "scas", "strongest", pool_of([again]))
    assert (same.difference, same.p_value) == (found.difference, found.p_value)
    best = hindsight(values, "kid", ["only t", "only u"], "strongest", 0, pool_of([values]))
    assert best is not None
    assert best.comparison.questions == 12


def test_what_would_tell_arms_apart_is_counted_in_clusters() -> None:
    values = a_table(FIVE)
    values = replace(values, paths={path: table[:1] for path, table in values.paths.items()})
    verdict = compared(values, "kid", "only u", "strongest", pool_of([values])).verdict
    assert "more clusters of questions would show it" in verdict


def test_a_sweep_never_parts_a_cluster_between_choosing_and_judging() -> None:
    clusters = {f"q{k}": str(name) for k, name in enumerate(FIVE)}
    chosen = choosing(list(clusters), 0.3, clusters)
    assert len(chosen) == 20
    named = {clusters[q] for q in chosen}
    assert not named & {clusters[q] for q in clusters if q not in chosen}


def test_a_column_names_clusters_and_one_that_no_row_has_is_refused(
    small_world: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(small_world["questions"]["evaluate"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    told = [row | {"source": {"article": k // 4}} if k else row for k, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in told))
    fields = {"evaluate_fields": {"cluster": "source.article"}}
    e = parse_experiment(small_world | {"questions": small_world["questions"] | fields})
    held_out = load_questions(e)[1]
    assert len({q.cluster for q in held_out}) == 4  # three passages, and a question without one
    assert len(set(named_clusters(held_out).values())) == 4
    assert clusters_of([replace(q, cluster="") for q in held_out]) is None
    wrong = small_world["questions"] | {"evaluate_fields": {"cluster": "source.artcle"}}
    done = tutelage("run", write_experiment(small_world | {"questions": wrong}, tmp_path))
    assert done.returncode == 2
    assert "no row of" in done.stderr
    assert "source.artcle" in done.stderr


def test_a_run_tells_its_clusters(small_world: dict[str, Any], tmp_path: Path) -> None:
    fields = {name: {"cluster": "family"} for name in ("train_fields", "evaluate_fields")}
    tree = small_world | {"questions": small_world["questions"] | fields}
    _, outcome = run(tree, tmp_path)
    table = strongest_table(outcome.start)
    alone = {q.id: replace(q, cluster="") for q in outcome.start.questions.values()}
    apart = strongest_table(replace(outcome.start, questions=alone))
    assert table["accuracy"].tolist() == apart["accuracy"].tolist()
    assert table["behind"].to_numpy() == pytest.approx(apart["behind"].to_numpy())
    assert not np.allclose(table["high"][1:], apart["high"][1:])
    families = len({q.family for q in read_questions(tree["questions"]["evaluate"], Fields()).questions})
    (line,) = (line for line in Judged(outcome).notes() if "clusters" in line)
    assert f"12 questions in {families} clusters" in line


def test_questions_that_begin_with_the_same_passages_are_told_of() -> None:
    def some(number: int, of_each: int) -> list[Question]:
        texts = [f"{k} ".zfill(8) + "word " * 60 for k in range(number)]
        return [
            Question(f"{k}-{n}", plain(t + f"question {n}"))
            for k, t in enumerate(texts)
            for n in range(of_each)
        ]

    (line,) = cluster_lines(some(12, 3))
    assert f"36 of 36 held-out questions begin with one of 12 texts of {PASSAGE} characters" in line
    assert "questions.evaluate_fields.cluster" in line
    assert not cluster_lines(some(3, 12))  # instructions of three tasks
    assert not cluster_lines(some(40, 1))
