"""Cards as a table of 100 columns, as blocks of text, and as JSON."""

import sys
from collections.abc import Container, Sequence
from dataclasses import replace
from textwrap import fill
from typing import Any

from moejax.methods import load
from moejax.taxonomy import AXES, FAMILIES, Card

WIDTH = 100
HEADS = ("3.", "method", "train", "data", "routing", "input", "depth", "select", "mix", "for", "user")
BRIEF = {
    "Standard": "Std",
    "Custom": "Cus",
    "Private": "Pri",
    "Shared": "Sha",
    "Target": "Tar",
    "Expert": "Exp",
    "General": "Gen",
    "Example": "Exam",
    "Output": "Out",
    "Parameter": "Par",
    "In-Distribution": "ID",
    "Out-of-Distribution": "OOD",
    "Zero-Shot": "Zero",
    "Few-Shot": "Few",
}
LEGEND = (
    "3.: section of the survey. *: built. Columns: expert training (Standard, Custom), expert data (Private, "
    "Shared), routing dataset (None, Target, Expert, General), input granularity (Task, Example, Step), depth "
    "granularity, expert selection, expert aggregation (None, Output, Parameter), generalization, user dataset "
    "(zero-shot, few-shot, full). +: several. -: does not apply. --long has the full words."
)


def values(card: Card, axis: str) -> list[str]:
    """The card's values on this axis, in the survey's order."""
    return [value for value in AXES[axis] if value in getattr(card.axes, axis)]


def rows(cards: Sequence[Card], built: Container[str]) -> list[tuple[str, ...]]:
    """A line of brief cells per card, under HEADS."""
    found = []
    for card in cards:
        cells = ("+".join(BRIEF.get(value, value) for value in values(card, axis)) or "-" for axis in AXES)
        found.append((str(card.number), card.key + "*" * (card.key in built), *cells))
    return found


def show_table(cards: Sequence[Card], built: Container[str]) -> None:
    """Print the table and its legend: coloured on a terminal, plain lines elsewhere."""
    if not cards:
        print("No method of the survey matches.")
        return
    lines = rows(cards, built)
    widths = [max(map(len, column)) for column in zip(HEADS, *lines, strict=True)]
    if sys.stdout.isatty():
        _show_rich(lines, widths)
    else:
        for line in (HEADS, *lines):
            print(" ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print("\n" + fill(LEGEND, WIDTH))


def _show_rich(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for head, width in zip(HEADS, widths, strict=True):
        table.add_column(head, min_width=width, no_wrap=True)
    for line in lines:
        table.add_row(*line, style="green" if line[1].endswith("*") else None)
    Console(highlight=False, markup=False).print(table)


def wrap(label: str, text: str) -> str:
    """The text in lines of at most WIDTH columns after a label, the following ones below it."""
    return fill(text, WIDTH, initial_indent=label, subsequent_indent=" " * len(label))


def blocks(cards: Sequence[Card], built: Container[str]) -> str:
    """A block of text per card: full words, paper, needs and remarks."""
    return (
        "\n\n".join(_block(card, card.key in built) for card in cards) or "No method of the survey matches."
    )


def _block(card: Card, built: bool) -> str:
    lines = [f"{card.key}: {card.title}, section 3.{card.number}, {'built' if built else 'not built'}"]
    lines += [f"  {axis.replace('_', ' '):20}" + (" + ".join(values(card, axis)) or "N/A") for axis in AXES]
    rest = {
        "paper": str(card.paper or ""),
        "family": "; ".join(text for name, text in FAMILIES.items() if name in card.families),
        "reads": ", ".join(sorted(card.grants)) or "nothing but the experts' weights",
        "target rows": str(card.shots or ""),
        "of each expert": ", ".join(sorted(card.extras)),
        "trained so": card.recipe,
        "open": "an expert may join or leave without a new fit" if card.open else "",
    }
    lines += [wrap(f"  {name:20}", text) for name, text in rest.items() if text]
    lines += [wrap(f"  {'as ' + name:20}", text) for name, text in (elsewhere(card) if built else {}).items()]
    lines += [wrap(f"  {'' if n else 'remarks':20}", text) for n, text in enumerate(card.remarks)]
    return "\n".join(lines)


def elsewhere(card: Card) -> dict[str, str]:
    """Named modes of a built method that stand elsewhere in the taxonomy, and in which cells."""
    found = {}
    for name, axes in load(card.key).modes.items():
        other = replace(card, axes=axes)
        changed = [axis for axis in AXES if values(other, axis) != values(card, axis)]
        found[name] = "; ".join(
            f"{axis.replace('_', ' ')} {' + '.join(values(other, axis))}" for axis in changed
        )
    return found


def record(card: Card, built: bool, lacks: Sequence[str] | None) -> dict[str, Any]:
    """The card as JSON; `missing` only when the question was asked."""
    paper = card.paper and {
        "authors": card.paper.authors,
        "year": card.paper.year,
        "arxiv": card.paper.arxiv,
        "venue": card.paper.venue,
    }
    named = {"key": card.key, "title": card.title, "number": card.number, "built": built, "paper": paper}
    taxonomy = {axis: values(card, axis) for axis in AXES} | {"families": sorted(card.families)}
    sets = {name: sorted(getattr(card, name)) for name in ("grants", "extras", "holds")}
    rest = {"shots": card.shots, "recipe": card.recipe, "open": card.open, "remarks": list(card.remarks)}
    return named | taxonomy | sets | rest | ({} if lacks is None else {"missing": list(lacks)})
