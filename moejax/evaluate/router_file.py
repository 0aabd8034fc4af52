"""A router on disk: its arrays, and `router.json` which ties them to the experts and the base they were fitted on.

On load the pool is put into the router's order; an expert that is missing, extra or changed is refused by name.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from moejax.contract import Fitted, Method
from moejax.experts.bank import Bank, Stack
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.train import tree_file
from moejax.types import UserError


def save(folder: Path, method: Method, config: Any, base: Base, pool: Pool, fitted: Fitted) -> None:
    """Write a router whole: the arrays first, `router.json` last, so that a folder with it is complete."""
    tree = {"router": fitted.router, "patch": dict(fitted.patch)}
    if fitted.bank is not None:
        tree["bank"] = fitted.bank
    tree_file.save(folder / "router.safetensors", tree)
    record = {
        "method": method.card.key,
        "config": asdict(config),
        "needs": sorted(method.needs(config)),
        "base": base.fingerprint,
        "experts": {name: info.get("hash") for name, info in zip(pool.names, pool.infos, strict=True)},
    }
    part = folder / f"router.json.{os.getpid()}.part"
    part.write_text(json.dumps(record, indent=1, default=str) + "\n")
    os.replace(part, folder / "router.json")


def load(folder: Path, method: Method, config: Any, base: Base, pool: Pool) -> tuple[Fitted, Pool]:
    """The router, and the pool in the order that the router was fitted in.

    Raises UserError when the folder is no whole router, is of another method or base, or when its experts are
    not the pool's.
    """
    try:
        record = json.loads((folder / "router.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'router.json'}: not a whole router ({error}); fit it again") from error
    if record["method"] != method.card.key:
        raise UserError(f"{folder}: a router of {record['method']!r}, expected one of {method.card.key!r}")
    if record["base"] != base.fingerprint:
        raise UserError(
            f"{folder}: fitted on another base (fingerprint {record['base']}); fit it again on this"
        )
    _same_experts(folder, record["experts"], pool)
    tree = tree_file.load(folder / "router.safetensors")
    router = {"places": {}, "knobs": {}} | _arrays(tree.get("router", {}))
    bank = _bank(tree["bank"]) if "bank" in tree else None
    names = tuple(record["experts"])
    return Fitted(router, names, bank, _arrays(tree.get("patch", {}))), pool.take(names)


def _same_experts(folder: Path, fitted: dict[str, str], pool: Pool) -> None:
    found = {name: info.get("hash") for name, info in zip(pool.names, pool.infos, strict=True)}
    for name in fitted:
        if name not in found:
            raise UserError(
                f"{folder}: was fitted with expert {name!r}, which the pool lacks; add it or fit again"
            )
        if fitted[name] != found[name]:
            raise UserError(f"{folder}: expert {name!r} has changed since the fit; fit again")
    for name in found:
        if name not in fitted:
            raise UserError(
                f"{folder}: the pool has expert {name!r}, which the fit did not; drop it or fit again"
            )


def _arrays(tree: Any) -> Any:
    return (
        {name: _arrays(leaf) for name, leaf in tree.items()} if isinstance(tree, dict) else jnp.asarray(tree)
    )


def _bank(tree: Any) -> Bank:
    sites = {path: Stack(**_arrays(leaves)) for path, leaves in tree["sites"].items()}
    return Bank(sites, jnp.asarray(tree["alive"]))
