"""The command line: the parser, and the commands that are one file."""
