"""What each method was allowed to see: its grants, what it needs of every expert, and its settings."""

from collections.abc import Mapping
from typing import Any

from moejax.report.html import Html, box, breakable, join, missing, tag
from moejax.taxonomy import EXTRAS, GRANTS


def sight(results: Mapping[str, Any]) -> Html:
    """One row a method, in the sentences of the taxonomy."""
    rows = results.get("rows", ())
    if not rows:
        return missing("The results name no method.")
    heads = ("method", "was allowed to read", "needed of each expert beside its weights", "settings")
    lines = [
        tag(
            "tr",
            tag("th", breakable(row.get("label", "")), scope="row"),
            tag("td", said(row.get("needs"), GRANTS, "no data"), data_head=heads[1]),
            tag("td", said(row.get("extras"), EXTRAS, "nothing"), data_head=heads[2]),
            tag("td", _settings(row), data_head=heads[3]),
        )
        for row in rows
    ]
    head = tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads)))
    return box(tag("table", head, tag("tbody", *lines), class_="sights"))


def said(keys: list[str] | None, sentences: Mapping[str, str], none: str) -> Html:
    """The sentences of these keys, a line each; `none` where there is no key."""
    if keys is None:
        return missing("not recorded")
    if not keys:
        return tag("span", none, class_="quiet")
    return join(*(tag("div", tag("code", name), " ", sentences.get(name, "")) for name in keys))


def _settings(row: Mapping[str, Any]) -> Html:
    """Its options, and what its fit chose by trying."""
    if "not_applicable" in row:
        return tag("span", f"not applicable: {row['not_applicable']}")
    options = ", ".join(f"{name}={value}" for name, value in (row.get("options") or {}).items())
    chosen = [f"{name} chosen on {rows}" for name, rows in (row.get("chosen") or {}).items()]
    return join(options or "none", *(tag("div", one) for one in chosen))
