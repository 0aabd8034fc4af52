"""The places that most methods are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax.aggregation import bottleneck, formulations
from moejax.aggregation import delta as deltas
from moejax.experts.merge import Mode
from moejax.experts.stacks import Stack
from moejax.joint import Next, Places, Site
from moejax.models.layers import Join
from moejax.models.norms import HeadNorm, ShiftedNorm, rms
from moejax.routing import select
from moejax.types import Batch, PRNGKey, PyTree, Weights

LINEARS = "*layers/*/*"  # every linear of every block; where no expert adapts one, the place does nothing
NORMS = (
    "*layers/*norm"  # every norm of every block, likewise; it goes before LINEARS, which matches some of them
)
SUBLAYERS = ("*layers/attn", "*layers/mlp", "*layers/*_join")  # a parallel block has one join
Score = Callable[[Site, Array], Weights]


@dataclass(frozen=True)
class Lora:
    """A linear and its routed experts, LoRAs or differences of full fine-tunes: next(x) + mix(x).

    A norm too, of which a fine-tune moved gain and bias.

    `score(site, x)` gives the weights; without it the weights of the enclosing place or of `route` are worn.
    Weights are zero where an expert is absent; a layer that no expert adapts costs nothing.
    sow: whether the weights are recorded (not those of copies of the rows, which say nothing).
    dropout: share of x that the experts do not see where there is a random key, which is in training alone.
    """

    mode: Mode = "output"
    score: Score | None = None
    sow: bool = True
    dropout: float = 0.0

    def __call__(self, site: Site, next: Next, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
        """The adapted linear, [b, t, d] -> [b, t, f]."""
        y = next(x)
        stack = site.stack or site.deltas
        if stack is None:
            return y
        weights = self.score(site, x) if self.score else site.outer
        if weights is None:
            raise ValueError(f"{site.path}: no weights; give a score, a route, or an enclosing place")
        weights = _present(weights, site)
        if self.sow:
            site.sow("weights", weights)
        if self.mode != "output" and not isinstance(stack, Stack):
            raise ValueError(f"{site.path}: differences have no factors to mix by {self.mode!r}")
        slot = site.slot

        def delta(x):
            x = dropped(x, self.dropout, site.key)
            if isinstance(stack, Stack):
                mix = getattr(formulations, self.mode)
                return mix(x, stack, slot, weights, site.formulation).astype(y.dtype)
            if isinstance(site.module, nn.LayerNorm | nn.RMSNorm | ShiftedNorm):
                return deltas.gain(normed(site.module, x), stack, slot, weights).astype(y.dtype)
            if isinstance(site.module, HeadNorm):
                heads = rms(x.reshape(*x.shape[:2], -1, site.module.size), site.module.epsilon)
                gain = partial(deltas.gain, stack=stack, slot=slot, weights=weights)
                each = jax.vmap(gain, in_axes=2, out_axes=2)
                return each(heads).astype(y.dtype).reshape(y.shape)
            return deltas.output(x, stack, slot, weights).astype(y.dtype)

        if stack.scale.shape[0] == stack.slot.shape[0]:  # every layer is adapted
            return y + delta(x)
        return y + jax.lax.cond(slot >= 0, delta, lambda x: jnp.zeros_like(y), x)


def normed(
    module: nn.LayerNorm | nn.RMSNorm | ShiftedNorm, x: Float[Array, "b t d"]
) -> Float[Array, "b t d"]:
    """What a norm multiplies by its gain, float32: (x - mean) / sqrt(variance + eps), in RMSNorm without the mean."""
    x = x.astype(jnp.float32)
    if isinstance(module, nn.LayerNorm):
        x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + module.epsilon)


def dropped(x: Float[Array, "*n"], share: float, key: PRNGKey | None) -> Float[Array, "*n"]:
    """x with this share of its numbers at zero, drawn anew by each key, and the others larger by 1 / (1 - share).

    One draw for all experts of a site. Without a key, x as it is.
    """
    if key is None or not share:
        return x
    kept = jax.random.bernoulli(key, 1.0 - share, x.shape)
    return jnp.where(kept, x / (1.0 - share), 0.0)


def _present(weights: Weights, site: Site) -> Weights:
    """No weight on an expert that does not adapt this very site."""
    present = site.present
    if weights.index is not None:
        return Weights(weights.values * present[weights.index], weights.index)
    shape = (1,) * (weights.values.ndim - 1) + present.shape
    return Weights(weights.values * present.reshape(shape), None)


@dataclass(frozen=True)
class Bottleneck:
    """What bottleneck adapters add to a sub-layer: after it h + add(h), at its join next(x, h + add(next(x, h))).

    `add(site, h)` gives it, [b, t, d] -> [b, t, d]. A post-norm join applies its norm twice, as published. Where no
    expert has an adapter in any layer, the place does nothing.
    """

    add: Callable[[Site, Array], Array]

    def __call__(self, site: Site, next: Next, *args: Any) -> Float[Array, "b t d"]:
        """The adapted attention, MLP or join."""
        if site.bottlenecks is None:
            return next(*args)
        z = next(*args)
        f = self.add(site, z).astype(z.dtype)
        if not isinstance(site.module, Join):
            return z + f
        x, h = args
        return next(x, h + f)


@dataclass(frozen=True)
class Worn:
    """The adapters by the weights of the enclosing place or of `route`: sum_e w_e u_e(h)."""

    def __call__(self, site: Site, h: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Zero where an expert is absent."""
        assert site.bottlenecks is not None
        if site.outer is None:
            raise ValueError(f"{site.path}: no weights; give a route, or an enclosing place")
        weights = _present(site.outer, site)
        site.sow("weights", weights)
        slot = jnp.maximum(site.slot, 0)
        return bottleneck.output(h, site.bottlenecks, slot, weights, site.formulation)


def bottlenecks(add: Callable[[Site, Array], Array]) -> Places:
    """The places where bottleneck adapters can stand."""
    return tuple((path, Bottleneck(add)) for path in SUBLAYERS)


EXPERTS: Places = ((NORMS, Lora("output")), (LINEARS, Lora("output")), *bottlenecks(Worn()))
"""All experts of a pool, of whatever kind, by the weights of the enclosing place or of `route`."""


@dataclass(frozen=True)
class Uniform:
    """Static merging: every expert of the pool with one weight, 1 / e, or `knobs[knob]` each.

    An expert that does not adapt a site counts as a zero update there: w_e = 1 / (number alive).
    """

    knob: str | None = None

    def __call__(self, site: Site, x: Float[Array, "b t d"]) -> Weights:
        """Task weights `[e]`."""
        alive = site.bank.alive
        each = site.knobs[self.knob] if self.knob else 1.0 / jnp.maximum(alive.sum(), 1)
        return Weights(alive * each)


def one_member(arrays: PyTree, batch: Batch) -> Weights:
    """A route: all rows wear the expert that the router names, weights [1]; a negative number means none."""
    return select.one_hot(arrays["router"]["model"]["expert"])


def evenly(arrays: PyTree, batch: Batch) -> Weights:
    """A route: all rows wear the uniform merge, task weights [e]."""
    alive = arrays["bank"].alive
    return Weights(alive / jnp.maximum(alive.sum(), 1))


def own_expert(arrays: PyTree, batch: Batch) -> Weights:
    """A route: each row wears the expert that `Batch.expert` names, weights [b, 1]."""
    return select.one_hot(batch.expert)
