"""What a place may see of where it stands: its layer, the bank, its router leaves, the request."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from moejax.aggregation.rule import FEW, Formulation
from moejax.experts.bank import Bank
from moejax.experts.stacks import AnyStack, Bottlenecks, Deltas, Stack
from moejax.models.stream import tile
from moejax.types import Batch, PRNGKey, PyTree, Weights

RECORDS = "routing"  # the collection of sown records and auxiliary losses
HELD = "held"  # the collection of values computed at prefill and read at decode
ONE_INPUT = (("q", "k", "v"), ("gate", "up"))  # linears of one sub-layer that read the same activations


@dataclass(frozen=True)
class Inside:
    """What the enclosing places hand inward: the layer's number, weights, and how often rows are repeated.

    frame: what sites of one call of a block leave for each other.
    """

    layer: Int[Array, ""] | None = None
    outer: Weights | None = None
    copies: int = 1
    frame: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Site:
    """What a place may see of where it stands; `formulation`: how experts are to be mixed, None: the quickest way."""

    path: str
    module: nn.Module
    inside: Inside
    bank: Bank
    router: PyTree
    request: Batch
    base_key: PRNGKey | None
    formulation: Formulation | None = None

    @property
    def batch(self) -> Batch:
        """The request, its rows repeated as those of the activations are inside a block that runs copies."""
        return tile(self.request, self.inside.copies)

    @property
    def layer(self) -> Int[Array, ""] | None:
        """Number of the layer (a tracer under the scan); None outside the layers."""
        return self.inside.layer

    @property
    def outer(self) -> Weights | None:
        """The weights of the nearest enclosing place, else of `route`."""
        return self.inside.outer

    @property
    def stack(self) -> Stack | None:
        """All LoRAs for this place, all layers; None: no expert has one here."""
        found = self.bank.sites.get(self.path)
        return found if isinstance(found, Stack) else None

    @property
    def bottlenecks(self) -> Bottlenecks | None:
        """All bottleneck adapters for this place, all layers; None: no expert has one here."""
        found = self.bank.sites.get(self.path)
        return found if isinstance(found, Bottlenecks) else None

    @property
    def deltas(self) -> Deltas | None:
        """All differences of full fine-tunes for this place, all layers; None: no expert has one here."""
        found = self.bank.sites.get(self.path)
        return found if isinstance(found, Deltas) else None

    @property
    def slot(self) -> Int[Array, ""]:
        """This layer's index into the stack and the router's leaves of this place; -1: not adapted here."""
        found = self.bank.sites.get(self.path)
        if found is None:
            return jnp.int32(0) if self.layer is None else self.layer
        return found.slot[0 if self.layer is None else self.layer]

    @property
    def present(self) -> Bool[Array, "e"]:
        """Which experts adapt this very site and are alive."""
        found = self.bank.sites.get(self.path)
        if found is None:
            return self.bank.alive
        return found.present[jnp.maximum(self.slot, 0)] & self.bank.alive & (self.slot >= 0)

    @property
    def knobs(self) -> dict[str, Array]:
        """The router's knobs (temperature, threshold, …), arrays: a sweep compiles nothing."""
        return self.router.get("knobs", {})

    @property
    def leaves(self) -> PyTree:
        """The router's own leaves of this place, at this layer."""
        slot = jnp.maximum(self.slot, 0)
        return jax.tree.map(lambda leaf: leaf[slot], self.router["places"][self.path])

    def dots(
        self, x: Float[Array, "b t d"], name: str, prepare: Callable[[Array], Array] = jnp.asarray
    ) -> Float[Array, "b t e"]:
        """p(x) . g_e for the router's leaf g = `name` [e, d] of this place, float32; p is `prepare`.

        Of many tokens, all sites that read this input are multiplied by it at once: q, k and v; gate and up.
        """
        last = self.path.rpartition("/")[2]
        parent = self.path.removesuffix(last)
        own = next((group for group in ONE_INPUT if last in group), (last,))
        found = self.inside.frame.get((parent, name))
        if found is None or found[0] is not x or last not in found[1]:
            many = x.shape[0] * x.shape[1] > FEW
            beside = [one for one in own if f"{parent}{one}" in self.router["places"]] if many else [last]
            some = [replace(self, path=f"{parent}{one}").leaves[name].astype(jnp.float32) for one in beside]
            scores = jnp.einsum("btd,ed->bte", prepare(x.astype(jnp.float32)), jnp.concatenate(some))
            each = jnp.split(scores, np.cumsum([leaf.shape[0] for leaf in some])[:-1], axis=-1)
            found = x, dict(zip(beside, each, strict=True))
            self.inside.frame[parent, name] = found
        return found[1][last]

    @property
    def key(self) -> PRNGKey | None:
        """A random key of this site, in training only."""
        if self.base_key is None:
            return None
        key = jax.random.fold_in(self.base_key, zlib.crc32(self.path.encode()))
        return key if self.layer is None else jax.random.fold_in(key, self.layer)

    def sow(self, name: str, value: PyTree) -> None:
        """Record a small array or an auxiliary loss; costs nothing unless records are asked for."""
        self.module.sow(RECORDS, name, value)

    def once(self, name: str, make: Callable[[], PyTree]) -> PyTree:
        """`make()`, computed at prefill, kept beside the cache, and read at every decoded token."""
        if self.module.has_variable(HELD, name):
            return self.module.get_variable(HELD, name)
        value = make()
        if self.module.is_mutable_collection(HELD):
            self.module.put_variable(HELD, name, value)
        return value


def sown(records: PyTree, name: str, path: str = "") -> dict[str, PyTree]:
    """What places sowed under a name in one forward: path of the module -> value (stacked over scanned layers)."""
    found = {}
    for key, part in records.items():
        if key == name and isinstance(part, tuple):
            found[path] = part[0]
        elif isinstance(part, Mapping):
            found |= sown(part, name, f"{path}/{key}" if path else key)
    return found


def at_slots(rows: Shaped[Array, "ran *n"], stack: AnyStack) -> Shaped[Array, "s *n"]:
    """What was sown at the layers that ran (the upper ones of all l), for the adapted layers alone, by slot."""
    first = stack.slot.shape[0] - rows.shape[0]
    layer = jnp.argmax(stack.slot[None] == jnp.arange(stack.scale.shape[0])[:, None], axis=1)
    return rows[layer - first]
