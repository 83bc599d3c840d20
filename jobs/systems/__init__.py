"""One way of teaching students a file, its algorithm from top to bottom."""
