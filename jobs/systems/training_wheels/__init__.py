"""Training Wheels (after arXiv 2502.17717): a student that learns when to ask its teacher for a token."""
