"""A place without a model around it: what a method's scores may look at, made by hand."""

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from moejax.experts.bank import Bank
from moejax.experts.stacks import Stack
from moejax.site import Inside, Site
from moejax.types import Batch


@dataclass(frozen=True)
class Here(Site):
    """A site that keeps what is sown in `found`, and decides anew each time."""

    found: dict[str, Any] = field(default_factory=dict)

    def sow(self, name, value):
        self.found[name] = value

    def once(self, name, make):
        return make()


def here(path: str, present, leaves, batch: Batch, linear: str | None = None) -> Here:
    """A site at `path` whose linear (`path` itself, or one within) the experts of `present` [e] adapt."""
    present = np.asarray(present, bool)
    e = len(present)
    zero = jnp.zeros((1, e, 1, 1))
    stack = Stack(zero, zero, zero[..., 0, 0], jnp.asarray(present)[None], jnp.zeros(1, jnp.int32))
    alive = present if linear else np.ones(e, bool)
    bank = Bank({linear or path: stack}, jnp.asarray(alive))
    router = {"places": {path: {name: jnp.asarray(leaf, jnp.float32)[None] for name, leaf in leaves.items()}}}
    return Here(path, nn.Dense(1), Inside(), bank, router, batch, None)


def request(rows: int = 1, tokens: int = 1, **fields) -> Batch:
    """A batch of requests, all tokens real."""
    seen = jnp.ones((rows, tokens), bool)
    return Batch(jnp.zeros((rows, tokens), jnp.int32), seen, seen)._replace(**fields)
