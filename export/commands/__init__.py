"""The commands of `python -m export`, a module each: `HELP`, `DESCRIPTION`, `add_arguments(parser)`, `run(args)`."""
