"""Rows that choose between a strong and a weak member, in numbers: APGR and CPT of each split and group."""

from collections.abc import Iterator, Mapping
from typing import Any

HEADS = ("to strong", "right", "APGR", "CPT 20 %", "50 %", "80 %")
NOTE = (
    "To strong: share of requests at the router's own threshold, and right: of their answers. APGR: share of the gap "
    "between both members that is recovered, mean over thresholds (a random choice: .500). CPT: least share of "
    "requests for the strong member that recovers so much of the gap."
)


def cells(results: Mapping[str, Any]) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Split and group -> the rows that choose between two members, each with its curve there."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for split in ("held_in", "held_out"):
        for group in results.get("groups", ()):
            for row in results.get("rows", ()):
                cell = ((row.get("curves") or {}).get(split) or {}).get(group)
                if cell:
                    title = f"{split.replace('_', '-')} {group}".strip()
                    found.setdefault(title, []).append((row["label"], cell))
    return found


def numbers(cell: Mapping[str, Any]) -> list[str]:
    """What stands under `HEADS`; where the gap is none, the sentence that says so in place of APGR."""
    first = [f"{100 * cell['called']:.0f} %", _share(cell["accuracy_there"])]
    if cell["apgr"] is None:
        return [*first, f"undefined: {cell['undefined']}", *[""] * 3]
    return [*first, _share(cell["apgr"]), *(f"{100 * share:.1f} %" for share in cell["cpt"].values())]


def _share(share: float) -> str:
    sign, text = "−" if share < -0.0005 else "", f"{abs(share):.3f}"
    return sign + (text.lstrip("0") if text.startswith("0") else text)


def plain(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines of text, aligned; none where no row chooses between two members."""
    found = cells(results)
    if not found:
        return
    yield "strong or weak member"
    for row in results["rows"]:
        if pair := row.get("curves"):
            dear, cheap = (pair["price"][name] for name in ("strong", "weak"))
            names = f"strong {pair['strong']} at {dear:.4g}, weak {pair['weak']} at {cheap:.4g} a request"
            yield f"  {row['label']}: {names}"
    lines = [[label, title, *numbers(cell)] for title, some in found.items() for label, cell in some]
    heads = ["method", "", *HEADS]
    fit = [line for line in lines if line[-1]]  # an undefined one runs over its columns
    sizes = [max(len(line[i]) for line in [heads, *(lines if i < 4 else fit)]) for i in range(len(heads))]
    for line in [heads, *lines]:
        left = [cell.ljust(size) for cell, size in zip(line[:2], sizes, strict=False)]
        right = [cell.rjust(size) for cell, size in zip(line[2:], sizes[2:], strict=True)]
        yield "  ".join(["", *left, *right]).rstrip()
    yield NOTE
