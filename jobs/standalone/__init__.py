"""Stages alone, on the user's own files, in this process and without Ray."""
