"""Which methods can I use with what I have? Matches cards by axis, and against the data at hand.

What one has is said in words, `expert-data,target-labels:16`; `WORDS` explains each. What a method needs is on
its card: grants, extras, recipe.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf

from moejax.taxonomy import AXES, EXTRAS, GRANTS, SHORT, Card
from moejax.types import UserError

WORDS = {
    "weights": "the experts' weights alone; everyone has these",
    "contributors": "whoever trained the experts will train as a method asks, and hand over any extra",
    "expert-inputs": "inputs of the experts' training sets; gives samples, vectors, mean, activation, gram",
    "expert-data": "the same with labels; gives gate and fisher too",
    "general": "public labelled rows that belong to no expert and no target task (of a run: data.general)",
    "target-inputs[:N]": "N unlabelled training inputs of the target task; a whole training set without N",
    "target-labels[:N]": "N labelled training rows of the target task; gives target-inputs too",
    " ".join(EXTRAS): "extras in the experts' folders; samples give vectors and mean",
    "test-task test-inputs test-labels": "leaks, which only oracles use",
}

GIVES = {  # what else each thing stands for
    "contributors": {"own", "recipe", *EXTRAS},
    "expert_inputs": {"samples", "activation", "gram"},
    "expert_labels": {"own", "expert_inputs", "gate", "fisher"},
    "samples": {"vectors"},
    "vectors": {"mean"},
    "target_labels": {"target_inputs"},
    "test_labels": {"test_inputs"},
}
COUNTED = ("target_inputs", "target_labels")
SAID = {
    name: name.replace("_", "-") for name in ("weights", "contributors", *GRANTS, *EXTRAS) if name != "own"
}
SAID["expert_labels"] = "expert-data"


@dataclass(frozen=True)
class Have:
    """What one has: grants and extras by name, and how many rows of the target task (inf: a training set)."""

    things: frozenset[str]
    rows: Mapping[str, float]


def parse_have(text: str) -> Have:
    """Read `expert-data,target-labels:16`; raises UserError for an unknown word or a wrong number of rows."""
    names = {said: name for name, said in SAID.items()}
    things: frozenset[str] = frozenset()
    rows: dict[str, float] = dict.fromkeys(COUNTED, 0.0)
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        word, colon, count = part.partition(":")
        if word not in names:
            raise _unknown(f"--have does not know {word!r}", word, list(names))
        if colon and (names[word] not in COUNTED or not count.isdecimal() or int(count) < 1):
            takes = "a number of rows from 1 up" if names[word] in COUNTED else "no number of rows"
            raise _unknown(f"--have {part}: after {word} comes {takes}")
        here = _closure(frozenset({names[word]}))
        things |= here
        for grant in here & set(COUNTED):
            rows[grant] = max(rows[grant], float(count) if colon else inf)
    return Have(things, rows)


def missing(card: Card, have: Have) -> tuple[str, ...]:
    """What this method needs and one does not have, in the words of `--have`; empty: it can be used."""
    implied = {given for grant in card.grants for given in GIVES.get(grant, ())}
    wanted = card.grants - implied - {"own"}
    lacks = []
    for grant in (grant for grant in GRANTS if grant in wanted):
        rows = _rows(card, grant)
        if grant not in have.things:
            lacks.append(SAID[grant] + (f":{rows:g}" if grant in COUNTED and 1 < rows < inf else ""))
        elif grant in COUNTED and have.rows[grant] < rows:
            needed = f"{SAID[grant]}:{rows:g}" if rows < inf else f"{SAID[grant]} in full"
            lacks.append(f"{needed} (not {have.rows[grant]:g})")
    lacks += [_extra(extra) for extra in sorted(card.extras - have.things)]
    if (
        "own" in card.grants - have.things and not card.extras
    ):  # extras at hand need nobody's own data any more
        lacks.append("contributors")
    if card.recipe and "recipe" not in have.things:
        lacks.append(f"contributors ({card.recipe})")
    return tuple(lacks)


def matching(cards: Iterable[Card], filters: Mapping[str, str]) -> list[Card]:
    """Cards whose axes hold one of the wanted values each: `{"expert_data": "shared"}`, case apart.

    Several values are joined by commas; "n/a" is an axis that does not apply. Raises UserError for a value that
    the axis does not have, with the nearest one.
    """
    wanted = {axis: _values(axis, text) for axis, text in filters.items()}

    def fits(card: Card, axis: str) -> bool:
        return bool((getattr(card.axes, axis) or {"N/A"}) & wanted[axis])

    return [card for card in cards if all(fits(card, axis) for axis in wanted)]


def _extra(extra: str) -> str:
    """Name an extra that is missing, and who can give it."""
    sources = [name for name in ("expert_inputs", "expert_labels") if extra in _closure(frozenset({name}))]
    return f"{extra}, from {' or '.join(SAID[name] for name in ('contributors', *sources[:1]))}"


def _rows(card: Card, grant: str) -> float:
    """Rows of the target task below which the method is not meant to be used."""
    if card.shots is not None:
        return float(card.shots)
    return inf if grant == "target_labels" else 1.0  # the survey's "Full" speaks of labelled training sets


def _values(axis: str, text: str) -> set[str]:
    known = {value.lower(): value for value in (*AXES[axis], "N/A")}
    shorts = {short.lower(): value for short, value in SHORT.items() if value in AXES[axis]}
    values = set()
    for word in (word.strip().lower() for word in text.split(",")):
        if word not in known | shorts:
            raise _unknown(f"--{axis.replace('_', '-')} has no value {word!r}", word, list(known))
        values.add((known | shorts)[word])
    return values


def _closure(things: frozenset[str]) -> frozenset[str]:
    """These and all that they stand for."""
    while more := frozenset(given for name in things for given in GIVES.get(name, ())) - things:
        things |= more
    return things


def _unknown(what: str, word: str = "", known: Sequence[str] = ()) -> UserError:
    near = get_close_matches(word, known, 1)
    only = f", only {', '.join(known)}" if known else ""
    return UserError(what + only + (f"; did you mean {near[0]}?" if near else ""))
