"""The systems: each implements one way of teaching students, with its algorithm in one file."""
