"""The adapted model: a base, places on it, and arrays. What is static is a value, all else is an argument.

`arrays` is one pytree {"params", "bank", "router", "labels"}: base parameters, experts, the method's own
leaves, and, for an encoder, the label vectors that `Batch.choices` points into.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.joint import Places, joined
from moejax.models.block import slice_layers
from moejax.models.decoder import empty_cache
from moejax.models.pooling import sentence
from moejax.models.seq2seq import Kept, Seq2Seq, nothing_kept, said
from moejax.models.stream import Cache, Stream, advance
from moejax.parallel.rules import by_rows
from moejax.routing.select import FAR
from moejax.site import HELD, RECORDS
from moejax.types import Batch, PRNGKey, PyTree, Weights


@dataclass(frozen=True)
class Adapted:
    """A base model with places: frozen and hashable by value, a static argument of every jitted function.

    route: `route(arrays, batch) -> Weights`, once per request, handed inward to the places.
    copies, each: rows of cache for each row of the batch: `copies`, and `each` more for each slot of the bank.
    passes: how several passes make one forward; None: one pass, through `model` with `places`.
    either: how requests are answered where some use a second whole model; None: all use this one.
    """

    model: nn.Module
    places: Places = ()
    route: Callable[[PyTree, Batch], Weights] | None = None
    copies: int = 1
    each: int = 0
    passes: "Passes | None" = None
    either: "Either | None" = None


class Ran(NamedTuple):
    """What one forward gives: states after the final norm, and what was asked for beside them."""

    hidden: Float[Array, "b t d"]
    cache: PyTree
    records: PyTree
    held: PyTree
    outer: Weights | None


@runtime_checkable
class Passes(Protocol):
    """A forward of several passes (two models, or one model twice): a frozen record, a value like `Adapted` itself."""

    def __call__(self, adapted: Adapted, arrays: PyTree, batch: Batch, **options: Any) -> Ran:
        """What `one_pass` gives, of all passes; the same options."""
        ...

    def empty(self, adapted: Adapted, arrays: PyTree, rows: int, slots: int) -> PyTree:
        """What the passes keep of `rows` texts of up to `slots` tokens, before the first of them."""
        ...


@runtime_checkable
class Either(Protocol):
    """Answers by one of two whole models: a frozen record; its functions are those of this module, by their names."""

    def score(
        self, adapted: Adapted, arrays: PyTree, batch: Batch, **options: Any
    ) -> tuple[Array, PyTree]: ...

    def start(self, adapted: Adapted, arrays: PyTree, batch: Batch, room: int) -> tuple[Array, Any]: ...

    def step(self, adapted: Adapted, arrays: PyTree, token: Array, state: Any) -> tuple[Array, Any]: ...


def run(adapted: Adapted, arrays: PyTree, batch: Batch, **options: Any) -> Ran:
    """One forward: `one_pass`, or those that `adapted.passes` makes of it; the options are those of `one_pass`."""
    return (adapted.passes or one_pass)(adapted, arrays, batch, **options)


def one_pass(
    adapted: Adapted,
    arrays: PyTree,
    batch: Batch,
    *,
    cache: Cache | Kept | None = None,
    held: PyTree | None = None,
    outer: Weights | None = None,
    record: bool = False,
    key: PRNGKey | None = None,
) -> Ran:
    """One pass through the base and its places; `held` from prefill is read, not computed again.

    Of a seq2seq, the encoder runs unless `cache` has what it left, and the decoder reads `seq2seq.said`.
    Parameters of the upper layers alone (`slice_layers(params, lowest, l)`) run those alone, from
    `batch.prefix`, the activations that enter layer `lowest`.
    """
    variables: dict[str, Any] = {"params": arrays["params"]}
    batch = by_rows(batch)
    two = isinstance(adapted.model, Seq2Seq)
    lowest = 0 if two else adapted.model.config.layers - depth(arrays["params"])
    if (lowest > 0) != (batch.prefix is not None):
        raise ValueError(f"layers below {lowest} are not given: the batch needs a prefix then, and only then")
    if held is not None:
        variables[HELD] = held
    mutable = [RECORDS] * record + [HELD] * (cache is not None and held is None)
    alone = isinstance(cache, Kept) and cache.memory is not None  # a decoder, whose own the batch is
    fed = said(adapted.model.config, batch) if two and not alone else batch
    request, own = (
        b._replace(targets=None, answer=None, choices=None) for b in (batch, fed)
    )  # no router looks
    if outer is None and adapted.route:
        outer = adapted.route(arrays, request)
    where: dict[str, Any] = {
        "outer": outer,
        "key": key,
        "said": own,
        "partial": alone,
        "formulation": adapted.model.config.formulation,
    }
    with joined(adapted.places, arrays["bank"], arrays["router"], request, **where):
        (hidden, cache), out = adapted.model.apply(
            variables, batch, fed, cache, lowest, method=_forward, mutable=mutable
        )
    return Ran(hidden, cache, out.get(RECORDS, {}), out.get(HELD, {}) if held is None else held, outer)


def _forward(model: nn.Module, batch: Batch, fed: Batch, cache: Any, lowest: int):
    if isinstance(model, Seq2Seq):
        return model(batch.tokens, batch.mask, fed.tokens, fed.mask, cache)
    x, ctx = model.start(batch.tokens, batch.mask, cache)
    if lowest:
        x = batch.prefix
    stream = model.part(Stream(x, cache), ctx, jnp.arange(lowest, model.config.layers))
    return model.finish(stream.x), advance(stream.cache, batch.mask)


def depth(params: PyTree) -> int:
    """Number of layers whose parameters are given."""
    return jax.tree.leaves(params["layers"])[0].shape[0]


def prefix(model: nn.Module, params: PyTree, batch: Batch, lowest: int) -> Float[Array, "b t d"]:
    """Activations that enter layer `lowest` of the bare base, whatever adapts those above; ValueError for a seq2seq."""
    if isinstance(model, Seq2Seq):
        raise ValueError("a seq2seq has no prefix: run it whole")

    def below(model):
        x, ctx = model.start(batch.tokens, batch.mask, None)
        return model.part(Stream(x, None), ctx, jnp.arange(0, lowest)).x

    found: Any = model.apply({"params": slice_layers(params, 0, lowest)}, method=below)
    return found


class State(NamedTuple):
    """What decoding carries: the cache (of all passes), and what was decided at prefill."""

    cache: PyTree
    held: PyTree
    outer: Weights | None


def empty(adapted: Adapted, arrays: PyTree, rows: int, slots: int) -> PyTree:
    """The cache of `rows` texts of up to `slots` tokens, prompt and generated together."""
    if adapted.passes:
        return adapted.passes.empty(adapted, arrays, rows, slots)
    if isinstance(adapted.model, Seq2Seq):
        return nothing_kept(adapted.model.config, rows, slots)
    copies = adapted.copies + adapted.each * arrays["bank"].alive.size
    cache = empty_cache(adapted.model.config, rows * copies, slots)
    return cache._replace(valid=cache.valid[:rows])


def start(adapted: Adapted, arrays: PyTree, batch: Batch, room: int) -> tuple[Float[Array, "b v"], Any]:
    """Prefill prompts (padded on the left; a seq2seq's anyhow): logits of the next token, the state with more room."""
    if adapted.either:
        return adapted.either.start(adapted, arrays, batch, room)
    rows, length = batch.tokens.shape
    if isinstance(adapted.model, Seq2Seq):
        batch, length = batch._replace(targets=None, answer=None), 1
    ran = run(adapted, arrays, batch, cache=empty(adapted, arrays, rows, length + room))
    return head(adapted.model, arrays, ran.hidden[:, -1]), State(ran.cache, ran.held, ran.outer)


def step(
    adapted: Adapted, arrays: PyTree, token: Int[Array, "b"], state: Any
) -> tuple[Float[Array, "b v"], Any]:
    """One more token for every row: logits of the next, and the state."""
    if adapted.either:
        return adapted.either.step(adapted, arrays, token, state)
    seen = jnp.ones((token.shape[0], 1), bool)
    batch = Batch(token[:, None], seen, jnp.zeros_like(seen))
    ran = run(adapted, arrays, batch, cache=state.cache, held=state.held, outer=state.outer)
    return head(adapted.model, arrays, ran.hidden[:, -1]), State(ran.cache, state.held, state.outer)


def vectors(adapted: Adapted, arrays: PyTree, batch: Batch, **options) -> tuple[Float[Array, "b d"], PyTree]:
    """Unit sentence vectors of an encoder, and the records."""
    ran = run(adapted, arrays, batch, **options)
    return sentence(ran.hidden, batch.pool), ran.records


def score(
    adapted: Adapted, arrays: PyTree, batch: Batch, **options
) -> tuple[Float[Array, "b c_or_t"], PyTree]:
    """Log-probability of each choice [b, c] (encoder) or given next token [b, t] (decoder), and the records.

    Encoder: log_softmax over the choices of cos(sentence, label) / temperature.
    """
    if adapted.either:
        return adapted.either.score(adapted, arrays, batch, **options)
    if is_decoder(adapted.model):
        ran = run(adapted, arrays, batch, **options)
        logits = head(adapted.model, arrays, ran.hidden)
        logp = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        return jnp.take_along_axis(logp, batch.targets[..., None], axis=-1)[..., 0], ran.records
    text, records = vectors(adapted, arrays, batch, **options)
    labels = arrays["labels"][jnp.maximum(batch.choices, 0)]
    cosine = jnp.einsum("bd,bcd->bc", text.astype(jnp.float32), labels.astype(jnp.float32))
    logits = jnp.where(batch.choices >= 0, cosine / adapted.model.config.temperature, FAR)
    return jax.nn.log_softmax(logits, axis=-1), records


def head(model: nn.Module, arrays: PyTree, hidden: Float[Array, "*n d"]) -> Float[Array, "*n v"]:
    """Logits over the vocabulary."""
    found: Any = model.apply({"params": arrays["params"]}, hidden, method="head")
    return found


def is_decoder(model: nn.Module) -> bool:
    """Whether the base predicts tokens (else it gives sentence vectors)."""
    return hasattr(model, "head")
