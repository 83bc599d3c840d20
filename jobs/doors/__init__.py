"""The commands. Each has one function, which reads the options and calls the code that does the work."""
