"""A small world of teachers, students and tasks that is made on the user's machine."""
