"""Path consistency on trees of answers that are small enough for exact values.

The values are those of soft value iteration, worked out apart from this code. Tree W has the tokens 0 and 1
and answers of exactly two tokens. In tree E token 0 goes on and token 1 ends, after three tokens at most.
"""

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from jobs.systems.training_wheels.price import price_after
from training.objectives.path_consistency import (
    Paths,
    clipped_half_square,
    consistency,
    residuals,
    suffix_sums,
)
from training.path_settings import DECISION, STATE_ONLY, PathSettings

F = torch.float64
ANSWERS = ((0, 0), (0, 1), (1, 0), (1, 1))
STATES = {(): 0, (0,): 1, (1,): 2}
W = torch.tensor([[0.7, 0.3], [0.9, 0.1], [0.4, 0.6]], dtype=F).log()  # ln p_T by state
# alpha: V of the three states, first token 0, the four answers
BEST = {
    0.6: (
        (-0.346336, -0.090147, -0.264052),
        0.845796,
        (0.824620, 0.021176, 0.051998, 0.102205),
        (0.783974, 0.020132, 0.066056, 0.129837),
    ),
    2.0: (
        (1.207511, 0.470004, 0.682994),
        0.578630,
        (0.433973, 0.144658, 0.189401, 0.231968),
        (0.453267, 0.151089, 0.177838, 0.217806),
    ),
}


def paths(
    counts: Sequence[int], calls: Sequence[Sequence[int]] = (), own: bool = True, cut: Sequence[int] = ()
) -> Paths:
    """Paths with so many decisions each. `calls` are those of each path, `cut` the paths that were cut."""
    told, number = [], []
    for k, count in enumerate(counts):
        for i in range(count + (k in cut)):
            part = STATE_ONLY if i == count else DECISION
            told.append([0.0, part, float(bool(calls) and i in calls[k]), 1.0, float(own)])
            number.append(k)
    return Paths.of(torch.tensor(told, dtype=F), torch.tensor(number))


def along(values: torch.Tensor) -> torch.Tensor:
    """Values of tree W's states [3] along its four answers [4, 3]. At the end they are 0."""
    rows = [[values[0], values[STATES[(first,)]], torch.zeros((), dtype=F)] for first, _ in ANSWERS]
    return torch.stack([torch.stack(row) for row in rows])


def chosen(table: torch.Tensor) -> torch.Tensor:
    """Entries of a table by state and token [3, 2] along tree W's four answers [4, 2]."""
    return torch.stack([torch.stack([table[0, a], table[STATES[(a,)], b]]) for a, b in ANSWERS])


def every_residual(
    values: torch.Tensor, gains: torch.Tensor, gamma: float = 1.0, lengths: Sequence[int] = (1, 2)
) -> torch.Tensor:
    """C of the three sub-paths of each answer, of one and of two decisions."""
    where, sums = paths([2] * 4), suffix_sums(gains, gamma)
    found = [residuals(values, values, sums, where.ends(n), gamma) for n in lengths]
    return torch.cat([found[0], found[1][:, :1]], dim=1) if len(found) > 1 else found[0]


def minimised(parameters: Sequence[torch.Tensor], loss: Callable[[], torch.Tensor]) -> float:
    """The smallest loss that a quasi-Newton method finds."""
    optimizer = torch.optim.LBFGS(
        list(parameters),
        max_iter=2000,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    for _ in range(5):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return loss().item()


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.3])
def test_the_other_model_itself_has_no_residual_and_no_value(gamma: float) -> None:
    log_pi = chosen(W)
    found = every_residual(along(torch.zeros(3, dtype=F)), chosen(W) - log_pi, gamma)
    assert found.abs().max().item() < 1e-12
    # and any other policy has one
    other = torch.log_softmax(W + torch.tensor([[0.5, 0], [0, 0], [0, 0]], dtype=F), 1)
    assert every_residual(along(torch.zeros(3, dtype=F)), chosen(W) - chosen(other), gamma).abs().max() > 0.05


