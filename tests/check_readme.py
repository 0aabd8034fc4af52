"""`python tests/check_readme.py RUN/results.json [--write]`: is the README's table what the run gave?

Labels, groups, columns and dashes must be equal. Scores may differ by `ROUNDING`: other processors add in
another order, and an answer or two falls the other way. Costs are times of one machine: they must be there,
no more.
"""

import json
import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
COSTS = {"fit s", "time", "memory"}
ROUNDING = 0.010  # of a share of right answers; a difference in points is a hundred times that
BAR = re.compile(r"(?<!\\)\|")
NUMBER = re.compile(r"[+-]?(?:\d+\.\d+|\.\d+|\d+)")


def split(text: str) -> tuple[str, str, str]:
    """What stands before the table, the table, what stands after. Raises ValueError without the markers."""
    before, begin, rest = text.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks {BEGIN} or {END}")
    return before + begin, table.strip(), end + after


def cells(table: str) -> list[list[str]]:
    """The table's cells, row by row."""
    return [[cell.strip() for cell in BAR.split(line.strip())[1:-1]] for line in table.splitlines() if line]


def differences(told: str, found: str) -> list[str]:
    """One sentence for each row that is missing, new or other than told."""
    old, new = cells(told), cells(found)
    if old[:1] != new[:1]:
        return [f"columns {old[:1]} in the README, {new[:1]} in the run"]
    if [row[0] for row in old] != [row[0] for row in new]:
        return [f"rows {[row[0] for row in old]} in the README, {[row[0] for row in new]} in the run"]
    return [
        f"{row[0]}, {head}: {was!r} in the README, {now!r} in the run"
        for row, other in zip(old, new, strict=True)
        for head, was, now in zip(old[0], row, other, strict=True)
        if not same(head, was, now)
    ]


def same(head: str, was: str, now: str) -> bool:
    """Whether two cells agree: words exactly, numbers as near as their column asks."""
    if NUMBER.sub("#", was) != NUMBER.sub("#", now):
        return False
    if head in COSTS:
        return True
    slack = 100 * ROUNDING if head.startswith("±") else ROUNDING
    pairs = zip(NUMBER.findall(was), NUMBER.findall(now), strict=True)
    return all(abs(float(a) - float(b)) <= slack + 1e-9 for a, b in pairs)


def main(arguments: list[str]) -> int:
    """Compare, or write with --write; 0 when README and run agree."""
    from moejax.evaluate.table import markdown

    path = Path(arguments[0])
    if not path.is_file():
        print(f"{path} is not there: run make demo first", file=sys.stderr)
        return 2
    found = markdown(json.loads(path.read_text())).strip()
    before, told, after = split(README.read_text())
    if "--write" in arguments:
        README.write_text(f"{before}\n{found}\n{after}")
        return 0
    faults = differences(told, found)
    print("\n".join(faults) or f"the README's table is that of {path}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
