"""Texts whose tokens are coloured by the expert that has most weight there, the fuller the more weight."""

from collections.abc import Mapping, Sequence
from typing import Any

from moejax.report.colours import PALETTE
from moejax.report.heat_map import short
from moejax.report.html import Html, join, missing, more, tag


def tokens(results: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> Html:
    """Every method whose weights are per token: the first open, the others on demand."""
    found = [
        (row["label"], records[row["row"]])
        for row in results.get("rows", ())
        if records.get(row.get("row", ""), {}).get("texts")
    ]
    if not found:
        return missing("No method here has weights of its own for each token, or none was recorded.")
    shown = [more(tag("b", label), _texts(one), opened=not i) for i, (label, one) in enumerate(found)]
    return join(tag("p", EXPLAINED), *shown)


EXPLAINED = (
    "Each token has the colour of the expert with most weight there, the mean over sites, the fuller the more weight. "
    "A small number says where another expert begins; point at a token to read its expert and weight."
)


def _texts(record: Mapping[str, Any]) -> Html:
    """The example texts of one method's routing record, and the legend of its experts."""
    experts, texts = record["experts"], record["texts"]
    most = max((weight for text in texts for weight in text["weight"]), default=0.0) or 1.0
    used = sorted({expert for text in texts for expert in text["expert"] if expert is not None})
    marks = [
        tag("span", tag("b", e + 1, class_="mark", style=_colour(e, 1.0)), " ", experts[e]) for e in used
    ]
    legend = tag("p", *marks, f" full colour: weight {short(most)}", class_="legend")
    return join(legend, *(_text(text, experts, most) for text in texts))


def _text(text: Mapping[str, Any], experts: Sequence[str], most: float) -> Html:
    parts, before = [], None
    for word, expert, weight in zip(text["tokens"], text["expert"], text["weight"], strict=True):
        if word.startswith(" ") and parts:
            parts.append(" ")
        parts.append(_token(word.strip(" "), expert, weight, experts, most, fresh=expert != before))
        before = expert
    title = join(tag("b", text["task"]), f", right answer: {text['answer']}" if text.get("answer") else None)
    return tag("figure", tag("figcaption", title), tag("p", *parts, class_="tokens"), class_="text")


def _token(
    word: str, expert: int | None, weight: float, experts: Sequence[str], most: float, fresh: bool
) -> Html:
    """One token; where another expert begins, its number stands before it, so that colour never speaks alone."""
    if expert is None:
        return tag("span", word, title="no expert")
    number = tag("sup", expert + 1) if fresh else None
    said = f"{experts[expert]} {short(weight)}"
    return tag("span", number, word, title=said, class_="token", style=_colour(expert, weight / most))


def _colour(expert: int, share: float) -> str:
    return f"--c:{PALETTE[expert % len(PALETTE)]};--w:{share:.2f}"