@pytest.mark.parametrize("alpha", BEST)
def test_the_best_policy_is_the_other_model_s_whole_answers_tempered(alpha: float) -> None:
    values, first, answers, stepwise = (torch.tensor(v, dtype=F) for v in BEST[alpha])
    whole = torch.softmax(chosen(W).sum(1) / alpha, 0)
    assert whole.tolist() == pytest.approx(answers.tolist(), abs=1e-6)
    assert whole[:2].sum().item() == pytest.approx(first.item(), abs=1e-6)
    log_pi = torch.stack([torch.stack([whole[:2].sum(), whole[2:].sum()]), whole[:2], whole[2:]])
    log_pi = (log_pi / log_pi.sum(1, keepdim=True)).log()
    found = every_residual(along(values), chosen(W) - alpha * chosen(log_pi))
    assert found.abs().max().item() < 2e-6
    # tempering each step is another policy, and it has residuals
    tempered = torch.log_softmax(W / alpha, 1)
    assert chosen(tempered).sum(1).exp().tolist() == pytest.approx(stepwise.tolist(), abs=1e-6)
    assert every_residual(along(values), chosen(W) - alpha * chosen(tempered)).abs().max() > 0.01


def student() -> torch.Tensor:
    return torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]], dtype=F).requires_grad_(True)


@pytest.mark.parametrize(("root", "loss"), [(0.0, 0.262859), (1.7, 2.119325)])
def test_own_full_paths_have_the_gradient_of_reverse_kl(root: float, loss: float) -> None:
    wanted = (-0.153228, 0.153228, -0.199427, 0.199427, -0.058446, 0.058446)
    logits = student()
    log_pi = chosen(torch.log_softmax(logits, 1)).sum(1)
    kl = (log_pi.exp() * (log_pi - chosen(W).sum(1))).sum()
    (by_kl,) = torch.autograd.grad(kl, logits, retain_graph=True)
    assert kl.item() == pytest.approx(0.242039, abs=1e-6)
    assert by_kl.flatten().tolist() == pytest.approx(wanted, abs=1e-6)
    where = paths([2] * 4)
    values = along(torch.tensor([root, 0, 0], dtype=F))
    settings = PathSettings(lengths=(0,), clip=1e9)
    gains = chosen(W) - chosen(torch.log_softmax(logits, 1))
    weights = log_pi.detach().exp().unsqueeze(1) * torch.tensor([1.0, 0.0], dtype=F)  # from the root alone
    found, _ = consistency(settings, where, values, values, gains, weights)
    (by_paths,) = torch.autograd.grad(found.sum() * 2, logits)  # of two decisions: the loss is C^2 / 4
    assert found.sum().item() * 2 == pytest.approx(loss, abs=1e-6)
    assert by_paths.flatten().tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("alpha", "begins"), [(1.0, 4.390760), (0.6, 4.460126)])
def test_paths_of_anybody_are_enough(alpha: float, begins: float) -> None:
    logits = torch.tensor([[1.0, -1.0], [0.5, 2.0], [-2.0, 0.0]], dtype=F).requires_grad_(True)

    def loss() -> torch.Tensor:
        whole = alpha * torch.logsumexp(logits / alpha, 1)
        gains = chosen(W) - (chosen(logits) - along(whole)[:, :2])
        return (every_residual(along(whole), gains) ** 2 / 2).sum() / 4

    assert loss().item() == pytest.approx(begins, abs=1e-6)
    assert minimised([logits], loss) < 1e-16
    whole = alpha * torch.logsumexp(logits / alpha, 1)
    values, _, answers, _ = BEST.get(alpha, ((0.0,) * 3, 0.7, (0.63, 0.07, 0.12, 0.18), ()))
    assert whole.tolist() == pytest.approx(values, abs=1e-6)
    log_pi = torch.log_softmax(logits / alpha, 1)
    assert chosen(log_pi).sum(1).exp().tolist() == pytest.approx(answers, abs=1e-6)


