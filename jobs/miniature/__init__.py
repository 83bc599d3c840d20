"""A small world of teachers, students and tasks, made here."""
