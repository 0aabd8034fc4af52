"""The joint: one interceptor through which every method reaches an untouched base model.

A place is `fn(site, next, *args) -> what the module returns`: a linear returns `next(x) + delta`, a join
`next(x, h + f)`, a block or an attention `next(x, ctx)`, the embedding `next(tokens)`. `next` may be called
any number of times; `next(..., outer=weights)` hands weights inward; `next(..., copies=n)` runs every row n
times, side by side, and returns all of them. Enter `joined` INSIDE the jitted function: interceptors act
while tracing, and jit caches do not see them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import flax.linen as nn

from moejax.aggregation.rule import Formulation
from moejax.experts.bank import Bank
from moejax.models.block import Block
from moejax.models.layers import Attention
from moejax.models.seq2seq import CrossBlock
from moejax.models.stream import Stream, tile
from moejax.site import Inside, Site
from moejax.types import Batch, PRNGKey, PyTree, Weights

Next = Callable[..., Any]
Place = Callable[..., Any]
Places = tuple[tuple[str, Place], ...]


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
    said: Batch | None = None,
    formulation: Formulation | None = None,
) -> Iterator[None]:
    """Let `places` act on every module call inside the `with`; the first pattern that matches a path wins.

    Raises ValueError on leaving when a pattern met no module (a misspelt path would otherwise do nothing in
    silence), unless `partial`: only a part of the model is run.
    formulation: how experts are mixed at places that ask; None: the quickest way.
    said: of a seq2seq, the request that places in its decoder see instead of `batch` (`seq2seq.said`).
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
        if isinstance(module, Block | CrossBlock):
            trace.open.append(replace(trace.open[-1], layer=args[2], frame={}))
        try:
            if place is None:
                return call(*args, **kwargs)
            request = said if said is not None and f"{path}/".startswith("layers/") else batch
            site = Site(path, module, trace.open[-1], bank, router, request, key, formulation)
            around = _carrying if isinstance(module, Block | Attention) else _plain
            return around(place, site, trace, call, args)
        finally:
            if isinstance(module, Block | CrossBlock):
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

    def following(*args, outer: Weights | None = None, copies: int = 1):
        nonlocal calls
        if calls:  # what flax does itself after a call; else a second call raises NameInUseError
            scope = site.module.scope
            assert scope is not None
            object.__setattr__(site.module, "scope", scope.rewound())
        calls += 1
        inside = trace.open[-1]
        if outer is None:
            outer = inside.outer
            if outer is not None and outer.values.ndim > 1:
                outer = tile(outer, copies)
        trace.open.append(Inside(inside.layer, outer, inside.copies * copies))
        try:
            return call(*args)
        finally:
            trace.open.pop()

    return following


def _plain(place: Place, site: Site, trace: _Trace, call: Next, args: tuple) -> Any:
    """A linear, a norm, an MLP, a join, the embedding; the result is cast once to the module's own dtype."""
    following, dtypes = _next(site, trace, call), []

    def remembering(*inner, copies: int = 1, **options):
        y = following(*tile(inner, copies), copies=copies, **options)
        dtypes.append(y.dtype)
        return y

    y = place(site, remembering, *args)
    return y.astype(dtypes[0]) if dtypes else y


def _carrying(place: Place, site: Site, trace: _Trace, call: Next, args: tuple) -> tuple:
    """A block or an attention: the place sees `x` and the context, the cache is carried past it.

    Each call needs keys and values of its own: while caching, run copies of the rows in one call.
    """
    following, is_block, written = _next(site, trace, call), isinstance(site.module, Block), False
    if is_block:
        (x, cache), ctx, layer = args
    else:
        x, ctx, layer, cache = args

    def streaming(x, ctx, *, copies: int = 1, **options):
        nonlocal cache, written
        if written and cache is not None:
            raise ValueError(f"{site.path}: one cache cannot serve two calls of next; use copies of the rows")
        written = True
        x, ctx = tile((x, ctx), copies)
        if is_block:
            (x, cache), _ = following(Stream(x, cache), ctx, layer, copies=copies, **options)
        else:
            x, cache = following(x, ctx, layer, cache, copies=copies, **options)
        return x

    y = place(site, streaming, x, ctx).astype(x.dtype)
    return (Stream(y, cache), None) if is_block else (y, cache)
