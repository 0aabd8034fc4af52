"""`python tests/method_table.py RESULTS.xml … [--write]`: docs/METHODS.md from the cards and what the tests gave.

RESULTS.xml is what pytest writes with --junitxml. Without --write the file is compared, numbers of tests apart, and
what is built but has no test that passed is an error.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from xml.etree import ElementTree

from moejax.commands.listing import elsewhere
from moejax.methods import TABLE, load
from moejax.survey import CARDS
from moejax.taxonomy import Card

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "METHODS.md"
PEERS = {  # module of tests that runs a peer: the method, the peer
    "tests.train.test_search_parity": ("lorahub", "nevergrad 1.0.12"),
    "tests.methods.test_adapterhub_parity": ("adapterfusion", "adapters 1.3.0"),
}
HEAD = """\
# Methods

The 29 methods of the survey ([arXiv 2408.07057](https://arxiv.org/abs/2408.07057)) and our own rows of the tables. This
page is made by `make method-table` from the cards and from the tests that passed: **contract** counts tests that all
methods share, **card** those of the method's own checks and worked numbers, **peer** names a program that ran beside
ours. A mode that stands elsewhere in the survey's taxonomy than its method says in which cells.

| § | method | row | needs | modes | contract | card | peer |
| ---: | --- | --- | --- | --- | ---: | ---: | --- |
"""


def passed(paths: list[Path]) -> Iterator[tuple[str, str]]:
    """(module, name) of every test that passed."""
    for path in paths:
        for case in ElementTree.parse(path).iter("testcase"):
            if not {child.tag for child in case} & {"failure", "error", "skipped"}:
                yield case.get("classname", ""), case.get("name", "")


def counts(tests: Iterator[tuple[str, str]]) -> tuple[Counter[str], Counter[str], dict[str, str]]:
    """By method: tests of the contract, tests of its card, and the peer that ran."""
    contract, card, peers = Counter[str](), Counter[str](), {}
    for module, name in tests:
        if module == "tests.test_contract" and (line := re.search(r"\[([a-z_]+)", name)):
            contract[line[1]] += 1
        elif own := [m for m in TABLE if re.fullmatch(rf"tests\.methods\.test_{m}(_[a-z_]+)?", module)]:
            card[max(own, key=len)] += 1
        elif module in PEERS:
            method, peer = PEERS[module]
            peers[method] = peer
    return contract, card, peers


def modes(method: Any) -> list[str]:
    """The named choices of a method's settings, the default first, and those that are published and not built."""
    found, config = [], method.Config
    for field in fields(config):
        hint, lacking = get_type_hints(config)[field.name], ", ".join(method.unbuilt.get(field.name, ()))
        if get_origin(hint) is Literal:
            words = sorted(map(str, get_args(hint)), key=lambda word: word != str(field.default))
            found.append(
                f"{field.name} {' / '.join(words)}" + (f" ({lacking}: not built)" if lacking else "")
            )
    return found


def page(contract: Counter[str], card: Counter[str], peers: dict[str, str]) -> str:
    """The whole page."""
    ours = [load(name).card for name in sorted(TABLE.keys() - CARDS.keys())]
    lines = [_line(one, contract, card, peers) for one in (*CARDS.values(), *ours)]
    return HEAD + "\n".join(lines) + "\n"


def _line(card: Card, contract: Counter[str], own: Counter[str], peers: dict[str, str]) -> str:
    key, number = card.key, "" if card.number is None else f"3.{card.number}"
    if key not in TABLE:
        return f"| {number} | {card.title} | not built |  |  |  |  |  |"
    method: Any = load(key)
    named = f"[{key}](methods/{key}.md)" if (PAGE.parent / "methods" / f"{key}.md").exists() else key
    needs = ", ".join(sorted(method.needs(method.Config()))) or "weights alone"
    given = (contract[key] or "–", own[key] or "–", peers.get(key, ""))
    other = [f"{name}: {cells.replace('; ', ', ')}" for name, cells in elsewhere(card).items()]
    cells = (number, card.title, named, needs, "; ".join(modes(method) + other), *given)
    return "| " + " | ".join(map(str, cells)) + " |"


def without_numbers(text: str) -> str:
    """The page but for how many tests passed and which peers ran, which follow the machine."""
    return "\n".join(re.sub(r"(\|[^|]*){3}\|$", "", line) for line in text.splitlines())


def main(arguments: list[str]) -> int:
    """0 when the page is as it should be."""
    contract, card, peers = counts(passed([Path(one) for one in arguments if one != "--write"]))
    made = page(contract, card, peers)
    if untested := [name for name in TABLE if not contract[name]]:
        print(f"built, but no test of the contract passed: {', '.join(untested)}")
        return 1
    if "--write" in arguments:
        PAGE.write_text(made)
    elif without_numbers(PAGE.read_text()) != without_numbers(made):
        print(f"{PAGE.name} is not what the cards say: make method-table")
        return 1
    print(f"{PAGE.name}: {len(TABLE)} methods built")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
