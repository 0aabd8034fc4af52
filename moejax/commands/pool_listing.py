"""Experts and changes of a pool folder, as lines and as JSON; what strangers wrote is shown harmless."""

from collections.abc import Sequence
from typing import Any

from moejax.experts.change import Change
from moejax.experts.member import Member

HEADS = ("name", "kind", "content", "modules", "rank", "size", "same as", "licence", "description")
WIDEST = 48  # characters of a stranger's text


def table(members: Sequence[Member]) -> str:
    """A line for each expert under HEADS, columns without content left out; then what cannot be read, and why."""
    if not members:
        return "no expert"
    rows = [_row(member) for member in members if member.error is None]
    used = [column for column in zip(HEADS, *rows, strict=True) if any(column[1:])]
    faults = [
        f"{shown(m.name)} cannot be read: {shown(m.error, None)}" for m in members if m.error is not None
    ]
    return "\n".join([*_aligned(list(zip(*used, strict=True))), *faults])


def _row(member: Member) -> tuple[str, ...]:
    ranks = sorted({*member.ranks[:1], *member.ranks[-1:]})
    return (
        shown(member.name),
        shown(member.report.kind) if member.report else "",
        short(member.content),
        str(len(member.report.matched) if member.report else 0),
        "..".join(map(str, ranks)),
        size(member.size),
        ", ".join(map(shown, member.twins)),
        shown(member.info.get("licence")),
        shown(member.info.get("description")),
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def changes(some: Sequence[Change]) -> str:
    """A line for each change: number, time, operation, names, content, and whether it was undone."""
    if not some:
        return "no change"
    undone = {change.undoes: change.n for change in some}
    rows = []
    for change in some:
        names = shown(change.name) + (f" to {shown(change.to)}" if change.to else "")
        what = change.operation + (f" {change.undoes}" if change.undoes else "")
        more = f"undone by {undone[change.n]}" if change.n in undone else ""
        rows.append((str(change.n), shown(change.time), what, names, short(change.content), more))
    return "\n".join(_aligned(rows))


def as_json(member: Member) -> dict[str, Any]:
    """An expert for machines."""
    report = member.report
    return {
        "name": member.name,
        "content": member.content,
        "hash": member.hash,
        "kind": member.info.get("kind"),
        "modules": len(report.matched) if report else None,
        "ranks": list(member.ranks),
        "size": member.size,
        "licence": member.info.get("licence"),
        "description": member.info.get("description"),
        "twins": list(member.twins),
        "warnings": list(report.warnings) if report else [],
        "error": member.error,
    }


def short(content: str | None) -> str:
    """The first twelve digits of a hash."""
    return "unreadable" if content is None else shown(content.partition(":")[2][:12])


def size(count: int) -> str:
    """Bytes in a unit that leaves at most four digits."""
    value, units = float(count), ["B", "kB", "MB"]
    while value >= 999.5 and units:
        value, _ = value / 1000, units.pop(0)
    return f"{value:.3g} {(*units, 'GB')[0]}" if value < 999.5 else f"{value:.0f} GB"


def shown(text: Any, widest: int | None = WIDEST) -> str:
    """A stranger's value on one line, without control characters, cut to a width."""
    if text is None:
        return ""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if widest is None or len(line) <= widest else line[: widest - 1] + "…"
