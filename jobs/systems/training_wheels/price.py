"""What a call for help costs. Each budget has a price, which rises while students call more often than the
budget allows, and falls otherwise.
"""

import math
from collections.abc import Mapping
from typing import Any

from jobs.experiment.wheels import Wheels


def first_price(budget: float) -> float:
    """The price at which a student that could be the teacher itself calls at this rate. 0 for no calls, which
    are never allowed then.

    >>> round(first_price(0.2), 6)
    1.386294
    """
    return math.log((1 - budget) / budget) if budget > 0 else 0.0


def price_after(price: float, calls: float, decisions: float, budget: float, rate: float = 2.0) -> float:
    """The price after some of the student's own rollouts under a budget. Never below 0.

    The price is subtracted from the reward of each call, and the budget is not added back for each decision:
    that would pay for longer answers.

    Args:
        decisions: each of them writes one token, whoever chooses it; the end of an answer counts.
        budget: calls per decision.

    >>> price_after(1.0, calls=30, decisions=100, budget=0.2)
    1.2
    """
    if decisions == 0:
        return price
    return max(0.0, price + rate * (calls / decisions - budget))


def prices_after(
    prices: Mapping[int, float], counts: Mapping[int, Mapping[str, Any]], wheels: Wheels
) -> dict[int, float]:
    """The prices after a round.

    Args:
        counts: what was counted of the round's rollouts, by budget. Budgets without rollouts keep their
            prices.
    """
    found = dict(prices)
    for budget, counted in counts.items():
        if budget:
            told = counted["calls"], counted["decisions"], budget / 100, wheels.price_rate
            found[budget] = price_after(found[budget], *told)
    return found
