"""What a call for help costs. Each budget has a price, which rises while students call more often than the
budget allows, and falls otherwise.
"""


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
