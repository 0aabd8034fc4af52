"""Routers and runs: whole files, settings that the method knows, and the experts and the base of the fit."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from moejax.commands import check_experts
from moejax.commands.findings import Findings, plural
from moejax.commands.run_parts import base_of, config_of, experts_of, settings_of
from moejax.contract import Method
from moejax.evaluate import router_file
from moejax.experts.pool import Pool, read_pool
from moejax.methods import load as method_of
from moejax.models.base import Base
from moejax.train import tree_file
from moejax.train.code_version import code_version
from moejax.train.run_folder import read_json
from moejax.types import UserError


def router(folder: Path, base: Base | None) -> Findings:
    """A router's folder; where it stands in a run, against the experts and the base of that run."""
    root = folder.resolve().parent.parent
    config = config_of(root)
    if config is None:
        return _router(folder, base, [])
    base = base or base_of(config)
    pools = [] if base is None else [pool for path in experts_of(root, config) if (pool := _pool(path, base))]
    return _router(folder, base, pools)


def run(folder: Path, base: Base | None) -> Findings:
    """A run's folder: its record, its stages, every expert and every router."""
    found = Findings(f"run {folder}")
    for path in [folder / "config.json", *sorted(folder.glob("stages/**/*.json")), folder / "results.json"]:
        try:
            if path.exists():
                read_json(path)
        except UserError as error:
            found.faults.append(str(error))
    config = config_of(folder)
    if config is None:
        if not found.faults:
            found.faults.append(f"{folder / 'config.json'}: not that of a run: expected 'config' and 'keys'")
        return found
    known, code = read_json(folder / "config.json")["keys"], code_version()
    found.lines.append(f"seed {config.get('seed')}, base {config.get('base', {}).get('source')}")
    if known.get("code") != code:
        found.warnings.append(
            f"made by other code ({known.get('code')} there, {code} here): say --accept-code"
        )
    base = base or base_of(config)
    if base is not None and known.get("base") not in (None, base.identity):
        found.faults.append(
            f"{folder / 'config.json'}: the run is of base {known['base']}, not of {base.identity}"
        )
    pools = []
    for experts in experts_of(folder, config):
        if experts.is_dir():
            found.parts.append(check_experts.experts(experts, base))
            pool = None if base is None else _pool(experts, base)
            pools += [] if pool is None else [pool]
    for path in sorted(folder.glob("routers/*")):
        if path.is_dir():
            found.parts.append(_router(path, base, pools, refits=bool(config.get("pool"))))
    return found


def _pool(folder: Path, base: Base) -> Pool | None:
    """The experts, if all of them can be read."""
    try:
        return read_pool(
            folder, base.sites, base.shapes, base.layers, base.fingerprint,
            allow_base_mismatch=True, homes=base.homes, ignore_saved=True,
        )[0]  # fmt: skip
    except UserError:
        return None


def _router(folder: Path, base: Base | None, pools: Sequence[Pool], refits: bool = False) -> Findings:
    """A router against what there is to compare it with. refits: the run fits it anew when experts come and go."""
    found = Findings(f"router {folder}")
    try:
        record = router_file.read_record(folder)
    except UserError as error:
        found.faults.append(str(error))
        return found
    found.lines.append(f"{record['method']} over {plural(len(record['experts']), 'expert')}")
    is_open, pool = False, pools[0] if pools else None
    try:
        method = method_of(record["method"])
        pool = next((pool for pool in pools if _kind(method, record["config"]) in pool.kinds), pool)
        is_open = method.card.open
        found.faults += (
            f"{folder / 'router.json'}: {fault}" for fault in _settings(method.Config, record["config"])
        )
    except UserError as error:
        found.faults.append(f"{folder / 'router.json'}: {error}")
    try:
        _finite(folder / "router.safetensors", tree_file.load(folder / "router.safetensors"), found)
    except UserError as error:
        found.faults.append(str(error))
    if base is not None and record["base"] != base.identity:
        found.faults.append(
            f"{folder}: fitted on base {record['base']}, not on {base.identity}; fit it again"
        )
    if pool is not None:
        others = [f"{folder}: {fault}" for fault in router_file.other_experts(record, pool)]
        (found.warnings if is_open or refits else found.faults).extend(others)
    else:
        found.warnings.append("its experts were not compared: they, or their base (--base), are not at hand")
    return found


def _kind(method: Method, given: dict[str, Any]) -> str:
    """The kind of experts that a router is for; empty: any."""
    known = {field.name for field in fields(method.Config)}
    return method.kind(settings_of(method, {name: value for name, value in given.items() if name in known}))


def _settings(kind: Any, given: dict[str, Any]) -> list[str]:
    """Fields of a method's configuration that the file has and the method lacks, or the other way round."""
    known = {field.name for field in fields(kind)}
    faults = [f"the method has no setting {name!r}; fit it again" for name in sorted(given.keys() - known)]
    return faults + [
        f"the setting {name!r} is missing; fit it again" for name in sorted(known - given.keys())
    ]


def _finite(path: Path, tree: Any, found: Findings, name: str = "") -> None:
    if isinstance(tree, dict):
        for key, leaf in tree.items():
            _finite(path, leaf, found, f"{name}|{key}" if name else key)
    elif np.issubdtype(np.asarray(tree).dtype, np.floating) and not np.isfinite(tree).all():
        found.faults.append(f"{path}: tensor {name!r} holds NaN or infinity; fit it again")
