"""Choosing the answers that this student should learn from: verification, forward statistics, costs and
rules. No Ray here.
"""
