"""The doors: one function a command, which reads its options and calls what does the work."""
