"""One stage a file: ask, verify, score, select, train, evaluate."""
