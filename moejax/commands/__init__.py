"""The subcommands of `python -m moejax`: one module each, with `main(argv)`."""