def test_one_residual_by_hand() -> None:
    uniform = math.log(0.5)
    where = paths([2])
    gains = torch.tensor([[math.log(0.7) - uniform, math.log(0.1) - uniform]], dtype=F)
    values = torch.zeros(1, 3, dtype=F)
    sums = suffix_sums(gains, 1.0)
    both = residuals(values, values, sums, where.ends(0), 1.0)
    assert both[0, 0].item() == pytest.approx(-1.272966, abs=1e-6)
    assert clipped_half_square(both, 20)[0, 0].item() == pytest.approx(0.810221, abs=1e-6)
    assert residuals(values, values, sums, where.ends(1), 1.0)[0, 0].item() == pytest.approx(
        0.336472, abs=1e-6
    )


def with_help(table: torch.Tensor, price: float) -> tuple[torch.Tensor, torch.Tensor]:
    """V* and ln pi* of tree W at alpha 1 if help costs this: by going backwards, states [3] and [3, 3]."""
    ends = torch.logsumexp(torch.cat([table[1:], torch.full((2, 1), -price, dtype=F)], 1), 1)
    after = torch.stack([ends[0], ends[1]])
    root = torch.cat([table[0] + after, ((table[0].exp() * after).sum() - price).reshape(1)])
    value = torch.logsumexp(root, 0)
    policies = [root - value]
    for k in (1, 2):
        policies.append(torch.cat([table[k], torch.tensor([-price], dtype=F)]) - ends[k - 1])
    return torch.stack([value, *ends]), torch.stack(policies)


def test_calls_at_a_price() -> None:
    values, log_pi = with_help(W, 0.9)
    assert values.tolist() == pytest.approx([0.682308, 0.341154, 0.341154], abs=1e-6)
    assert log_pi[0].exp().tolist() == pytest.approx([0.497665, 0.213285, 0.289050], abs=1e-6)
    # all four answers, each token written by the student or by the other model
    for called in ((), (0,), (1,), (0, 1)):
        where = paths([2] * 4, [called] * 4)
        gains = torch.where(
            where.calls[:, :-1], -0.9 - chosen_calls(log_pi), chosen(W) - chosen(log_pi[:, :2])
        )
        sums = suffix_sums(gains, 1.0)
        own = residuals(along(values), along(values), sums, where.ends(1), 1.0)
        assert own.abs().max().item() < 1e-6  # here values do not depend on the token that is drawn


def chosen_calls(log_pi: torch.Tensor) -> torch.Tensor:
    """ln pi of a call along the four answers [4, 2]."""
    return torch.stack([torch.stack([log_pi[0, 2], log_pi[STATES[(a,)], 2]]) for a, _ in ANSWERS])


@pytest.mark.parametrize(("budget", "price"), [(0.1, 2.197225), (0.2, 1.386294), (0.4, 0.405465)])
def test_prices_go_to_where_the_budget_is_kept(budget: float, price: float) -> None:
    now = 0.0
    for _ in range(2000):
        share = float(with_help(W, now)[1][0, 2].exp())
        now = price_after(now, share * 1000, 1000, budget)
    assert now == pytest.approx(math.log((1 - budget) / budget), abs=1e-6)
    assert now == pytest.approx(price, abs=1e-6)


def test_a_price_is_never_negative_and_nothing_changes_it_but_decisions() -> None:
    assert price_after(0.1, 0, 100, 0.4) == 0.0
    assert price_after(0.7, 0, 0, 0.4) == 0.7


# Own tokens are fixed at rho, and only calls are free: price, K = KL(rho || p_T), the best share of calls
ONE_STEP = ((0.15, 2.661889), (0.1, 3.158597), (0.3, 1.679888))


@pytest.mark.parametrize(("budget", "price"), ONE_STEP)
def test_calls_go_where_the_student_is_weak(budget: float, price: float) -> None:
    kl = torch.tensor([0.05, 0.2, 0.5, 1.0, 2.0], dtype=F)
    now = 0.0
    for _ in range(4000):
        now = price_after(now, float(torch.sigmoid(kl - now).sum()), len(kl), budget)
    share = torch.sigmoid(kl - now)
    assert now == pytest.approx(price, abs=1e-5)
    assert share.tolist() == sorted(share.tolist())
    if budget == 0.15:
        assert share.tolist() == pytest.approx([0.0684, 0.0786, 0.1032, 0.1595, 0.3403], abs=1e-4)


