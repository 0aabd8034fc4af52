"""What a look at a folder gives: what is there, warnings, and faults, a sentence each; and how it is printed."""

from collections.abc import Iterator
from dataclasses import dataclass, field

MOST = 20  # faults of one file or table that are printed one by one


@dataclass
class Findings:
    """what: kind and name of the folder; lines: what is in it; parts: what was found in folders within it."""

    what: str
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    parts: list["Findings"] = field(default_factory=list)
    most: int | None = None

    def count(self) -> int:
        """Faults, those of the parts among them."""
        return len(self.faults) + sum(part.count() for part in self.parts)

    def said(self, indent: str = "") -> Iterator[str]:
        """The lines to print."""
        yield indent + self.what
        for line in self.lines:
            yield f"{indent}  {line}"
        for warning in self.warnings:
            yield f"{indent}  warning: {warning}"
        for fault in self.faults[: self.most]:
            yield f"{indent}  fault: {fault}"
        if self.most is not None and len(self.faults) > self.most:
            yield f"{indent}  and {len(self.faults) - self.most} more faults"
        for part in self.parts:
            yield from part.said(indent + "  ")


def plural(number: int, what: str) -> str:
    """`1 fault`, `2 faults`."""
    return f"{number} {what}" + ("" if number == 1 else "s")
