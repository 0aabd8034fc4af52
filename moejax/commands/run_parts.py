"""What a run was made of, as its folder tells: its configuration, its base, the folder of its experts."""

from pathlib import Path
from typing import Any

from moejax.commands import check_base
from moejax.models.base import Base
from moejax.train.run_folder import read_json
from moejax.types import UserError


def config_of(folder: Path) -> dict[str, Any] | None:
    """The configuration in a run's config.json; None where there is none."""
    try:
        record = read_json(folder / "config.json")
    except (UserError, OSError):
        return None
    whole = (
        isinstance(record, dict)
        and isinstance(record.get("config"), dict)
        and isinstance(record.get("keys"), dict)
    )
    return record["config"] if whole else None


def experts_of(root: Path, config: dict[str, Any]) -> list[Path]:
    """The experts of a run: those that it was given, or its own, of each kind."""
    return (
        [Path(config["pool"])] if config.get("pool") else [root / "experts", *sorted(root.glob("experts@*"))]
    )


def base_of(config: dict[str, Any]) -> Base | None:
    """The base of a run, if it is at hand."""
    try:
        return check_base.load(str(config["base"]["source"]))
    except (UserError, KeyError, TypeError):
        return None
