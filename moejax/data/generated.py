"""The generated suite: a text carries many attributes, a skill asks for one, only the instruction says which.

A text is a handful of clauses of different kinds in random order ("we saw a crow, I felt glad, this was in
the woods, ..."), each with a word of one value of its kind. A held-in skill asks for the value of one kind; a
held-out task asks for two at once, so that no single expert is enough. The words of every value are split by
a hash into seen and unseen: training texts use seen words, validation and test texts have both as groups.

Public tasks, where they are asked for, are what anybody may have: texts of their own, in seen words, that are no
expert's and no target's. One for each kind asks what its skill asks; as many ask for two kinds that no target pairs.
"""

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from moejax.data.tasks import SPLITS, Row, Task
from moejax.data.vocabulary import KINDS
from moejax.types import UserError

GROUPS = ("seen", "unseen")


@dataclass(frozen=True)
class SuiteConfig:
    """What is generated, and how hard it is."""

    seed: int = 0
    """Everything follows from it: texts, and which words are unseen."""
    kinds: tuple[str, ...] = (
        "topic", "feeling", "place", "person", "animal", "food", "weather", "transport", "music", "request"
    )  # fmt: skip
    """Kinds of clause, each a held-in skill."""
    pairs: tuple[tuple[str, str], ...] = (
        ("topic", "place"), ("animal", "person"), ("music", "feeling"),
        ("food", "weather"), ("transport", "request"), ("person", "music"),
    )  # fmt: skip
    """Held-out tasks: two kinds asked for at once."""
    train: int = 256
    """Training texts of a skill (seen words)."""
    pair_train: int = 64
    """Training texts of a held-out task (seen words), of which few-shot methods draw theirs."""
    validation: int = 100
    """Validation texts of each group, seen and unseen."""
    test: int = 150
    """Test texts of each group, seen and unseen."""
    public: int = 0
    """Training texts of a public task, and a quarter as many for validation; 0: there are no public tasks."""
    clauses: tuple[int, int] = (5, 6)
    """Fewest and most clauses of a text, distractors apart."""
    distractors: float = 0.0
    """Mean number of clauses that name a wrong word of an asked kind and deny it ("it was not a crow")."""
    label_noise: float = 0.0
    """Share of training rows whose label is wrong."""
    seen: float = 0.65
    """Share of each value's words that are seen."""


class Suite(NamedTuple):
    """Held-in skills, one expert each, held-out tasks, and public ones."""

    held_in: tuple[Task, ...]
    held_out: tuple[Task, ...]
    public: tuple[Task, ...] = ()


def generate(config: SuiteConfig = SuiteConfig()) -> Suite:
    """The suite that `config` describes, the same on every machine. Raises UserError if it cannot be."""
    check(config)
    held_in = tuple(_task(config, (kind,), config.train) for kind in config.kinds)
    held_out = tuple(_task(config, pair, config.pair_train) for pair in config.pairs)
    return Suite(held_in, held_out, _public(config, held_in + held_out) if config.public else ())


