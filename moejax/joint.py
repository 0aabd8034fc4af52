"""The joint: one interceptor through which every method reaches an untouched base model.

A place is `fn(site, next, *args) -> what the module returns`: a linear returns `next(x) + delta`, a join
`next(x, h + f)`, a block `next(x, ctx)`, the embedding `next(tokens)`. Enter `joined` INSIDE the jitted function:
interceptors act while tracing, and jit caches do not see them.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from moejax.experts.bank import Bank, Stack
from moejax.models.block import Block
from moejax.models.stream import Stream
from moejax.types import Batch, PRNGKey, PyTree, Weights

Next = Callable[..., Any]
Place = Callable[..., Any]
Places = tuple[tuple[str, Place], ...]

RECORDS = "routing"  # the collection of sown records and auxiliary losses
HELD = "held"  # the collection of values computed at prefill and read at decode


@dataclass(frozen=True)
class Inside:
    """What the enclosing block hands inward: its layer number and its weights."""

    layer: Int[Array, ""] | None = None
    outer: Weights | None = None


@dataclass(frozen=True)
class Site:
    """What a place may see of where it stands."""

    path: str
    module: nn.Module
    inside: Inside
    bank: Bank
    router: PyTree
    batch: Batch
    base_key: PRNGKey | None

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
        """All experts' factors for this place, all layers; None: no expert adapts it."""
        return self.bank.sites.get(self.path)

    @property
    def slot(self) -> Int[Array, ""]:
        """This layer's index into `stack` and into the router's leaves of this place; -1: not adapted here."""
        if self.stack is None:
            return jnp.int32(0) if self.layer is None else self.layer
        return self.stack.slot[self.layer]

    @property
    def present(self) -> Bool[Array, "e"]:
        """Which experts adapt this very site and are alive."""
        if self.stack is None:
            return self.bank.alive
        return self.stack.present[jnp.maximum(self.slot, 0)] & self.bank.alive & (self.slot >= 0)

    @property
    def knobs(self) -> dict[str, Array]:
        """The router's knobs (temperature, threshold, …), arrays: a sweep compiles nothing."""
        return self.router.get("knobs", {})

    @property
    def leaves(self) -> PyTree:
        """The router's own leaves of this place, at this layer."""
        slot = jnp.maximum(self.slot, 0)
        return jax.tree.map(lambda leaf: leaf[slot], self.router["places"][self.path])

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


@dataclass
class _Trace:
    """State of one `joined`: the blocks that are open, and the patterns that met a module."""

    open: list[Inside]
    met: set[str] = field(default_factory=set)


@contextmanager
def joined(
    places: Places,
    bank: Bank,
    router: PyTree,
    batch: Batch,
    *,
    outer: Weights | None = None,
    key: PRNGKey | None = None,
    partial: bool = False,
) -> Iterator[None]:
    """Let `places` act on every module call inside the `with`; the first pattern that matches a path wins.

    Raises ValueError on leaving when a pattern met no module (a misspelt path would otherwise do nothing in
    silence), unless `partial`: only a part of the model is run.
    """
    trace = _Trace([Inside(None, outer)])

    def interceptor(call, args, kwargs, context):
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        module = context.module
        path = "/".join(module.path)
        pattern, place = _find(places, path)
        if place is not None:
            trace.met.add(pattern)
        if isinstance(module, Block):
            trace.open.append(Inside(args[2], trace.open[-1].outer))
        try:
            if place is None:
                return call(*args, **kwargs)
            site = Site(path, module, trace.open[-1], bank, router, batch, key)
            around = _block if isinstance(module, Block) else _plain
            return around(place, site, trace, call, args)
        finally:
            if isinstance(module, Block):
                trace.open.pop()

    with nn.intercept_methods(interceptor):
        yield
    missed = [pattern for pattern, _ in places if pattern not in trace.met]
    if missed and not partial:
        raise ValueError(f"no module of the base matches the place {missed[0]!r}: check its path")


def _find(places: Places, path: str) -> tuple[str, Place | None]:
    for pattern, place in places:
        if fnmatchcase(path, pattern):
            return pattern, place
    return "", None


def _next(site: Site, trace: _Trace, call: Next) -> Next:
    """The module's own computation, callable any number of times, with weights to hand inward."""
    calls = 0

    def following(*args, outer: Weights | None = None):
        nonlocal calls
        if calls:  # what flax does itself after a call; else a second call raises NameInUseError
            scope = site.module.scope
            assert scope is not None
            object.__setattr__(site.module, "scope", scope.rewound())
        calls += 1
        inside = trace.open[-1]
        trace.open.append(inside if outer is None else Inside(inside.layer, outer))
        try:
            return call(*args)
        finally:
            trace.open.pop()

    return following


def _plain(place: Place, site: Site, trace: _Trace, call: Next, args: tuple) -> Any:
    """A linear, a join or the embedding; what the place returns is cast once to the module's own dtype."""
    following, dtypes = _next(site, trace, call), []

    def remembering(*inner, **options):
        y = following(*inner, **options)
        dtypes.append(y.dtype)
        return y

    y = place(site, remembering, *args)
    return y.astype(dtypes[0]) if dtypes else y


def _block(place: Place, site: Site, trace: _Trace, call: Next, args: tuple) -> tuple[Stream, None]:
    """A block: the place sees `x` and the context; the cache is carried past it."""
    stream, ctx, layer = args
    following, cache = _next(site, trace, call), stream.cache

    def streaming(x, ctx, **options):
        nonlocal cache
        out, _ = following(Stream(x, cache), ctx, layer, **options)
        cache = out.cache
        return out.x

    x = place(site, streaming, stream.x, ctx)
    return Stream(x.astype(stream.x.dtype), cache), None
