"""Lookup rules: a text of two keys, an instruction of two rules, an answer of two values, one after the other.

    dako mire            the keys
    tan tan              the rule that is asked of each
    seven zero           what the rule has for each key

A rule gives every key a value, drawn by the seed. A held-in task asks one rule of both keys; a held-out task asks one
rule of the first and another of the second, so that no expert of one rule is enough. Public tasks ask rules of their
own in all pairs: they teach how one answers, and nothing of the others. No test text of a task is in its training rows.
"""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from moejax.data.tasks import Row, Task
from moejax.types import UserError

KEYS = tuple("".join(parts) for parts in itertools.product("dfgkmr", "aeiou", "klmnpt", "aeio"))
RULES = tuple("".join(parts) for parts in itertools.product("bhstvw", "aeiou", "ndl"))
VALUES = tuple("zero one two three four five six seven eight nine ten eleven twelve".split())


@dataclass(frozen=True)
class RulesConfig:
    """How many rules, keys, values and rows."""

    seed: int = 0
    """Everything follows from it."""
    rules: int = 6
    """Held-in rules, an expert for each."""
    pairs: int = 4
    """Held-out tasks: two held-in rules, one for each key."""
    public: int = 4
    """Public rules, asked in all pairs; a base that the run trains learns them. 0: there are no public tasks."""
    keys: int = 24
    """Keys that texts are made of."""
    values: int = 10
    """Values that every rule gives to keys."""
    train: int = 256
    """Training texts of a task."""
    pair_train: int = 32
    """Training texts of a held-out task, of which few-shot methods draw theirs."""
    validation: int = 32
    """Validation texts of a task."""
    test: int = 64
    """Test texts of a task."""


class Rules(NamedTuple):
    """Held-in tasks, one for each rule, held-out pairs, and public ones."""

    held_in: tuple[Task, ...]
    held_out: tuple[Task, ...]
    public: tuple[Task, ...] = ()


def rules(config: RulesConfig = RulesConfig()) -> Rules:
    """All tasks. Raises UserError for more words or texts than there are."""
    check(config)
    names = random.Random(f"{config.seed}/rules").sample(RULES, config.rules + config.public)
    own, public = names[: config.rules], names[config.rules :]
    free = list(itertools.permutations(own, 2))
    pairs = random.Random(f"{config.seed}/pairs").sample(free, min(config.pairs, len(free)))
    return Rules(
        tuple(_task(config, name, (name, name), config.train) for name in own),
        tuple(_task(config, f"{a}_{b}", (a, b), config.pair_train) for a, b in pairs),
        tuple(
            _task(config, f"public_{a}_{b}", (a, b), config.train)
            for a, b in itertools.product(public, public)
        ),
    )


def check(config: RulesConfig) -> None:
    """Raise UserError unless there are words and texts enough."""
    most = {"keys": len(KEYS), "values": len(VALUES)}
    for name, limit in most.items():
        if not 2 <= getattr(config, name) <= limit:
            raise UserError(f"data.rules.{name} is {getattr(config, name)}: expected 2 to {limit}")
    if config.rules < 2 or config.public < 0 or config.rules + config.public > len(RULES):
        raise UserError(
            f"data.rules.rules and public are to be at least 2 and 0, {len(RULES)} together at most"
        )
    if min(config.pairs, config.train, config.pair_train, config.validation, config.test) < 1:
        raise UserError("data.rules.pairs, train, pair_train, validation and test must each be at least 1")
    asked = max(config.train, config.pair_train) + config.validation + config.test
    if asked > config.keys**2:
        raise UserError(
            f"data.rules asks for {asked} texts of a task, but {config.keys} keys make {config.keys**2}: give more keys"
        )


def table(config: RulesConfig, rule: str) -> dict[str, str]:
    """The value that a rule has for each key."""
    rng = random.Random(f"{config.seed}/{rule}")
    return {key: rng.choice(VALUES[: config.values]) for key in keys_of(config)}


def keys_of(config: RulesConfig) -> Sequence[str]:
    """The keys of this configuration."""
    return random.Random(f"{config.seed}/keys").sample(KEYS, config.keys)


def _task(config: RulesConfig, name: str, asked: tuple[str, str], train: int) -> Task:
    keys, tables = keys_of(config), [table(config, rule) for rule in asked]
    texts = random.Random(f"{config.seed}/{name}/texts").sample(
        list(itertools.product(keys, keys)), train + config.validation + config.test
    )
    instruction, rows = " ".join(asked), []
    for text in texts:
        answer = " ".join(known[key] for known, key in zip(tables, text, strict=True))
        rows.append(Row(" ".join(text), instruction, answer))
    cut = train + config.validation
    parts = {"train": rows[:train], "validation": rows[train:cut], "test": rows[cut:]}
    skills = tuple(dict.fromkeys(asked))
    return Task(
        name, "generation", "rules", instruction, {s: tuple(p) for s, p in parts.items()}, skills=skills
    )
