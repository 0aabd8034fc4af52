"""What a run was made of, as its folder tells: its configuration, its base, the folder of its experts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moejax.commands import check_base
from moejax.contract import Method
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
    """The base of a run with the model beside it, if both are at hand."""
    try:
        base, beside = check_base.load(str(config["base"]["source"])), config["base"].get("beside")
        return replace(base, beside=check_base.load(str(beside))) if beside else base
    except (UserError, KeyError, TypeError):
        return None


def settings_of(method: Method, record: Mapping[str, Any]) -> Any:
    """A method's configuration from what router.json says. Raises UserError on a setting that the method lacks."""
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
    try:
        return method.Config(**given)
    except TypeError as error:
        raise UserError(
            f"router.json has other settings than {method.card.key} ({error}): fit it again"
        ) from error
