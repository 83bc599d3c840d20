"""Decoding with calls: without calls it is plain sampling, with calls only it is the teacher, and every token
is the one that its model would give after the text so far."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from cluster.errors import BadInput
from cluster.models.added_tokens import add_to_model
from cluster.models.asked import CachedReader, RecomputedReader, why_not_cached
from cluster.models.plain_way import plain_logits
from cluster.models.proof import prove
from cluster.models.relay import Calls, Relayed, Side, relay
from cluster.models.sampling import Completion, Sampling, sample
from cluster.models.vocabulary import Head
from tests.architectures import model_types, tiny_model

HELP = 7  # an ordinary token that calls, in most of these tests
STOP = frozenset(range(20, 30))
GREEDY, DRAWN = Sampling(14, STOP), Sampling(14, STOP, temperature=1.0)


def head_of(model: Any) -> Head:
    return prove(model, ("projection",)).head


@pytest.fixture(scope="module")
def student() -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def teacher() -> Any:
    other = tiny_model("llama", num_hidden_layers=3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    return other


def prompts(count: int, model: Any, seed: int = 5) -> list[list[int]]:
    g = torch.Generator().manual_seed(seed)
    size = model.config.vocab_size
    return [torch.randint(30, size, (3 + i * 7 % 11,), generator=g).tolist() for i in range(count)]


def sides(student: Any, teacher: Any, count: int) -> tuple[Side, Side]:
    """Both with seeds. The teacher's prompts are others than the student's."""
    return (
        Side(head_of(student), prompts(count, student), range(count)),
        Side(head_of(teacher), prompts(count, teacher, 6), range(100, 100 + count)),
    )


def plain(model: Any, rows: Sequence[Sequence[int]], settings: Sampling, seeds: Any) -> list[Completion]:
    found = sample(model, rows, replace(settings, logprobs=True), seeds)
    assert all(isinstance(c, Completion) for c in found), found
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("settings", [GREEDY, DRAWN])
def test_without_calls_it_is_plain_sampling(student: Any, settings: Sampling) -> None:
    """Of the base model: the added help token changes nothing as long as it is closed."""
    with_help = copy.deepcopy(student)
    added = student.config.vocab_size
    add_to_model(with_help, [added], ["<help>"])
    rows, seeds = prompts(9, student), list(range(9))
    found = relay(
        Side(head_of(with_help), rows, seeds), None, settings, Calls("never", help_id=added), "cached"
    )
    for one, other in zip(found, plain(student, rows, settings, seeds), strict=True):
        assert (one.ids, one.finish) == (other.ids, other.finish)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert not any(one.by_teacher)
        assert one.help == (0.0,) * len(one.logprobs)
        assert one.processed == 0


@pytest.mark.parametrize("settings", [GREEDY, DRAWN])
@pytest.mark.parametrize("help_id", [HELP, None])
def test_with_every_token_asked_it_is_the_teacher(
    student: Any, teacher: Any, settings: Sampling, help_id: int | None
) -> None:
    own, other = sides(student, teacher, 9)
    silent = copy.deepcopy(teacher)
    if help_id is not None:  # what the teacher cannot give
        with torch.no_grad():
            add_to_bias(silent, help_id)
    found = relay(own, other, settings, Calls("always", help_id=help_id))
    for one, expected in zip(found, plain(silent, other.prompts, settings, other.seeds), strict=True):
        assert (one.ids, one.finish) == (expected.ids, expected.finish)
        assert all(one.by_teacher)
        # all it read: its prompt and all tokens but the last one that it gave
        assert one.processed == len(other.prompts[found.index(one)]) + len(one.by_teacher) - 1
        pairs = [i for token in expected.ids for i in ([HELP] if help_id is not None else []) + [token]]
        assert list(one.path)[: len(pairs)] == pairs


def add_to_bias(model: Any, token: int) -> None:
    """Make a token of a model impossible."""
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    head.bias[token] = -1e9


def eager(student: Any, help_id: int) -> Any:
    """A student that calls for about a third of its greedy tokens."""
    own = copy.deepcopy(student)
    logits = torch.cat([plain_logits(student, text) for text in prompts(40, student)])
    lacks = logits.max(1).values - logits[:, help_id]
    head = own.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    with torch.no_grad():
        head.bias[help_id] = lacks.quantile(0.35)
    return own


def check_against_plain(
    answer: Relayed, student: Any, teacher: Any, prompts: Any, settings: Sampling
) -> None:
    """Every token of a greedy answer is the one of its model after the text so far, in the plain way."""
    mine, theirs = list(prompts[0]), list(prompts[1])
    path = iter(answer.path)
    written = []
    for k, by_teacher in enumerate(answer.by_teacher):
        logits = plain_logits(student, mine)[-1]
        log_pi = torch.log_softmax(logits, 0)
        token = next(path)
        assert token == int(logits.argmax())
        assert answer.logprobs[k] == pytest.approx(float(log_pi[token]), abs=1e-4)
        assert answer.help[k] == pytest.approx(float(log_pi[HELP].exp()), abs=1e-4)
        rest = logits.clone()
        rest[HELP] = -torch.inf
        own = torch.softmax(rest, 0)
        entropy = -float(torch.where(own > 0, own * own.log(), 0.0).sum())
        assert answer.entropies[k] == pytest.approx(entropy, abs=1e-3)
        mine.append(token)
        assert (token == HELP) == by_teacher
        if by_teacher:
            told = plain_logits(teacher, theirs)[-1]
            told[HELP] = -torch.inf
            token = next(path)
            assert token == int(told.argmax())
            mine.append(token)
        written.append(token)
        theirs.append(token)
    assert next(path, None) is None
    ended = bool(written) and written[-1] in STOP
    assert answer.finish == ("stop" if ended else "length")
    assert list(answer.ids) == (written[:-1] if ended else written)
    assert len(answer.ids) <= settings.max_new_tokens


@pytest.mark.parametrize("reading", ["cached", "recomputed"])
def test_every_token_is_the_one_of_its_model(student: Any, teacher: Any, reading: Any) -> None:
    own, other = sides(eager(student, HELP), teacher, 12)
    found = relay(own, other, GREEDY, Calls(help_id=HELP), reading)
    assert 0 < sum(a.calls for a in found) < sum(len(a.by_teacher) for a in found)
    assert {a.finish for a in found} == {"stop", "length"}
    for answer, mine, theirs in zip(found, own.prompts, other.prompts, strict=True):
        check_against_plain(answer, own.model, teacher, (mine, theirs), GREEDY)
        if reading == "cached" and answer.calls:
            last = max(k for k, called in enumerate(answer.by_teacher) if called)
            assert answer.processed == len(theirs) + last  # nothing twice
        if not answer.calls:
            assert answer.processed == 0


def test_a_row_s_answer_does_not_depend_on_its_batch(student: Any, teacher: Any) -> None:
    own, other = sides(eager(student, HELP), teacher, 10)
    calls = Calls(help_id=HELP)
    together = relay(own, other, DRAWN, calls)
    apart = relay(own, other, replace(DRAWN, token_budget=60), calls)
    assert [(a.path, a.finish) for a in together] == [(a.path, a.finish) for a in apart]
    shifted = relay(replace(own, seeds=range(50, 60)), other, DRAWN, calls)
    assert [a.path for a in shifted] != [a.path for a in together]
    assert sum(a.calls for a in together)


def test_limits_hold_on_a_thousand_random_answers(student: Any, teacher: Any) -> None:
    mine, theirs = prompts(40, student), prompts(40, teacher, 6)
    heads = head_of(eager(student, HELP)), head_of(teacher)
    met = 0
    for k in range(25):
        own = Side(heads[0], mine, range(40 * k, 40 * k + 40))
        other = Side(heads[1], theirs, range(40 * k, 40 * k + 40))
        most, share = (k % 5, None) if k % 2 else (None, 0.05 * (k % 7))
        for answer in relay(own, other, DRAWN, Calls(help_id=HELP, most=most, share=share)):
            seen = 0
            for written, called in enumerate(answer.by_teacher):
                seen += called
                if most is not None:
                    assert seen <= most
                elif called:
                    assert share is not None
                    assert seen <= 1 + share * written
            met += most is not None and seen == most
            assert HELP not in answer.ids
    assert met > 50


def test_a_bias_is_a_change_of_price(student: Any, teacher: Any) -> None:
    """Each nat of bias adds a nat to the log odds of a call."""
    own, other = sides(eager(student, HELP), teacher, 8)
    before, after = (
        relay(own, other, replace(DRAWN, max_new_tokens=1), Calls(help_id=HELP, bias=b)) for b in (0.0, -1.5)
    )
    for one, two in zip(before, after, strict=True):
        odds = [math.log(a.help[0] / (1 - a.help[0])) for a in (one, two)]
        assert odds[1] - odds[0] == pytest.approx(-1.5, abs=1e-3)
    never = relay(own, other, DRAWN, Calls(help_id=HELP, bias=-1e9))
    assert not sum(a.calls for a in never)


@pytest.mark.parametrize("caller", ["entropy", "oracle"])
def test_calls_by_a_threshold_are_where_it_is_passed(student: Any, teacher: Any, caller: Any) -> None:
    own, other = sides(student, teacher, 8)
    loose = relay(own, other, GREEDY, Calls(caller, threshold=0.0))
    assert all(all(a.by_teacher) for a in loose)
    values = []
    for answer, mine, theirs in zip(loose, own.prompts, other.prompts, strict=True):
        for k in range(len(answer.by_teacher)):
            values.append(
                value_of(caller, student, teacher, [*mine, *answer.ids[:k]], [*theirs, *answer.ids[:k]])
            )
    threshold = sorted(values)[len(values) // 2]
    found = relay(own, other, GREEDY, Calls(caller, threshold=threshold))
    told = []
    for answer, mine, theirs in zip(found, own.prompts, other.prompts, strict=True):
        for k, called in enumerate(answer.by_teacher):
            value = value_of(caller, student, teacher, [*mine, *answer.ids[:k]], [*theirs, *answer.ids[:k]])
            if abs(value - threshold) > 1e-3:
                assert called == (value > threshold)
                told.append(called)
    assert True in told
    assert False in told


def value_of(caller: str, student: Any, teacher: Any, mine: list[int], theirs: list[int]) -> float:
    """The entropy of the student's next token, or its KL from the teacher's."""
    log_p = torch.log_softmax(plain_logits(student, mine)[-1], 0)
    log_q = torch.log_softmax(plain_logits(teacher, theirs)[-1], 0) if caller == "oracle" else 0.0
    total = float((log_p.exp() * (log_p - log_q)).sum())
    return total if caller == "oracle" else -total


def test_random_calls_come_at_their_chance_and_do_not_change_the_draws(student: Any, teacher: Any) -> None:
    own, other = sides(student, teacher, 60)
    settings = replace(DRAWN, stop_ids=frozenset())
    found = relay(own, other, settings, Calls("random", threshold=0.25))
    calls, written = sum(a.calls for a in found), sum(len(a.by_teacher) for a in found)
    assert abs(calls / written - 0.25) < 5 * math.sqrt(0.25 * 0.75 / written)
    alone = relay(own, None, settings, Calls("never"))
    for one, other_ in zip(found, alone, strict=True):
        first = next((k for k, called in enumerate(one.by_teacher) if called), len(one.ids))
        assert one.ids[:first] == other_.ids[:first]


def test_a_row_without_room_ends_at_once(student: Any, teacher: Any) -> None:
    short = tiny_model("gpt2", n_positions=32)
    own = Side(head_of(short), [[40] * 31, [40] * 5], [0, 1])
    other = Side(head_of(teacher), [[40] * 4] * 2, [0, 1])
    first, second = relay(own, other, GREEDY, Calls(help_id=HELP))
    assert (first.ids, first.finish) == ((), "length")
    assert 0 < len(second.ids) <= 13  # 27 places are left, and a call takes two


def test_what_is_missing_is_said(student: Any) -> None:
    own = Side(head_of(student), [[40]])
    with pytest.raises(ValueError, match="seed"):
        relay(own, None, DRAWN, Calls("never"))
    with pytest.raises(ValueError, match="no teacher"):
        relay(own, None, GREEDY, Calls(help_id=HELP))


@pytest.mark.parametrize(
    ("kind", "is_cached"),
    [("llama", True), ("qwen3", True), ("gpt2", True), ("gemma3_text", False), ("mamba", False)],
)
def test_which_models_are_read_with_one_cache(kind: str, is_cached: bool) -> None:
    assert (why_not_cached(head_of(tiny_model(kind))) is None) == is_cached


@pytest.mark.slow
@pytest.mark.parametrize("kind", model_types())
def test_whatever_is_read_with_one_cache_is_read_right(kind: str) -> None:
    """On longer texts than the probe's, and by more rows."""
    try:
        head = head_of(tiny_model(kind))
    except BadInput as refused:  # for every use, by the proof
        pytest.skip(str(refused))
    if why_not_cached(head) is not None:
        pytest.skip("read again from the first token")
    g = torch.Generator().manual_seed(3)
    size = head.model.config.get_text_config().vocab_size
    texts = [torch.randint(0, min(size, 300), (90,), generator=g).tolist() for _ in range(6)]
    own, slow = CachedReader(head, 6, 90), RecomputedReader(head, 6, 90)
    read = [0] * 6
    with torch.no_grad():
        for turn in range(9):
            rows = [r for r in range(6) if (r + turn) % 3]
            unread = []
            for r in rows:
                stop = min(90, read[r] + 1 + (5 * r + 3 * turn) % 13)
                unread.append(texts[r][read[r] : stop])
                read[r] = stop
            rows, unread = [r for r, u in zip(rows, unread, strict=True) if u], [u for u in unread if u]
            torch.testing.assert_close(
                own.logits(rows, unread), slow.logits(rows, unread), rtol=1e-3, atol=1e-3
            )


