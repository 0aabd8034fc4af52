"""Rows of data as arrays, and the batches and streams that training and evaluation draw from them."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Int

from moejax.contract import Rows
from moejax.parallel.spread import by_rows, spread
from moejax.types import Batch

Stream = Callable[[int], Batch]  # the batch of a step: random access, so a resumed run sees the same batches


@dataclass(frozen=True, eq=False)
class Drawn:
    """A stream of batches of `size` rows; `read(step, numbers)` reads those of a step that have these numbers in it."""

    size: int
    read: Callable[[int, Int[np.ndarray, "n"]], Batch]

    def __call__(self, step: int) -> Batch:
        return self.read(step, np.arange(self.size))


def over(stream: Stream, step: int, sharding: NamedSharding | None) -> Batch:
    """The batch of a step over the devices of all processes, each of which reads its own rows (`parallel.spread`).

    A stream that is a plain function is read whole by each.
    """
    if not isinstance(stream, Drawn):
        return stream(step)
    return spread(lambda numbers: stream.read(step, numbers), stream.size, sharding)


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows held as one big numpy batch; `index` picks which of its rows these are. words: what each request says."""

    whole: Batch
    index: np.ndarray
    words: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: np.ndarray) -> Batch:
        """The batch of these rows, in this order."""
        chosen = self.index[index]
        return Batch(*(None if leaf is None else np.asarray(leaf[chosen]) for leaf in self.whole))

    def texts(self, index: np.ndarray) -> list[str]:
        """What the requests of these rows say, in this order."""
        return [self.words[at] for at in self.index[index].tolist()]


def batches(rows: Rows, size: int) -> Iterator[tuple[Batch, int]]:
    """All rows once, in order, in batches of one shape: (batch, how many of its rows are real).

    The last batch is filled by repeating its first row with weight 0. Of several processes each reads its own rows.
    """
    sharding = by_rows()
    for start in range(0, len(rows), size):
        real = min(size, len(rows) - start)

        def read(numbers: Int[np.ndarray, "n"], start: int = start, real: int = real) -> Batch:
            weight = (numbers < real).astype(np.float32)
            return rows.take(start + np.where(numbers < real, numbers, 0))._replace(weight=weight)

        yield spread(read, size, sharding), real


def order(count: int, seed: int) -> Callable[[int], int]:
    """Position in an endless shuffled pass over `count` rows -> row; each epoch is shuffled anew (grain)."""
    import grain

    shuffled: Any = grain.MapDataset.range(count).shuffle(seed=seed).repeat()
    return lambda position: shuffled[position]


def seed_of(name: str, seed: int) -> int:
    """A seed that depends on the name and the run's seed alone, never on the order of names."""
    return zlib.crc32(f"{seed}:{name}".encode()) & 0x7FFFFFFF


def drawn(rows: Rows, size: int, seed: int) -> Drawn:
    """Batches of `size` rows from an endless shuffled pass."""
    at = order(len(rows), seed)

    def read(step: int, numbers: Int[np.ndarray, "n"]) -> Batch:
        index = np.array([at(step * size + i) for i in numbers.tolist()])
        return rows.take(index)._replace(weight=np.ones(len(numbers), np.float32))

    return Drawn(size, read)


def bound(rows: Mapping[str, Rows], names: Sequence[str], each: int, seed: int) -> Drawn:
    """Batches of `each` rows an expert, side by side, every row bound to its own expert by `Batch.expert`.

    Each expert's rows come from its own shuffled pass, seeded by its name: the same whether trained together or
    alone, and whatever the others' data sizes.
    """
    streams = [drawn(rows[name], each, seed_of(name, seed)) for name in names]

    def read(step: int, numbers: Int[np.ndarray, "n"]) -> Batch:
        owner = numbers // each
        parts = [streams[e].read(step, numbers[owner == e] % each) for e in np.unique(owner).tolist()]
        return stack(parts)._replace(expert=owner.astype(np.int32))

    return Drawn(each * len(names), read)


def pooled(rows: Mapping[str, Rows], names: Sequence[str], size: int, seed: int) -> Drawn:
    """Batches of `size` rows from all experts' rows in one shuffled pass, with `Batch.expert` set.

    Which rows a batch holds depends on the set of names, not on their order.
    """
    ordered = sorted(names)
    place = np.array([list(names).index(name) for name in ordered], np.int32)
    counts = np.cumsum([0] + [len(rows[name]) for name in ordered])
    at = order(int(counts[-1]), seed)

    def read(step: int, numbers: Int[np.ndarray, "n"]) -> Batch:
        index = np.array([at(step * size + i) for i in numbers.tolist()])
        owner = np.searchsorted(counts, index, side="right") - 1
        parts = [rows[ordered[e]].take(np.array([i - counts[e]])) for e, i in zip(owner, index, strict=True)]
        return stack(parts)._replace(expert=place[owner], weight=np.ones(len(numbers), np.float32))

    return Drawn(size, read)


def stack(parts: Sequence[Batch]) -> Batch:
    """Batches of one shape after each other."""
    fields = zip(*parts, strict=True)
    return Batch(*(None if leaves[0] is None else np.concatenate(leaves) for leaves in fields))