def test_the_best_share_of_calls_is_where_the_paths_gradient_is_zero() -> None:
    """Tree W, own tokens uniform, price 0.4, alpha 1."""
    best, value = torch.tensor([0.409716, 0.527678, 0.406226], dtype=F), (0.810032, 0.239269, 0.500846)
    rho = math.log(0.5)
    logits = torch.logit(best).requires_grad_(True)
    total: torch.Tensor = torch.zeros((), dtype=F)
    for first_call in (0, 1):
        for second_call in (0, 1):
            own, calls = torch.nn.functional.logsigmoid(-logits), torch.nn.functional.logsigmoid(logits)
            rows, chances = [], []
            for a, b in ANSWERS:
                state = STATES[(a,)]
                gain, chance = [], torch.zeros((), dtype=F)
                for at, token, is_call in ((0, a, first_call), (state, b, second_call)):
                    log_pi = calls[at] if is_call else own[at] + rho
                    gain.append(-0.4 - log_pi if is_call else W[at, token] - log_pi)
                    chance = chance + (calls[at] + W[at, token] if is_call else own[at] + rho)
                rows.append(torch.stack(gain))
                chances.append(chance.detach().exp())
            gains = torch.stack(rows)
            where = paths([2] * 4, [[k for k, c in enumerate((first_call, second_call)) if c]] * 4)
            values = along(torch.tensor(value, dtype=F)).clone()
            found = residuals(values, values, suffix_sums(gains, 1.0), where.ends(0), 1.0)
            total = total + (torch.stack(chances) * found[:, 0] ** 2 / 2).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    assert gradient.abs().max().item() < 1e-5
    moved = best.clone()
    moved[0] += 0.05
    assert not torch.allclose(torch.logit(moved), logits.detach())


# Tree E: ln p_T of the tokens 0 and 1, and V* and pi*(help) at price 0.7
E = ((0.6, 0.4), (0.5, 0.5), (0.0, 1.0))
E_VALUES, E_HELP = (0.803394, 0.618311, 0.403186), (0.322256, 0.327353, 0.331812)
PRICE = 0.7


def one_step_residuals(
    values: torch.Tensor, ahead: torch.Tensor, log_pi: torch.Tensor
) -> list[tuple[float, int, int, torch.Tensor]]:
    """C of every decision in tree E: the chance of the token, state, action, C. Action 2 is a call."""
    found = []
    for state, chances in enumerate(E):
        for action in (0, 1, 2):
            for token in (0, 1) if action == 2 else (action,):
                if chances[token] == 0:
                    continue
                where = paths([1], [[0]] if action == 2 else [[]])
                reward = -PRICE if action == 2 else math.log(chances[token])
                later = torch.zeros((), dtype=F) if token == 1 else ahead[state + 1]
                table = torch.stack([values[state], later]).reshape(1, 2)
                gains = (reward - log_pi[state, action]).reshape(1, 1)
                c = residuals(table, table, suffix_sums(gains, 1.0), where.ends(1), 1.0)[0, 0]
                found.append((chances[token] if action == 2 else 1.0, state, action, c))
    return found


