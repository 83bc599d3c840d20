"""What follows from finished stages: tables, intervals, verdicts."""
