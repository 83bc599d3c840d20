"""Sweeps: Ray Tune over any keys of an experiment, on one shared pool and one shared table of statistics.

All settings are known before a sweep starts: Tune's own generator expands grids and draws random values. What
the settings share is made once: answers, verdicts, and the costs of the students before training. Then every
setting and seed is one Tune trial. A trial is a light driver: it selects, starts a Ray Train run, evaluates
and reports. All results are in the store, so a trial that is started again continues where it stopped.
"""
