"""`python -m moejax merge ROUTER OUT`: the adapter that a router makes of a pool, or the whole model that it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from moejax.commands import check_base
from moejax.commands.out import Form, check, write_out
from moejax.commands.parse import parse
from moejax.commands.run_parts import base_of, config_of, experts_of, settings_of
from moejax.evaluate import router_file
from moejax.experts.merge import merged
from moejax.experts.pool import Pool, read_pool
from moejax.methods import TABLE, load
from moejax.models.base import Base
from moejax.types import UserError

DESCRIPTION = (
    "Writes the one adapter that ROUTER makes of its experts, exactly, or of lower rank with the error stated; with "
    "--full the whole model that this gives. The router's weights must be those of every request."
)


@dataclass(frozen=True, kw_only=True)
class Options(Form):
    """Which router, where the merge goes, and as what."""

    router: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="ROUTER")]]
    """a router of a run, as runs/NAME/routers/METHOD or runs/NAME/routers/METHOD@TASK"""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """the folder to write; it must not be there"""
    experts: str = ""
    """The experts that it was fitted on; those of the run unless given."""
    base: str = ""
    """Their base: a Hugging Face folder, or `minilm`; that of the run unless given."""


def main(argv: Sequence[str]) -> None:
    """Write the folder. Raises UserError when the router's weights vary, or it does not fit experts and base."""
    options = parse(Options, argv, "python -m moejax merge", DESCRIPTION)
    check(options, options.out)
    record = router_file.read_record(options.router)
    method = load(record["method"])
    if method.merge is None:
        can = ", ".join(name for name in TABLE if load(name).merge is not None)
        raise UserError(
            f"{options.router}: the weights of {record['method']} vary from request to request, so that no one adapter "
            f"does what it does; those that can be merged are {can}"
        )
    base, pool = _given(options)
    settings = settings_of(method, record["config"])
    fitted, pool = router_file.load(options.router, method, settings, base, pool)
    weights, mode = method.merge(settings, pool, fitted)
    expert = merged(pool.bank if fitted.bank is None else fitted.bank, weights, mode, options.out.name)
    if not expert.loras:
        raise UserError(
            f"{options.router}: its weights are zero, so that the merge is the bare base: nothing to write"
        )
    info = {
        "description": f"{options.router.name} over {', '.join(pool.names)}",
        "provenance": "moejax merge",
    }
    said = write_out(options.out, expert._replace(info=info), base, options)
    used = {name: float(w) for name, w in zip(pool.names, weights, strict=False) if w}
    print(f"{said}; {mode} of {_said(used)}")


def _given(options: Options) -> tuple[Base, Pool]:
    """The base and the experts of the router's run, or those that the options name."""
    root = options.router.resolve().parent.parent
    config = config_of(root) or {}
    base = check_base.load(options.base) if options.base else base_of(config)
    if base is None:
        raise UserError(f"{options.router}: the base of its run is not at hand: say --base FOLDER")
    experts = options.experts or experts_of(root, config)[0]
    pool, _ = read_pool(
        experts, base.sites, base.shapes, base.layers, base.fingerprint,
        allow_base_mismatch=bool(config.get("base", {}).get("allow_mismatch")), homes=base.homes,
        ignore_saved=bool(config.get("base", {}).get("ignore_saved_modules")),
    )  # fmt: skip
    return base, pool


def _said(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{np.round(w, 3):g} {name}" for name, w in weights.items())
