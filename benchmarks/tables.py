"""The results as tables of text: what the terminal and docs/PERFORMANCE.md show."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.goals import Results, points, verdicts
from benchmarks.measure import CLOCKS

DASH = "–"
Point = Mapping[str, Any]


class Table(NamedTuple):
    """key: its name in the document's markers; note: what the cells are."""

    key: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(results: Results) -> list[Table]:
    """All tables that the results have something for; goals always."""
    found = [goals(results), formulations(results), rivals(results), decode(results), models(results)]
    found += [memory(results), training(results), merging(results)]
    return [table for table in found if table.rows]


def goals(results: Results) -> Table:
    """Goal, measured on both clocks, what bytes and operations alone give, verdict."""
    rows = []
    for verdict in verdicts(results):
        goal, found = verdict
        values = DASH if found is None else " / ".join(f"{value:.2f}" for value in found.values.values())
        limit = DASH if found is None or found.limit is None else f"{found.limit:.2f}"
        rows.append(
            [goal.name, f"≤ {goal.most:g}", values, limit, verdict.said, found.where if found else ""]
        )
    note = "Medians, wall / processor. Met: on both clocks. Limit: what bytes and operations alone give."
    return Table("goals", "goals", ["goal", "wanted", "measured", "limit", "", "where"], rows, note)


def cell(ratio: Mapping[str, Sequence[float]] | None) -> str:
    """1.06 [1.04, 1.09] / 1.05: wall with its quartiles, processor."""
    if ratio is None:
        return DASH
    (wall, low, high), cpu = ratio["wall"], ratio["cpu"][0]
    return f"{wall:.2f} [{low:.2f}, {high:.2f}] / {cpu:.2f}"


def milliseconds(ms: Mapping[str, float] | None) -> str:
    """Wall / processor."""
    return " / ".join(f"{ms[clock]:.3g}" for clock in CLOCKS) if ms else DASH


def pivot(
    some: Iterable[Point], keep: Callable[[Mapping[str, Any]], bool], show: Callable[[Mapping[str, Any]], str]
) -> tuple[list[str], list[list[str]]]:
    """Names of the entries that are kept, and for each point its cells in their order."""
    some = list(some)
    names = list(dict.fromkeys(row["name"] for point in some for row in point["rows"] if keep(row)))
    lines = []
    for point in some:
        known = {row["name"]: row for row in point["rows"]}
        cells = [known[name].get("note") or show(known[name]) if name in known else DASH for name in names]
        lines.append([point["title"], *cells])
    return names, lines


def _ours(row: Mapping[str, Any]) -> bool:
    return row["kind"] == "ours"


def _peer(row: Mapping[str, Any]) -> bool:
    return row["kind"] == "peer"


def _over_bare(row: Mapping[str, Any]) -> str:
    return cell(row.get("over_bare"))


def _bare_ms(point: Point, name: str) -> str:
    return milliseconds(next((row.get("ms") for row in point["rows"] if row["name"] == name), None))


def formulations(results: Results) -> Table:
    """The routed layer in each formulation over the bare projection."""
    some = points(results, "layer")
    names, lines = pivot(some, _ours, _over_bare)
    for point, line in zip(some, lines, strict=True):
        for place, name in enumerate(names, 1):
            if name == f"ours, {point.get('rule')}":
                line[place] = "as the rule"
        scored = f" ({point['limit_scored']:.2f})" if "limit_scored" in point else ""
        limit = f"{point['limit']:.2f}{scored}"
        line[1:1] = [_bare_ms(point, "bare, jax"), limit, point.get("rule", DASH)]
    heads = [
        "point",
        "bare, ms",
        "limit (scored)",
        "the rule",
        *(name.removeprefix("ours, ") for name in names),
    ]
    return Table("layer", "routed layer over its bare projection, ours", heads, lines, RATIO)


def rivals(results: Results) -> Table:
    """The peers over their bare projection, and ours over each of them."""
    some = [point for point in points(results, "layer") if any(map(_peer, point["rows"]))]
    return _with_peers("peers", "routed layer, peers on torch", some)