def test_calls_are_drawn_by_their_probability_where_tokens_are_the_likeliest(
    student: Any, teacher: Any
) -> None:
    own, other = sides(eager(student, HELP), teacher, 60)
    settings = replace(GREEDY, stop_ids=frozenset())
    found = relay(own, other, settings, Calls("drawn", help_id=HELP))
    expected = sum(sum(a.help) for a in found)
    spread = math.sqrt(sum(p * (1 - p) for a in found for p in a.help))
    assert abs(sum(a.calls for a in found) - expected) < 5 * spread
    assert spread > 2
    for answer, mine in zip(found[:6], own.prompts, strict=False):
        text, path = list(mine), iter(answer.path)
        for called, p in zip(answer.by_teacher, answer.help, strict=True):
            logits = plain_logits(own.model, text)[-1]
            assert p == pytest.approx(float(torch.softmax(logits, 0)[HELP]), abs=1e-4)
            logits[HELP] = -torch.inf
            token = next(path)
            assert token == (HELP if called else int(logits.argmax()))
            text += [token, *([next(path)] if called else [])]


def test_calls_where_the_help_token_is_likely_enough(student: Any, teacher: Any) -> None:
    own, other = sides(eager(student, HELP), teacher, 10)
    before = relay(own, other, GREEDY, Calls("drawn", help_id=HELP))
    middle = sorted(p for a in before for p in a.help)[sum(len(a.help) for a in before) // 2]
    found = relay(own, other, GREEDY, Calls("likely", help_id=HELP, threshold=middle))
    told = [(called, p) for a in found for called, p in zip(a.by_teacher, a.help, strict=True)]
    assert {called for called, _ in told} == {False, True}
    assert all(called == (p > middle) for called, p in told)


def test_one_row_s_defect_costs_one_row(student: Any, teacher: Any) -> None:
    broken = copy.deepcopy(student)
    with torch.no_grad():
        broken.get_input_embeddings().weight[31] = torch.nan
    own, other = sides(broken, teacher, 5)
    rows = [[40, 41, 42] for _ in range(5)]
    rows[2] = [40, 31, 42]
    own, other = replace(own, prompts=rows), replace(other, prompts=[[40, 41]] * 5)
    found = relay(own, other, GREEDY, Calls("never"))
    assert [isinstance(a, Exception) for a in found] == [False, False, True, False, False]
    assert "not numbers" in str(found[2])


def test_a_teacher_gives_no_token_that_the_student_lacks(student: Any, teacher: Any) -> None:
    """Rows of a vocabulary that is padded to a rounder size are no tokens."""
    wide = copy.deepcopy(teacher)
    size = wide.config.vocab_size
    wide.resize_token_embeddings(size + 7, mean_resizing=False)
    with torch.no_grad():
        wide.get_output_embeddings().weight[size:] = 5 * wide.get_output_embeddings().weight[:size].mean(0)
    add_to_bias_of_all(wide, range(size, size + 7))
    own, other = sides(student, teacher, 6)
    told = relay(own, Side(head_of(wide), other.prompts, other.seeds, tokens=size), GREEDY, Calls("always"))
    assert all(token < size for answer in told for token in answer.ids)
    unlimited = relay(
        own,
        Side(head_of(wide), other.prompts, other.seeds),
        replace(GREEDY, max_new_tokens=1),
        Calls("always"),
    )
    assert all(answer.ids[0] >= size for answer in unlimited)


def add_to_bias_of_all(model: Any, tokens: Any) -> None:
    """Make some tokens of a model the likeliest everywhere."""
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    with torch.no_grad():
        head.bias[list(tokens)] = 1e6
