"""A base model as a record: module, parameters, names of its linears, fingerprint, tokenizer on demand."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import flax.linen as nn
import numpy as np
from jaxtyping import Float

from moejax.experts.checkpoint import canonical
from moejax.experts.homes import NOWHERE, Homes
from moejax.types import PyTree


@runtime_checkable
class Embedder(Protocol):
    """What makes vectors of texts (`embed.embedder`)."""

    @property
    def name(self) -> str: ...

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "n q"]: ...


@dataclass(frozen=True, eq=False)
class Base:
    """What experts are trained on and routed over.

    model         Encoder(config), Decoder(config) or Seq2Seq(config): hashable by value, a static argument
    params        Linen parameters, those of the layers stacked under "layers" on a leading axis; of a seq2seq there
                  are three such stacks (`models.seq2seq`)
    fingerprint   of the parameters under their Hugging Face names
    sites         Hugging Face module name -> (path, layer) of each linear that an expert may adapt
    shapes        path -> (in, out)
    read_tokenizer  called once, at the first use of `tokenizer`
    folder        where it was read
    labels        encoder: label vectors that `Batch.choices` points into
    embedder      texts -> unit vectors, with the `name` of encoder and rule; None where none is at hand
    beside        a second model, of any shape, over the same token ids, for methods that compose two
    homes         where AdapterHub keeps bottleneck adapters of it
    """

    model: nn.Module
    params: PyTree
    fingerprint: str
    sites: dict[str, tuple[str, int]]
    shapes: dict[str, tuple[int, int]]
    read_tokenizer: Callable[[], Any] | None = None
    folder: str | None = None
    labels: Any = None
    homes: Homes = NOWHERE
    embedder: Embedder | None = None
    beside: "Base | None" = None

    @property
    def identity(self) -> str:
        """What a router is tied to: the fingerprint, and that of the model beside it."""
        return self.fingerprint if self.beside is None else f"{self.fingerprint}+{self.beside.fingerprint}"

    @property
    def layers(self) -> int:
        """Number of blocks; of a seq2seq, those of its deeper side."""
        return self.model.config.layers  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def kind(self) -> Literal["encoder", "decoder", "seq2seq"]:
        """encoder: gives sentence vectors; decoder: predicts tokens; seq2seq: those of an answer to an encoded text."""
        if hasattr(self.model, "remember"):
            return "seq2seq"
        return "decoder" if hasattr(self.model, "head") else "encoder"

    def reads_as(self, other: "Base") -> bool:
        """Whether both models read the same token ids: equal vocabularies, or as many ids where neither is at hand."""
        first, second = (one.tokenizer and one.tokenizer.get_vocab() for one in (self, other))
        if first is None and second is None:
            return self.model.config.vocab == other.model.config.vocab  # pyright: ignore[reportAttributeAccessIssue]
        return first == second

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the base's folder, None without one. Raises UserError if it cannot be read."""
        return None if self.read_tokenizer is None else self.read_tokenizer()


def fingerprint(tensors: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]]) -> str:
    """sha256 over the parameters by Hugging Face name: sorted names, shapes, values as float32.

    Order, shards, a wider file dtype, the prefix of a wrapping class ("bert.", "model.") and buffers
    (position_ids) change nothing. Takes a mapping, or pairs one at a time: no two need be in memory.
    """
    pairs: Iterable[tuple[str, Any]] = tensors.items() if isinstance(tensors, Mapping) else tensors  # type: ignore[assignment]
    return sealed(line(name, np.shape(values), [values]) for name, values in pairs)


def sealed(lines: Iterable[str | None]) -> str:
    """The fingerprint, from the `line` of each parameter."""
    return hashlib.sha256("\n".join(sorted(one for one in lines if one is not None)).encode()).hexdigest()


def line(name: str, shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> str | None:
    """What a fingerprint has of one parameter, given in pieces, first rows first; None of a buffer."""
    known, digest = canonical(name), hashlib.sha256()
    for values in pieces:
        digest.update(np.ascontiguousarray(values, dtype="<f4").data)
    return None if known is None else f"{known} {list(shape)} {digest.hexdigest()}"
