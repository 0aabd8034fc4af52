"""The table: methods grouped by what each was allowed to see, on a terminal or as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from moejax.evaluate import cost_table
from moejax.evaluate.compare import SIGHT, measure, score

DASH, INTERVAL, BALANCED = "–", "± uniform", "balanced accuracy"


def columns(results: Mapping[str, Any]) -> list[str]:
    """Names of the columns: the method, each split and group with its interval, and the costs.

    What stands in the cells is said in their heads, unless it is balanced accuracy.
    """
    said = (
        ""
        if measure(results) == BALANCED
        else measure(results)
        if " or " not in measure(results)
        else "score"
    )
    heads = [" ".join(filter(None, (split, group, said))) for split, group in _cells(results)]
    return [
        "method",
        *(h for head in heads for h in (head, INTERVAL)),
        "trained",
        "fit s",
        "time",
        "memory",
    ]


def lines(results: Mapping[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """(what the group saw, its rows as text), in the order of `SIGHT`."""
    for number, (sight, _) in enumerate(SIGHT):
        rows = [_line(row, results) for row in results["rows"] if row["sight"] == number]
        if rows:
            yield sight, rows


def _cells(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    groups = results["groups"]
    return [(split, group) for split in ("held-in", "held-out") for group in groups]


def _line(row: Mapping[str, Any], results: Mapping[str, Any]) -> list[str]:
    if "not_applicable" in row:
        return [row["label"], row["not_applicable"]]
    text = [row["label"]]
    for split, group in _cells(results):
        cell = (row[split.replace("-", "_")] or {}).get(group)
        if cell is None:
            text += [DASH, ""]
            continue
        against = cell["against_uniform"] if row["label"] != "uniform" else None
        text += [points(score(cell)), interval(against) if against else ""]
    cost = row["cost"]
    return [
        *text,
        count(cost["trained"]),
        f"{cost['fit_seconds']:.0f}",
        f"{cost['time']:.2f}×",
        f"{cost['memory']:.2f}×",
    ]


def points(share: float) -> str:
    """A share as the field prints it: .873."""
    return f"{share:.3f}".lstrip("0") if share < 1 else "1.00"


def interval(against: Mapping[str, float]) -> str:
    """A difference and its interval in points: +3.1 [+1.0, +5.2]."""
    gap, low, high = (100 * against[name] for name in ("difference", "low", "high"))
    return f"{gap:+.1f} [{low:+.1f}, {high:+.1f}]"


def count(number: int) -> str:
    """A number of parameters in short: 1.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def show(results: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table on a terminal, without the intervals where it is narrow; control codes in names are escaped."""
    console = console or Console()
    print_ = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)  # noqa: E731
    for line in [*plain(results, console.width), note(results), *_choices(results)]:
        print_("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line))


def _choices(results: Mapping[str, Any]) -> list[str]:
    """The lines of rows that choose between two members, where there are any, after an empty one."""
    found = list(cost_table.plain(results))
    return ["", *found] if found else []


def plain(results: Mapping[str, Any], width: int) -> Iterator[str]:
    """The table's lines of text: a line of its own for each group, columns aligned, intervals if they fit."""
    heads, groups = columns(results), list(lines(results))
    whole = [row for _, some in groups for row in some if len(row) == len(heads)]
    words = [[row[i] for row in whole] + head.split(" ") for i, head in enumerate(heads)]
    for kept in (range(len(heads)), [i for i, head in enumerate(heads) if head != INTERVAL]):
        sizes = [max(map(len, words[i])) for i in kept]
        if sum(sizes) + 2 * len(sizes) <= width:
            break
    tops = [heads[i].split(" ", 1) for i in kept]
    yield f"{results['title']}: {measure(results)}"
    for part in range(2):
        cells = [top[part] if part < len(top) else "" for top in tops]
        yield _aligned(cells, sizes)
    for sight, some in groups:
        yield ""
        yield f"sees {sight}"
        for row in some:
            yield _aligned([row[i] for i in kept], sizes) if len(row) == len(heads) else "  " + ": ".join(row)


def _aligned(cells: Sequence[str], sizes: Sequence[int]) -> str:
    first, *rest = zip(cells, sizes, strict=True)
    return "  ".join(["", first[0].ljust(first[1]), *(cell.rjust(size) for cell, size in rest)]).rstrip()


def note(results: Mapping[str, Any]) -> str:
    """What the numbers are."""
    return (
        f"{said(results)}, mean over tasks; ± uniform: {compared(results)} against the uniform merge in points, paired "
        "bootstrap 95% interval; time and memory of one batch beside the bare base."
    )


def said(results: Mapping[str, Any]) -> str:
    """What stands in the cells, as a sentence begins."""
    name = measure(results).capitalize()
    return name.replace(" or ", " of a choice or ") + " of a written text" if " or " in name else name


def compared(results: Mapping[str, Any]) -> str:
    """What the intervals are of: not balanced, since rows are resampled."""
    return measure(results).replace(BALANCED, "accuracy")


def markdown(results: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    heads = columns(results)
    text = [_row(heads), _row(["---"] + ["---:"] * (len(heads) - 1))]
    for sight, rows in lines(results):
        text.append(_row([f"*sees {sight}*"] + [""] * (len(heads) - 1)))
        text += [_row(row + [""] * (len(heads) - len(row))) for row in rows]
    return "\n".join(text) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
