"""A user's own check for tests: accepts every text of even length, about half of all."""


def check(answer: str, reference: str) -> bool:
    return len(answer) % 2 == 0
