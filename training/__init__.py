"""Making the student learn: token data, the Ray Train and DeepSpeed loop, objectives, checkpoints, evaluation
statistics.
"""