def learned(kind: str) -> tuple[float, torch.Tensor, torch.Tensor]:
    """What the square of C, the product of two draws, or a target without gradient learn in tree E: the
    smallest loss, V, and pi(help)."""
    logits = torch.zeros(3, 3, dtype=F)
    logits[2, 0] = -torch.inf
    free = torch.ones_like(logits, dtype=torch.bool)
    free[2, 0] = False
    own = torch.zeros(int(free.sum()), dtype=F).requires_grad_(True)

    def policy() -> tuple[torch.Tensor, torch.Tensor]:
        table = logits.masked_scatter(free, own)
        values = torch.logsumexp(table, 1)
        return values, table - values.unsqueeze(1)

    def loss(frozen: torch.Tensor | None = None) -> torch.Tensor:
        values, log_pi = policy()
        found = one_step_residuals(values, values if frozen is None else frozen, log_pi)
        if kind != "product":
            return sum((chance * c**2 / 2 for chance, _, _, c in found), torch.zeros((), dtype=F))
        means: dict[tuple[int, int], torch.Tensor] = {}
        for chance, state, action, c in found:
            means[state, action] = means.get((state, action), torch.zeros((), dtype=F)) + chance * c
        return sum((c**2 / 2 for c in means.values()), torch.zeros((), dtype=F))

    smallest = 0.0
    if kind == "frozen":
        for _ in range(60):
            target = policy()[0].detach().clone()
            smallest = minimised([own], lambda target=target: loss(target))  # type: ignore[misc]
    else:
        smallest = minimised([own], loss)
    values, log_pi = policy()
    return smallest, values.detach(), log_pi[:, 2].exp().detach()


def test_the_plain_square_is_wrong_after_a_call() -> None:
    smallest, values, calls = learned("square")
    assert smallest == pytest.approx(0.055331, abs=1e-6)
    assert values.tolist() == pytest.approx([0.742117, 0.528965, 0.320439], abs=1e-5)
    assert calls.tolist() == pytest.approx([0.324738, 0.329374, 0.342384], abs=1e-5)


@pytest.mark.parametrize("kind", ["product", "frozen"])
def test_two_draws_or_a_target_without_gradient_are_right(kind: str) -> None:
    _, values, calls = learned(kind)
    assert values.tolist() == pytest.approx(E_VALUES, abs=2e-6)
    assert calls.tolist() == pytest.approx(E_HELP, abs=2e-6)


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_running_sums_are_the_double_loop(gamma: float) -> None:
    g = torch.Generator().manual_seed(1)
    counts, calls = [7, 3, 1, 5], [[2, 3], [], [0], [4]]
    for own in (True, False):
        where = paths(counts, calls, own, cut=[1, 3])
        assert where.counts.tolist() == counts
        size = where.is_decision.shape
        values, ahead = torch.randn(size, generator=g, dtype=F), torch.randn(size, generator=g, dtype=F)
        gains = torch.randn(size, generator=g, dtype=F)[:, :-1] * where.is_decision[:, :-1]
        for length in (1, 2, 4, 0):
            ends = where.ends(length)
            found = residuals(values, ahead, suffix_sums(gains, gamma), ends, gamma)
            for p, count in enumerate(counts):
                for i in range(count):
                    stop = min(count, i + length) if length else count
                    for k in calls[p] if not own else ():
                        stop = min(stop, k + 1) if k >= i else stop
                    assert ends[p, i].item() == stop
                    slow = -values[p, i] + gamma ** (stop - i) * ahead[p, stop]
                    slow = slow + sum(gamma ** (k - i) * gains[p, k] for k in range(i, stop))
                    assert found[p, i].item() == pytest.approx(slow.item(), abs=1e-12)


def test_a_cut_path_goes_on_with_its_last_state_s_value() -> None:
    values = torch.tensor([1.0, 2.0, 3.0], dtype=F)
    cut, ended = paths([2], cut=[0]), paths([3])
    assert cut.counts.tolist() == [2]
    assert ended.counts.tolist() == [3]
    for where, expected in ((cut, 3.0 - 1.0), (ended, 0.0 - 1.0)):
        table = where.laid(values)
        sums = suffix_sums(torch.zeros(1, table.shape[1] - 1, dtype=F), 1.0)
        assert residuals(table, table, sums, where.ends(0), 1.0)[0, 0].item() == expected


def test_beyond_the_clip_the_gradient_stays() -> None:
    values = torch.tensor([0.5, 20.0, 25.0, -1000.0], dtype=F).requires_grad_(True)
    found = clipped_half_square(values, 20.0)
    assert found.tolist() == pytest.approx([0.125, 200.0, 300.0, 19800.0])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.5, 20.0, 20.0, -20.0])
