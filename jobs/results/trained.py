"""What arms were trained on: whether a budget of tokens came to the same for all of them."""

import pandas as pd

from jobs.results.outcome import Outcome

APART = 1.1  # the largest number of tokens over the smallest, from which on it is told


def token_lines(outcome: Outcome) -> list[str]:
    """A line about answer tokens that arms were trained on, if they lie apart though a budget was given. A
    training takes whole steps, so few large steps come near a budget only by chance.
    """
    budget = outcome.start.experiment.train.tokens
    if budget is None:
        return []
    rows = []
    for (path, _), own in outcome.rounds.items():
        tokens = {} if own.trained is None else own.trained.manifest()["counts"]
        if "answer_tokens" in tokens:
            rows.append((path.arm.name, float(tokens["answer_tokens"])))
    means = pd.DataFrame(rows, columns=["arm", "tokens"]).groupby("arm", sort=False)["tokens"].mean()
    if len(means) < 2 or means.max() <= APART * means.min():
        return []
    told = ", ".join(f"{arm} {tokens:,.0f}" for arm, tokens in means.sort_values().items())
    size = outcome.start.experiment.train.batch_size
    return [
        f"answer tokens that a training took in the mean, for train.tokens {budget:,}: {told} (whole steps "
        f"of train.batch_size {size}; a smaller one comes nearer)"
    ]
