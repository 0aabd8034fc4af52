"""`python -m moejax methods`: the survey's methods by its taxonomy, and which of them fit the data at hand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from moejax.advise import WORDS, matching, missing, parse_have
from moejax.commands.listing import blocks, record, show_table, wrap
from moejax.commands.parse import parse
from moejax.methods import TABLE
from moejax.survey import CARDS
from moejax.taxonomy import AXES, Card

Value = Annotated[str, tyro.conf.arg(metavar="VALUE", help_behavior_hint="")]


@dataclass(frozen=True)
class Options:
    """Filters are matched by membership; several values are joined by commas, N/A: does not apply."""

    expert_training: Value = ""
    """Standard or Custom."""
    expert_data: Value = ""
    """Private or Shared."""
    routing_dataset: Value = ""
    """None, Target, Expert or General."""
    input_granularity: Value = ""
    """Task, Example or Step."""
    depth_granularity: Value = ""
    """Module or Model."""
    expert_selection: Value = ""
    """Dense or Sparse."""
    expert_aggregation: Value = ""
    """None, Output or Parameter."""
    generalization: Value = ""
    """In-Distribution (ID) or Out-of-Distribution (OOD)."""
    user_dataset: Value = ""
    """Zero-Shot, Few-Shot or Full."""
    built: bool = False
    """Only methods that are built here."""
    have: Annotated[str | None, tyro.conf.arg(metavar="WORD[,WORD…]", help_behavior_hint="")] = None
    """Which methods can be used with this, and what do the others lack? The words are explained above."""
    long: bool = False
    """A block per method: full words, paper, needs, remarks."""
    json: bool = False
    """Everything, as JSON."""


DESCRIPTION = (
    "The methods of the survey of MoErging (arXiv 2408.07057), their nine taxonomy fields, and which are built."
    "\n\nWords of --have, joined by commas:\n"
    + "\n".join(f"  {word}: {meaning}." for word, meaning in WORDS.items())
    + "\n\nExample: --have expert-data,target-labels:16"
)


def main(argv: Sequence[str]) -> None:
    """Print what the options ask for. Raises UserError for a wrong option, value or word."""
    options = parse(Options, argv, "python -m moejax methods", DESCRIPTION)
    filters = {axis: getattr(options, axis) for axis in AXES if getattr(options, axis)}
    cards = [card for card in matching(CARDS.values(), filters) if card.key in TABLE or not options.built]
    lacks = _lacks(cards, options.have)
    if options.json:
        found = [record(card, card.key in TABLE, lacks[card.key] if lacks else None) for card in cards]
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    usable = [card for card in cards if not lacks or not lacks[card.key]]
    if lacks is not None:
        print(f"With {options.have or 'weights'} you can use {len(usable)} of {len(cards)} methods.\n")
    if options.long:
        print(blocks(usable, TABLE))
    else:
        show_table(usable, TABLE)
    others = sorted(set(TABLE) - set(CARDS))
    if others:
        print("\n" + wrap("Built, and not of the survey: ", ", ".join(others)))
    if lacks and len(usable) < len(cards):
        print("\nThe others lack:")
        for card in cards:
            if lacks[card.key]:
                print(wrap(f"  {card.key:24}", "; ".join(lacks[card.key])))


def _lacks(cards: Sequence[Card], have: str | None) -> dict[str, tuple[str, ...]] | None:
    """What each card lacks; None when the question was not asked."""
    if have is None:
        return None
    at_hand = parse_have(have)
    return {card.key: missing(card, at_hand) for card in cards}
