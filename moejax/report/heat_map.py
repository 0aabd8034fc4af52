"""A heat map as a table: its numbers can be read, copied, and heard by a screen reader."""

from collections.abc import Callable, Mapping, Sequence

from moejax.report.colours import RAMP, level
from moejax.report.html import Html, box, tag

MANY = 24  # columns from which on cells are too narrow for numbers


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    scale: tuple[float, float],
    axes: tuple[str, str],
    caption: str,
    *,
    parts: Sequence[tuple[str, int]] = (),
    beside: Mapping[str, Sequence[float]] | None = None,
    ringed: Callable[[str, str], bool] = lambda row, column: False,
) -> Html:
    """One cell a value, coloured between the two ends of `scale`; None is a dash.

    axes: what rows and columns are. parts: names over runs of columns, and how many each spans. beside: columns of
    plain numbers at the right. ringed: which cells are outlined, by the names of row and column.
    """
    narrow, beside = len(columns) > MANY, beside or {}
    lines = []
    for i, (name, line) in enumerate(zip(rows, values, strict=True)):
        cells = [
            _cell(value, scale, narrow, f"{name}, {column}", ringed(name, column))
            for column, value in zip(columns, line, strict=True)
        ]
        plain = [tag("td", short(numbers[i]), class_="plain") for numbers in beside.values()]
        lines.append(tag("tr", tag("th", name, scope="row", title=name), *cells, *plain))
    across = tag("th", axes[1], colspan=len(columns), scope="colgroup", class_="axis")
    heads = [tag("th", tag("span", name), scope="col", title=name) for name in [*columns, *beside]]
    over = tag("tr", tag("th"), *(tag("th", name, colspan=span, class_="part") for name, span in parts))
    head = tag(
        "thead",
        tag("tr", tag("th"), across, *(tag("th") for _ in beside)),
        over if parts else None,
        tag("tr", tag("th", axes[0], class_="axis corner"), *heads, class_="names"),
    )
    table = tag("table", head, tag("tbody", *lines), class_="heat narrow" if narrow else "heat")
    return tag("figure", tag("figcaption", caption, key(scale)), box(table))


def _cell(value: float | None, scale: tuple[float, float], narrow: bool, where: str, ring: bool) -> Html:
    if value is None:
        return tag("td", "" if narrow else "–", class_="none", title=f"{where}: none" if narrow else None)
    names = f"v{level(value, *scale)}" + (" ring" if ring else "")
    if narrow:
        return tag("td", class_=names, title=f"{where}: {value:.3f}")
    return tag("td", short(value), class_=names)


def short(value: float) -> str:
    """Two digits, as .42; a minus sign and no leading zero."""
    value = round(value, 2) + 0.0  # no minus zero
    shown = f"{value:.2f}".replace("-", "−")
    return shown.replace("0.", ".", 1) if abs(value) < 1 else shown


def key(scale: tuple[float, float]) -> Html:
    """The legend: the ramp between its two ends."""
    stops = ",".join(f"#{code}" for code in RAMP)
    bar = tag("span", class_="ramp", style=f"background:linear-gradient(90deg,{stops})")
    return tag("span", short(scale[0]), bar, short(scale[1]), class_="key")
