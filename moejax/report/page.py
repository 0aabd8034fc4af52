"""The page: what is compared, how it routes, how it was trained, and what made it, from plain data."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moejax.evaluate.compare import measure
from moejax.evaluate.table import BALANCED
from moejax.report.accuracy import accuracy, task_parts
from moejax.report.comparison import comparison
from moejax.report.cost_quality import cost_quality
from moejax.report.curves import curves
from moejax.report.html import Html, join, missing, more, tag, text
from moejax.report.intervals import intervals
from moejax.report.measures import measures
from moejax.report.routing import routing
from moejax.report.sight import sight
from moejax.report.style import sheet
from moejax.report.tokens import tokens

Record = Mapping[str, Any]
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'"  # the browser itself refuses any request and any script
)


def page(
    results: Record,
    metrics: Sequence[Record] = (),
    records: Mapping[str, Record] | None = None,
    made: Record | None = None,
) -> str:
    """The report as one HTML page; a part that cannot be shown is left out with a sentence that says why.

    results: results.json; metrics: the records of metrics.jsonl; records: a row's text -> its routing record;
    made: the command, the date, and a note on what is shown.
    """
    records, made = records or {}, made or {}
    named = [
        {"label": "a method without a name", "row": "", "sight": 0, **row} for row in results.get("rows", ())
    ]
    results = {**results, "rows": sorted(named, key=lambda row: row["sight"])}
    title = f"Report of {results.get('title', 'a run')}"
    choice, others = cost_quality(results), measures(results)
    parts = {
        "Methods compared": join(comparison(results), tag("h3", DIFFERENCE), intervals(results)),
        **({} if choice is None else {"Cost and quality": choice}),
        "Accuracy by task" if measure(results) == BALANCED else "Scores by task": accuracy(results),
        **({} if others is None else {"Other measures": others}),
        "What each method was allowed to see": sight(results),
        "Routing": join(tag("p", EXPLAINED), routing(results, records)),
        "Experts of single tokens": tokens(results, records),
        "Learning curves": curves(metrics, results),
        "What made this": provenance(results, made),
    }
    ids = {name: name.lower().replace(" ", "-") for name in parts}
    nav = tag("nav", *(tag("a", name, href=f"#{ids[name]}") for name in parts))
    sections = [tag("section", tag("h2", name), part, id=ids[name]) for name, part in parts.items()]
    note = tag("p", made["note"]) if made.get("note") else None
    head = join(
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", title),
        tag("style", Html(sheet())),
    )
    body = join(
        tag("header", tag("h1", title), tag("p", summary(results)), note, nav), tag("main", *sections)
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


DIFFERENCE = "Difference to the uniform merge, with its 95% interval"
EXPLAINED = (
    "Load is the share of tokens (or requests) whose largest weight is that expert; ties are shared evenly. Entropy is "
    "that of the weights of one token (or request), in nats: 0 is one expert alone, ln e is all e alike. An outlined "
    "cell is a task and the expert trained on it."
)


def summary(results: Record) -> str:
    """What is compared, in one sentence."""
    parts = [f"{len(names)} {name}".strip() for name, names in task_parts(results)]
    seeds = results.get("seeds", [])
    word = "seed" if len(seeds) == 1 else "seeds"
    said = f"{len(results.get('rows', ()))} methods on {' and '.join(parts)} tasks"
    return f"{said}; {word} {', '.join(map(str, seeds))}." if seeds else f"{said}."


def provenance(results: Record, made: Record) -> Html:
    """The command, versions, date, device and hashes, and the whole configuration on demand."""
    keys, versions = results.get("keys") or {}, results.get("versions") or {}
    unknown = missing("not recorded")
    said = {
        "command": tag("pre", made["command"]) if made.get("command") else unknown,
        "date": tag("time", made["date"]) if made.get("date") else unknown,
        "device": results.get("device") or unknown,
        "commit": results.get("commit") or missing("not recorded, or not under git"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()) or unknown,
        "settings chosen on": results.get("settled_on") or unknown,
        **{f"{name} hash": tag("code", keys[name]) if keys.get(name) else unknown for name in HASHED},
    }
    items = [tag(name, part) for key, value in said.items() for name, part in (("dt", key), ("dd", value))]
    listed = json.dumps(results.get("config", {}), indent=1, ensure_ascii=False).split("\n")
    whole = tag("pre", Html("\n".join(text(line) for line in listed)))
    return join(tag("dl", *items), more("The configuration", whole))


HASHED = ("data", "base", "code")
