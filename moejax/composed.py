"""Two passes in one forward: a first model whole, then a second that attends over its hidden states.

`arrays["router"]["model"]` holds the connections: their weights [n, e, …] as in `aggregation/cross_attention.py`;
read [n], the layers of the first model whose output is read; slot [l], the connection after each block of the second
(-1: none). The first model is another one (`arrays["beside"]`, e = 1), or the base under each expert of the bank.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moejax.adapted import Adapted, Ran, is_decoder, one_pass
from moejax.aggregation.cross_attention import attend, project
from moejax.experts.bank import size
from moejax.joint import Next, Site
from moejax.models.decoder import empty_cache
from moejax.models.stream import Cache, Context, context, tile
from moejax.routing import select
from moejax.site import sown
from moejax.types import Batch, PyTree, UserError, Weights

LAYERS = ("read", "slot")  # leaves that say where, and are not trained


class Memory(NamedTuple):
    """What the second model attends over, at all connections; mask None: everything is seen."""

    keys: Float[Array, "n b s h dh"]
    values: Float[Array, "n b s h dh"]
    mask: Bool[Array, "b 1 t s"] | None


class Caches(NamedTuple):
    """Of the first model, of the second, and the connections' keys and values, in the slots of the second's."""

    first: Cache
    second: Cache
    keys: Float[Array, "n b s h dh"]
    values: Float[Array, "n b s h dh"]


def read(site: Site, next: Next, x: Float[Array, "b t d"], ctx: Context) -> Float[Array, "b t d"]:
    """A block of the first model, its output recorded."""
    y = next(x, ctx)
    site.sow("states", y)
    return y


@dataclass(frozen=True)
class Added:
    """A block of the second model: H + what it attends to in each first model, where the layer has a connection."""

    beside: bool

    def __call__(
        self, site: Site, next: Next, x: Float[Array, "b t d"], ctx: Context
    ) -> Float[Array, "b t d"]:
        """What goes on to the next block; experts that are not alive add nothing."""
        y, model, memory = next(x, ctx), site.router["model"], site.router["memory"]
        at = model["slot"][site.layer]
        weights = jnp.ones(1) if self.beside else site.bank.alive.astype(jnp.float32)
        if not self.beside:
            site.sow("weights", Weights(weights * (at >= 0)))

        def added(y):
            i = jnp.maximum(at, 0)
            here = {name: leaf[i] for name, leaf in model.items() if name not in LAYERS}
            terms = attend(here, y, memory.keys[i], memory.values[i], memory.mask)
            return (y + jnp.einsum("btef,e->btf", terms, weights)).astype(y.dtype)

        return jax.lax.cond(at >= 0, added, lambda y: y, y)


@dataclass(frozen=True)
class Composed:
    """The passes: nothing of the second reaches the first, so all keys and values are made between them.

    unmasked: a token sees everything, padding and later tokens too; else each real token, of a decoder none that is
    later (however narrow the window of its own attention).
    """

    first: Adapted
    heads: int
    beside: bool
    unmasked: bool = False

    def empty(self, adapted: Adapted, arrays: PyTree, rows: int, slots: int) -> Caches:
        """Three caches. Raises UserError when unmasked: a later token would change what stands in them."""
        if self.unmasked:
            raise UserError(
                "without a mask a token sees later ones, so that no cache serves it: use mask='causal'"
            )
        copies = 1 if self.beside else size(arrays["bank"])
        n, _, _, width = arrays["router"]["model"]["o"].shape
        store = jnp.zeros((n, rows, slots, copies * self.heads, width // self.heads))
        first: Any = self.first.model
        second: Any = adapted.model
        caches = (
            empty_cache(first.config, rows * copies, slots),
            empty_cache(second.config, rows, slots),
        )
        return Caches(*caches, store, store)

    def __call__(
        self, adapted: Adapted, arrays: PyTree, batch: Batch, *, cache: Caches | None = None, **options: Any
    ) -> Ran:
        """What the second pass gives, with the caches of both."""
        model = arrays["router"]["model"]
        ran = self.ahead(arrays, batch, cache.first if cache else None)
        states = self.states(ran, len(batch.tokens), model["read"])
        keys, values = project({n: model[n] for n in ("project", "k", "v")}, states, self.heads)
        if cache:
            keys, values = (_written(s, x, cache) for s, x in ((cache.keys, keys), (cache.values, values)))
        second = cache.second if cache else None
        seen = None if self.unmasked else context(batch.mask, is_decoder(adapted.model), cache=second).mask
        given = {**arrays, "router": arrays["router"] | {"memory": Memory(keys, values, seen)}}
        own = one_pass(adapted, given, batch, cache=second, **{**options, "held": {}})
        return own._replace(cache=Caches(ran.cache, own.cache, keys, values)) if cache else own

    def ahead(self, arrays: PyTree, batch: Batch, cache: Cache | None) -> Ran:
        """The first pass: the model beside, or the base under every expert on copies of the rows."""
        if self.beside:
            arrays, outer, batch = {**arrays, "params": arrays["beside"]}, None, batch._replace(prefix=None)
        else:
            e = size(arrays["bank"])
            outer, batch = select.one_hot(jnp.tile(jnp.arange(e), len(batch.tokens))), tile(batch, e)
        return one_pass(self.first, arrays, batch, cache=cache, held={}, outer=outer, record=True)

    def states(self, ran: Ran, rows: int, read: Array) -> Float[Array, "n b e t d"]:
        """H after the layers that are read."""
        every = sown(ran.records, "states")["layers"]
        first: Any = self.first.model
        chosen = every[read - (first.config.layers - len(every))]
        return chosen.reshape(len(read), rows, -1, *every.shape[2:])


def _written(
    store: Float[Array, "n b s h dh"], new: Float[Array, "n b t h dh"], cache: Caches
) -> Float[Array, "n b s h dh"]:
    return jax.lax.dynamic_update_slice(store, new, (0, 0, cache.second.at, 0, 0))
