"""What a student prefers: scores, pairs and item response, with values worked by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from selection.preferences import (
    fit_items,
    most_telling,
    question_pairs,
    rationale_pairs,
    reliability,
    shuffled_within,
    standard_error,
)

# each rationale's verdicts on five items
ANSWERED = {
    "q1": ("11010", "11010", "01000", "11110"),
    "q2": ("00000", "00000", "00000", "00000"),
    "q3": ("10000", "00100", "01000", "00001"),
}


def drafts_of(answered: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    rows = []
    for question, rationales in answered.items():
        for k, items in enumerate(rationales):
            values = [int(item) for item in items]
            rows.append((question, f"{question}/{k}", float(np.mean(values)), k, standard_error(values)))
    return pd.DataFrame(rows, columns=["question", "rationale", "score", "tokens", "error"])


def test_scores_and_pairs_of_the_worked_example() -> None:
    drafts = drafts_of(ANSWERED)
    own = drafts[drafts["question"] == "q1"]["score"]
    assert own.tolist() == pytest.approx([0.6, 0.6, 0.2, 0.8])
    assert own.mean() == pytest.approx(0.55)
    pairs, without = rationale_pairs(drafts, seed=0)
    assert [(p.chosen, p.rejected) for p in pairs.values()] == [("q1/3", "q1/2")]
    assert without == ["q2", "q3"]
    mirrored = drafts_of({q: tuple(items[::-1] for items in r) for q, r in ANSWERED.items()})
    assert rationale_pairs(mirrored, seed=0) == (pairs, without)  # the order of items says nothing


def test_a_tie_for_the_best_is_drawn_or_the_shortest_is_taken() -> None:
    drafts = drafts_of({"q": ("1111", "1111", "0000", "1111")})
    chosen = {rationale_pairs(drafts, seed)[0]["q"].chosen for seed in range(40)}
    assert chosen == {"q/0", "q/1", "q/3"}
    assert {rationale_pairs(drafts, seed, best="shortest")[0]["q"].chosen for seed in range(5)} == {"q/0"}


def test_pairs_can_be_asked_to_be_apart() -> None:
    drafts = drafts_of({"near": ("1110", "1010"), "far": ("1111", "0000")})
    assert set(rationale_pairs(drafts, 0)[0]) == {"near", "far"}
    assert rationale_pairs(drafts, 0, apart=2.0)[1] == ["near"]


@pytest.mark.parametrize(("questions", "pairs"), [(250, 50), (60, 15), (3, 0)])
def test_how_many_question_pairs(questions: int, pairs: int) -> None:
    scores = {f"q{k:03d}": k / questions for k in range(questions)}
    found = question_pairs(scores, 50, seed=1)
    assert len(found) == pairs
    used = [name for p in found for name in (p.chosen, p.rejected)]
    assert len(set(used)) == len(used)
    quarter = questions // 4
    ordered = sorted(scores, key=lambda q: scores[q])
    assert {p.rejected for p in found} <= set(ordered[:quarter])
    assert {p.chosen for p in found} <= set(ordered[len(ordered) - quarter :])
    ranked = question_pairs(scores, 50, seed=1, pairing="rank")
    assert not ranked or (ranked[0].chosen, ranked[0].rejected) == (ordered[-1], ordered[0])


def test_questions_that_are_all_alike_make_no_pair() -> None:
    assert question_pairs({f"q{k}": 0.5 for k in range(40)}, 50, seed=0) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=20), st.integers(0, 5)
)
def test_shuffling_keeps_every_group_s_values(rows: list[tuple[str, float]], seed: int) -> None:
    groups = {k: group for k, (group, _) in enumerate(rows)}
    values = {k: value for k, (_, value) in enumerate(rows)}
    found = shuffled_within(values, groups, seed)
    for group in set(groups.values()):
        own = [k for k in values if groups[k] == group]
        assert sorted(found[k] for k in own) == sorted(values[k] for k in own)


def test_item_response_finds_its_own_numbers() -> None:
    ability = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    shares = expit(1.5 * (ability - 0.5))
    assert shares.tolist() == pytest.approx([0.022977, 0.095349, 0.320821, 0.679179, 0.904651], abs=1e-6)
    fitted = fit_items(shares.reshape(-1, 1), ability, uses_priors=False)
    assert fitted.discrimination[0] == pytest.approx(1.5, abs=1e-5)
    assert fitted.difficulty[0] == pytest.approx(0.5, abs=1e-5)


def test_items_that_all_answer_alike_are_left_out() -> None:
    right = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 1, 1], [1, 0, 0, 0]])
    assert sorted(most_telling(right, 4)) == [2, 3]


def simulated(respondents: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b = np.exp(rng.normal(0, 0.5, 100)), rng.normal(0, 1, 100)
    p = expit(a * (rng.normal(0, 1, respondents)[:, None] - b))
    return (rng.random(p.shape) < p).astype(float), a


def test_with_many_respondents_the_telling_items_are_found_and_with_few_they_are_not() -> None:
    found = {}
    for respondents in (20, 200):
        overlap = []
        for seed in range(3):
            right, a = simulated(respondents, seed)
            best = set(np.argsort(-a)[:40].tolist())
            overlap.append(len(best & set(most_telling(right, 40))))
        found[respondents] = float(np.mean(overlap))
    assert found[200] >= 30
    assert 16 < found[20] < found[200]


def test_reliability_tells_noise_from_a_signal() -> None:
    rng = np.random.default_rng(0)
    able = rng.uniform(0.1, 0.9, 60)
    signal = (rng.random((60, 40)) < able[:, None]).astype(float)
    noise = (rng.random((60, 40)) < 0.4).astype(float)
    assert reliability(signal) > 0.8
    assert abs(reliability(noise)) < 0.5
    assert reliability(signal) > reliability(noise) + 0.3
    assert np.isnan(reliability(np.ones((10, 8))))


def test_reliability_within_questions_sees_no_difference_between_them() -> None:
    rng = np.random.default_rng(1)
    questions = [f"q{k // 4}" for k in range(80)]
    easy = np.repeat(rng.uniform(0.1, 0.9, 20), 4)
    answered = (rng.random((80, 40)) < easy[:, None]).astype(float)  # a question's rationales are all alike
    assert reliability(answered) > 0.8
    assert reliability(answered, questions) < 0.5
