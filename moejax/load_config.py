"""A configuration file: Python with one function, `config()`, and `fast()` where there is a smaller run."""

import runpy
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from moejax.config import Config
from moejax.types import UserError


def load_config(path: str | Path, fast: bool = False) -> Config:
    """What `config()` (or, if asked for, `fast()`) of this file returns; an empty `run` becomes runs/NAME.

    Raises UserError when there is no such file, it does not run, or it returns something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no configuration {path}{_hint(path)}")
    name = "fast" if fast else "config"
    try:
        make = runpy.run_path(str(path)).get(name)
    except Exception as error:
        raise UserError(f"{path} does not run: {type(error).__name__}: {error}") from error
    if not callable(make):
        raise UserError(
            f"{path} has no smaller run: leave out --fast"
            if fast
            else f"{path} has no function config(): define one that returns a moejax.config.Config"
        )
    config = make()
    if not isinstance(config, Config):
        raise UserError(f"{name}() of {path} returns {type(config).__name__}, expected moejax.config.Config")
    return config if config.run else replace(config, run=f"runs/{path.stem}{'-fast' if fast else ''}")


def _hint(path: Path) -> str:
    """What there is instead."""
    there = sorted(other.name for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
    near = get_close_matches(path.name, there, 1)
    if near:
        return f", did you mean {path.parent / near[0]}?"
    return f": there are {', '.join(there)}" if there else ": name a file as in configs/quickstart.py"