def _with_peers(key: str, title: str, some: Sequence[Point]) -> Table:
    """One line for each peer at each point."""
    lines = []
    for point in some:
        for row in filter(_peer, point["rows"]):
            same = "same" if row["rival"] else "another"
            against = cell(row.get("ours_over_it"))
            lines.append([point["title"], row["name"], same, row.get("note") or _over_bare(row), against])
        torch = next((row for row in point["rows"] if row["name"] == "bare, torch"), None)
        if torch:
            lines.append([point["title"], "bare, torch", "", "", cell(torch.get("ours_over_it"))])
    heads = ["point", "peer", "function", "over torch's bare", "ours over it"]
    return Table(key, title, heads, lines, RATIO)


def decode(results: Results) -> Table:
    """One token with its scores, beside the ratio of bytes."""
    some = points(results, "decode")
    names, lines = pivot(some, lambda row: row["kind"] != "bare", _over_bare)
    for point, line in zip(some, lines, strict=True):
        line.insert(1, f"{point['limit']:.2f}")
    return Table(
        "decode", "one token, scored, over its bare call", ["point", "bytes alone", *names], lines, RATIO
    )


def models(results: Results) -> Table:
    """Whole models over the bare base, with limits; the peers over theirs, and ours over the peers."""
    lines = []
    for point in points(results, "model"):
        for row in point["rows"]:
            limit = point["limits"].get(row["name"])
            shown = [milliseconds(row.get("ms")), row.get("note") or _over_bare(row)]
            limit = f"{limit:.2f}" if limit else DASH
            lines.append([point["title"], row["name"], *shown, limit, cell(row.get("ours_over_it"))])
    heads = ["model", "entry", "ms", "over bare", "limit", "ours over it"]
    return Table("model", "whole models", heads, lines, RATIO)


def memory(results: Results) -> Table:
    """Peak memory of a call in MB, and of ours what XLA says a program needs."""
    lines = []
    for point in points(results, "memory"):
        for row in point["rows"]:
            held = row.get("note") or f"{row['bytes'] / 1e6:.1f}"
            known = row.get("temporary")
            lines.append([point["title"], row["name"], held, DASH if known is None else f"{known / 1e6:.1f}"])
    note = "MB that a call holds at most beyond what was there; temporary: of it, what XLA says the program needs."
    return Table("memory", "peak memory", ["point", "entry", "peak", "temporary"], lines, note)


def training(results: Results) -> Table:
    """One program against all runs, cold and warm, and against peft."""
    lines = []
    for one in points(results, "training"):
        for state, ratio in one["ratio"].items():
            shown = [one["title"], state, f"{ratio['wall']:.2f} / {ratio['cpu']:.2f}"]
            shown.append(f"{one['processes'][state]:.2f}")
            theirs = one.get("over_peft", {}).get(state)
            lines.append(shown + [_pair(theirs and theirs[kind]) for kind in ("one alone", "one of all")])
    heads = [
        "training",
        "programs",
        "one program / all runs",
        "whole processes",
        "one alone / peft",
        "one of all / peft",
    ]
    note = "Wall / processor. Whole processes: with imports, base and rows, wall."
    return Table("training", "training together and apart", heads, lines, note)


def _pair(ratio: Mapping[str, float] | None) -> str:
    return f"{ratio['wall']:.2f} / {ratio['cpu']:.2f}" if ratio else DASH


def merging(results: Results) -> Table:
    """Prototypes and merges: milliseconds, and ours over the peer."""
    lines = []
    for point in points(results, "merging"):
        for row in point["rows"]:
            cosine = point.get("agreement")
            said = f"{cosine[0]:.3f}, {cosine[1]:.3f}" if cosine and row["kind"] == "peer" else DASH
            held = row.get("note") or milliseconds(row.get("ms"))
            lines.append([point["title"], row["name"], held, cell(row.get("ours_over_it")), said])
    heads = ["point", "entry", "ms", "ours over it", "|cos| to exact: median, least"]
    return Table("merging", "prototypes and merges", heads, lines, RATIO)


RATIO = "Wall, median [quartiles] / processor, median, of ratios within one round."