def _public(config: SuiteConfig, others: tuple[Task, ...]) -> tuple[Task, ...]:
    """A task for each kind, and as many for pairs that are no target's (fewer where there are fewer)."""
    taken = {frozenset(pair) for pair in config.pairs}
    free = [pair for pair in itertools.combinations(config.kinds, 2) if frozenset(pair) not in taken]
    pairs = random.Random(f"{config.seed}/public").sample(free, min(len(free), len(config.kinds)))
    texts = {row.input for task in others for split in SPLITS for row in task.rows[split]}
    counts = {"train": config.public, "validation": max(1, config.public // 4)}
    found = []
    for asked in (*((kind,) for kind in config.kinds), *sorted(pairs)):
        name = "_".join(("public", *asked))
        rows = {split: _rows(config, asked, name, split, GROUPS[0], n, texts) for split, n in counts.items()}
        found.append(_described(name, asked, rows | {"test": ()}))
    return tuple(found)


def check(config: SuiteConfig) -> None:
    """Raises UserError naming the first field that cannot be."""
    for field, names in (("kinds", config.kinds), *(("pairs", pair) for pair in config.pairs)):
        allowed = tuple(KINDS) if field == "kinds" else config.kinds
        for name in names:
            if name not in allowed:
                raise UserError(f"suite.{field} names {name!r}: expected one of {', '.join(allowed)}")
        if len(set(names)) < len(names):
            raise UserError(f"suite.{field} names one kind twice in {names}: name each once")
    low, high = config.clauses
    least = 2 if config.pairs else 1
    if not least <= low <= high <= len(config.kinds):
        raise UserError(
            f"suite.clauses is {low} to {high}: expected a range within {least} to {len(config.kinds)}"
        )
    if not 0 <= config.label_noise < 1 or config.distractors < 0:
        raise UserError("suite.label_noise must be a share below 1, and suite.distractors not negative")
    if min(config.train, config.pair_train, config.validation, config.test) < 1 or config.public < 0:
        raise UserError(
            "suite.train, pair_train, validation and test must each be at least 1, and public not negative"
        )
    for kind in config.kinds:
        for value in KINDS[kind].values:
            if not all(words(config, kind, value, group) for group in GROUPS):
                raise UserError(f"suite.seen is {config.seen}: {kind}/{value} would have no word on one side")


@lru_cache(maxsize=512)
def words(config: SuiteConfig, kind: str, value: str, group: str) -> tuple[str, ...]:
    """Seen or unseen words of a value: the first `seen` share in the order of a hash, and the rest."""
    every = KINDS[kind].values[value].words
    ranked = sorted(
        every, key=lambda word: hashlib.sha256(f"{config.seed}/{kind}/{value}/{word}".encode()).digest()
    )
    cut = round(config.seen * len(ranked))
    return tuple(ranked[:cut] if group == "seen" else ranked[cut:])


def _task(config: SuiteConfig, asked: tuple[str, ...], train: int) -> Task:
    name, texts = "_".join(asked), set[str]()

    def rows(split: str, group: str, count: int) -> tuple[Row, ...]:
        return _rows(config, asked, name, split, group, count, texts)

    made = {
        "train": rows("train", "seen", train),
        "validation": _alternating(*(rows("validation", group, config.validation) for group in GROUPS)),
        "test": _alternating(*(rows("test", group, config.test) for group in GROUPS)),
    }
    return _described(name, asked, made)


def _rows(
    config: SuiteConfig,
    asked: tuple[str, ...],
    name: str,
    split: str,
    group: str,
    count: int,
    texts: set[str],
) -> tuple[Row, ...]:
    """Fresh rows that ask for these kinds; their texts join `texts`."""
    rng, answers, made = random.Random(f"{config.seed}/{name}/{split}/{group}"), _answers(asked), []
    instruction = _instruction(asked)
    for answer in _balanced(rng, answers, count):
        text = _fresh(rng, config, dict(zip(asked, answer, strict=True)), group, texts)
        if split == "train" and rng.random() < config.label_noise:
            answer = rng.choice([other for other in answers if other != answer])
        made.append(Row(text, instruction, _joined(answer), group=group))
    return tuple(made)


def _described(name: str, asked: tuple[str, ...], rows: Mapping[str, tuple[Row, ...]]) -> Task:
    """The task of these rows, with its labels and their phrases."""
    answers = _answers(asked)
    return Task(
        name=name,
        kind="classification",
        cluster="skill" if len(asked) == 1 else "pair",
        instruction=_instruction(asked),
        rows=rows,
        choices=tuple(_joined(answer) for answer in answers),
        label_text=tuple(
            _joined([KINDS[kind].values[value].label for kind, value in zip(asked, answer, strict=True)])
            for answer in answers
        ),
        skills=asked,
    )


def _instruction(asked: tuple[str, ...]) -> str:
    return " ".join(KINDS[kind].question for kind in asked)


def _answers(asked: tuple[str, ...]) -> list[tuple[str, ...]]:
    return list(itertools.product(*(KINDS[kind].values for kind in asked)))


def _alternating(*groups: tuple[Row, ...]) -> tuple[Row, ...]:
    """Rows of the groups in turn, so that however many are kept, the groups are equal in number."""
    return tuple(itertools.chain.from_iterable(zip(*groups, strict=True)))


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(parts)


def _balanced(rng: random.Random, answers: list[tuple[str, ...]], count: int) -> list[tuple[str, ...]]:
    """Every answer equally often, as nearly as the count allows, in random order."""
    drawn = list(itertools.islice(itertools.cycle(rng.sample(answers, len(answers))), count))
    rng.shuffle(drawn)
    return drawn


def _fresh(
    rng: random.Random, config: SuiteConfig, asked: dict[str, str], group: str, texts: set[str]
) -> str:
    for _ in range(1000):
        text = _text(rng, config, asked, group)
        if text not in texts:
            texts.add(text)
            return text
    raise UserError("suite: the kinds have too few words for so many different texts; ask for fewer")


def _text(rng: random.Random, config: SuiteConfig, asked: dict[str, str], group: str) -> str:
    """One text that shows the asked values, with words of one group only."""
    others = rng.sample(
        [kind for kind in config.kinds if kind not in asked], rng.randint(*config.clauses) - len(asked)
    )
    shown = asked | {kind: rng.choice(list(KINDS[kind].values)) for kind in others}
    clauses = [
        rng.choice(KINDS[kind].templates).format(rng.choice(words(config, kind, value, group)))
        for kind, value in shown.items()
    ]
    whole = int(config.distractors)
    for _ in range(whole + (rng.random() < config.distractors - whole)):
        kind = rng.choice(list(asked))
        wrong = rng.choice([value for value in KINDS[kind].values if value != asked[kind]])
        clauses.append(rng.choice(KINDS[kind].denials).format(rng.choice(words(config, kind, wrong, group))))
    rng.shuffle(clauses)
    return ", ".join(clauses) + "."
