"""What each router does: weights by task and expert, weights and load by layer and expert, entropies."""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

from moejax.report.heat_map import MANY, heat_map, short
from moejax.report.html import Html, join, missing, more, tag

MEANS = {
    "token": "one choice a token",
    "request": "one choice a request",
    "task": "the same weights for all requests of a task",
}
NAMES = {"token": "tokens", "request": "requests", "task": "tasks"}


def routing(results: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> Html:
    """One part for each method that routes; a sentence for each that does not."""
    parts, silent = [], []
    for row in results.get("rows", ()):
        record = records.get(row.get("row", ""))
        if record is None or "sites" not in record:
            why = (
                "its routing was not recorded"
                if record is None
                else record.get("none", "nothing was recorded")
            )
            why = "it does not apply to this pool" if "not_applicable" in row else why
            silent.append(tag("li", f"{row.get('label', '')}: {why}."))
        else:
            parts.append(_method(row["label"], record))
    if not parts and not silent:
        return missing("The results name no method, so there is no routing to show.")
    rest = join(tag("p", "Left out:"), tag("ul", *silent)) if silent else None
    return join(*parts, rest)


def _method(label: str, record: Mapping[str, Any]) -> Html:
    """One method's maps; sites apart on demand."""
    experts, unit, sites = record["experts"], record["unit"], record["sites"]
    title = tag("h3", label, tag("span", f" {MEANS[unit]}", class_="quiet"))
    flat = constant(record)
    if flat is not None:
        said = f"Every site gives each of the {len(experts)} experts the weight {short(flat)}, whatever the request."
        return tag("section", title, tag("p", said), class_="method")
    places = "the one site" if len(sites) == 1 else f"the {len(sites)} sites"
    means = (
        f"Means over {record['rows']} test rows and {places} of a layer. The entropy of {len(experts)} equal weights "
        f"is {short(log(len(experts)))}."
    )
    layers, tasks, own = by_layer(record), by_expert(record), owners(record)
    numbers = [str(layer) for layer in layers["layer"]]
    shown = scale([*layers["weight"], *tasks.values()])
    by_task = heat_map(
        list(tasks), experts, list(tasks.values()), shown, ("task", "expert"), "Mean weight by task",
        ringed=lambda task, expert: own.get(task) == expert,
    )  # fmt: skip
    weights = heat_map(numbers, experts, layers["weight"], shown, ("layer", "expert"), "Mean weight by layer")
    load = heat_map(
        numbers, experts, layers["load"], scale(layers["load"]), ("layer", "expert"),
        f"Load, share of {NAMES[unit]}", beside={"entropy": layers["entropy"]},
    )  # fmt: skip
    kind = "maps wide" if len(experts) > MANY else "maps"
    maps = tag("div", by_task, tag("div", weights, load), class_=kind)
    apart = more(f"Each site: {', '.join(sites)}", tag("div", *_sites(record), class_=kind))
    return tag("section", title, tag("p", means, class_="note"), maps, apart, class_="method")


def _sites(record: Mapping[str, Any]) -> list[Html]:
    """Weight and load of each site, all on two scales."""
    sites, experts, axes, maps = record["sites"], record["experts"], ("layer", "expert"), []
    weights, loads = (
        scale([line for site in sites.values() for line in site[name]]) for name in ("weight", "load")
    )
    for path, site in sites.items():
        numbers, beside = [str(layer) for layer in site["layers"]], {"entropy": site["entropy"]}
        maps.append(heat_map(numbers, experts, site["weight"], weights, axes, f"{path}: mean weight"))
        maps.append(heat_map(numbers, experts, site["load"], loads, axes, f"{path}: load", beside=beside))
    return maps


def owners(record: Mapping[str, Any]) -> Mapping[str, str]:
    """Task -> the expert that was trained on it; the one of its name where the record does not say."""
    return record.get("own") or {name: name for name in record["experts"]}


def by_expert(record: Mapping[str, Any]) -> dict[str, list[float]]:
    """Mean weights by task: first the experts' own tasks in their order, so that these lie on a diagonal."""
    tasks, experts, own = record["tasks"], record["experts"], owners(record)
    place = {task: experts.index(own[task]) if own.get(task) in experts else len(experts) for task in tasks}
    return {task: tasks[task] for task in sorted(tasks, key=place.__getitem__)}


def by_layer(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Layers in order, and of each the mean over its sites of weights, load and entropy."""
    found: dict[int, list[tuple[Any, Any, float]]] = {}
    for site in record["sites"].values():
        for numbers in zip(site["layers"], site["weight"], site["load"], site["entropy"], strict=True):
            found.setdefault(numbers[0], []).append(numbers[1:])
    layers = sorted(found)
    means: dict[str, list[Any]] = {"layer": layers, "weight": [], "load": [], "entropy": []}
    for layer in layers:
        weights, loads, entropies = zip(*found[layer], strict=True)
        means["weight"].append([sum(one) / len(one) for one in zip(*weights, strict=True)])
        means["load"].append([sum(one) / len(one) for one in zip(*loads, strict=True)])
        means["entropy"].append(sum(entropies) / len(entropies))
    return means


def constant(record: Mapping[str, Any]) -> float | None:
    """The one weight that every expert has at every site, for every task; None where they differ."""
    lines = [line for site in record["sites"].values() for line in site["weight"]]
    found = {round(w, 4) for line in [*lines, *record["tasks"].values()] for w in line}
    return found.pop() if len(found) == 1 else None


def scale(lines: Sequence[Sequence[float]]) -> tuple[float, float]:
    """From zero, or the lowest number below it, to the highest."""
    found = [w for line in lines for w in line]
    return min(0.0, *found), max(found)
