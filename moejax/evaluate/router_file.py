"""A router on disk: its arrays, and `router.json` which ties them to the experts and the base they were fitted on.

On load the pool is put into the router's order; an expert that is missing, extra or changed is refused by name,
unless the method is open: its router is then made anew for the experts that are there.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from moejax.contract import Fitted, Method
from moejax.evaluate.grants import Grants
from moejax.experts import bank as banks
from moejax.experts import stacks
from moejax.experts.bank import Bank
from moejax.experts.pool import Pool
from moejax.models.base import Base
from moejax.train import tree_file
from moejax.train.differences import differences
from moejax.types import UserError


def save(folder: Path, method: Method, config: Any, base: Base, pool: Pool, fitted: Fitted) -> None:
    """Write a router whole: the arrays first, `router.json` last, so that a folder with it is complete."""
    (folder / "router.json").unlink(missing_ok=True)
    tree = {"router": fitted.router, "patch": dict(fitted.patch)}
    if fitted.bank is not None:
        tree["bank"] = fitted.bank
    tree_file.save(folder / "router.safetensors", tree)
    record = {
        "method": method.card.key,
        "config": _plain(config),
        "needs": sorted(method.needs(config)),
        "base": base.identity,
        "experts": _hashes(pool),
        "capacity": banks.size(pool.bank),
    }
    part = folder / f"router.json.{os.getpid()}.part"
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, folder / "router.json")


def load(folder: Path, method: Method, config: Any, base: Base, pool: Pool) -> tuple[Fitted, Pool]:
    """The router, and the pool in the order that the router was fitted in.

    Raises UserError when the folder is no whole router, is of another method, config or base, or when its
    experts are not the pool's and the method is not open.
    """
    record = read_record(folder)
    if record["method"] != method.card.key:
        raise UserError(f"{folder}: a router of {record['method']!r}, expected one of {method.card.key!r}")
    if changed := differences(record["config"], _plain(config)):
        raise UserError(f"{folder}: fitted with other settings ({'; '.join(changed)}); fit it again")
    if record["base"] != base.identity:
        raise UserError(
            f"{folder}: fitted on another base (fingerprint {record['base']}); fit it again on this"
        )
    tree = tree_file.load(folder / "router.safetensors")
    router = {"places": {}, "knobs": {}} | _arrays(tree.get("router", {}))
    changed = next(other_experts(record, pool), None)
    if changed and not method.card.open:
        raise UserError(f"{folder}: {changed}")
    names = tuple(record["experts"])
    bank = _bank(tree["bank"]) if "bank" in tree else None
    fitted = Fitted(router, names, bank, _arrays(tree.get("patch", {})))
    return (
        (_extended(method, config, base, pool, fitted), pool) if changed else (fitted, _ordered(pool, names))
    )


def read_record(folder: Path) -> dict[str, Any]:
    """What `router.json` says. Raises UserError when it is not that of a whole router."""
    path = folder / "router.json"
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole router ({error}); fit it again") from error
    missing = {"method", "config", "base", "experts", "capacity"} - (
        record.keys() if isinstance(record, dict) else set()
    )
    if missing:
        raise UserError(f"{path}: not a whole router (it has no {min(missing)!r}); fit it again")
    for name in ("config", "experts"):
        if not isinstance(record[name], dict):
            raise UserError(f"{path}: not a whole router ({name!r} is no object); fit it again")
    return record


def _hashes(pool: Pool) -> dict[str, str | None]:
    return {name: info.get("hash") for name, info in zip(pool.names, pool.infos, strict=True)}


def other_experts(record: Mapping[str, Any], pool: Pool) -> Iterator[str]:
    """What keeps a pool from being the one that the router was fitted on."""
    fitted, found = record["experts"], _hashes(pool)
    for name in fitted:
        if name not in found:
            yield f"was fitted with expert {name!r}, which the pool lacks; add it or fit again"
        elif fitted[name] != found[name]:
            yield f"expert {name!r} has changed since the fit; fit again"
    for name in found:
        if name not in fitted:
            yield f"the pool has expert {name!r}, which the fit did not; drop it or fit again"
    if fitted.keys() == found.keys() and record["capacity"] != banks.size(pool.bank):
        yield f"was fitted with {record['capacity']} expert slots; read the pool with that capacity or fit again"


def _extended(method: Method, config: Any, base: Base, pool: Pool, before: Fitted) -> Fitted:
    """An open method's router for another pool: its fit reads nothing but the experts; tuned knobs are kept."""
    given = pool.allow(*method.extras(config))
    if method.extend is not None:
        return method.extend(config, base, given, before)
    fitted = method.fit(config, base, given, Grants(frozenset(), {}), None)
    return fitted._replace(router=fitted.router | {"knobs": fitted.router["knobs"] | before.router["knobs"]})


def _ordered(pool: Pool, names: tuple[str, ...]) -> Pool:
    """The pool with its experts in this order; its free slots stay."""
    if names == pool.names:
        return pool
    free = range(len(names), banks.size(pool.bank))
    bank = banks.take(pool.bank, [*map(pool.index, names), *free])
    return replace(pool.take(names), bank=bank)


def _plain(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(config)))


def _arrays(tree: Any) -> Any:
    return (
        {name: _arrays(leaf) for name, leaf in tree.items()} if isinstance(tree, dict) else jnp.asarray(tree)
    )


def _bank(tree: Any) -> Bank:
    kinds = {frozenset(record._fields) - {"bias"}: record for record in stacks.OF_KIND.values()}
    sites = {
        path: kinds[frozenset(leaves) - {"bias"}](**_arrays(leaves)) for path, leaves in tree["sites"].items()
    }
    return Bank(sites, jnp.asarray(tree["alive"]))
