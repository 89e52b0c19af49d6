"""The command line: one parser, one way in, answers and errors in words."""
