"""What differs between two configs, field by field."""

from collections.abc import Collection, Mapping
from typing import Any

MISSING = object()


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], free: Collection[str] = (), prefix: str = ""
) -> list[str]:
    """`experts.rank: 8 there, 16 here` for each field that differs; fields in `free`, by dotted name, may."""
    found = []
    for name in sorted(there.keys() | here.keys()):
        field, old, new = prefix + name, there.get(name, MISSING), here.get(name, MISSING)
        if field in free or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, free, f"{field}.")
        else:
            found.append(f"{field}: {_said(old)} there, {_said(new)} here")
    return found


def _said(value: Any) -> str:
    text = "nothing" if value is MISSING else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
