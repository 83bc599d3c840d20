"""Views of a finished run: pages, exported files, and one answer again."""
