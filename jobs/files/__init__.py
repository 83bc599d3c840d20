"""Users' files: questions and answers in the layouts people have."""
