"""Sweeps: Ray Tune over any keys of an experiment, on one shared pool and one shared table of
statistics.

The settings are known before anything starts: Tune's own generator expands grids and draws random values.
What they share (answers, verdicts, costs of the students as they are) is made once; then every setting and
seed is a Tune trial, a light driver that selects, launches the Ray Train run, evaluates and reports. All of
it goes through the store, so a trial that is started again, by Tune or by a second sweep, goes on where it
was.
"""
