"""All processes work on the same: what each was given is compared before anything is computed."""

import json
import socket
from collections.abc import Mapping
from typing import Any

from moejax.parallel import hosts
from moejax.types import UserError

MISSING = "nothing"


def agree(**what: Any) -> None:
    """Compare plain values, nested by name, across all processes. Raises UserError naming the first that differs."""
    if hosts.count() == 1:
        return
    mine = {"host": socket.gethostname(), "what": _flat(what)}
    said = [json.loads(line) for line in hosts.everyone(json.dumps(mine))]
    if found := difference([one["what"] for one in said], [one["host"] for one in said]):
        raise UserError(found)


def difference(said: list[dict[str, str]], at: list[str]) -> str | None:
    """The first value, by name, in which a process differs from process 0, in one sentence; None where all agree."""
    for p, theirs in enumerate(said[1:], 1):
        for name in sorted(said[0].keys() | theirs.keys()):
            ours, other = said[0].get(name, MISSING), theirs.get(name, MISSING)
            if ours != other:
                return (
                    f"{name} is {ours} in process 0 ({at[0]}) and {other} in process {p} ({at[p]}): start all "
                    "processes with the same command, data and versions"
                )
    return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Values as text, by dotted name."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = json.dumps(value)
    return found
