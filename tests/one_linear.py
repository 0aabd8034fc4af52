"""A model of one linear, on which a method's place can be checked by hand."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from moejax.adapted import Adapted
from moejax.experts.expert import Expert
from moejax.experts.lora import Lora
from moejax.experts.pool import Pool, pool_of
from moejax.joint import joined
from moejax.models.base import Base
from moejax.routing import select
from moejax.types import Batch

PATH = "linear"


class OneLinear(nn.Module):
    """x W."""

    features: int

    def setup(self):
        self.linear = nn.Dense(self.features, use_bias=False)

    def __call__(self, x):
        return self.linear(x)


def lora(a, b, alpha=None) -> Lora:
    """a [r, d] and b [f, r] as papers write them; scale 1 unless alpha is given."""
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32).T
    return Lora(a, b, float(len(a) if alpha is None else alpha))


def random_loras(count, r=2, d=4, f=3, seed=0) -> list[Lora]:
    """Loras of scale 1.5."""
    rng = np.random.default_rng(seed)
    return [lora(rng.normal(size=(r, d)), rng.normal(size=(f, r)), 1.5 * r) for _ in range(count)]


def base_of(d, f, seed=1) -> Base:
    """A random linear."""
    kernel = jnp.asarray(np.random.default_rng(seed).normal(size=(d, f)), jnp.float32)
    return Base(OneLinear(f), {PATH: {"kernel": kernel}}, "", {}, {PATH: (d, f)})


def pool(loras: Sequence[Lora | None], d, f, extra=None) -> Pool:
    """Experts e0, e1, … on the linear; None adapts nothing there. extra: (name, one value an expert)."""
    some = [Expert(f"e{i}", {}, {} if one is None else {(PATH, 0): one}) for i, one in enumerate(loras)]
    made = pool_of(some, {}, {PATH: (d, f)}, 1, where={PATH: [0]})
    if extra is None:
        return made
    name, values = extra
    held = {f"e{i}": {name: {PATH: np.asarray(v, np.float32)[None]}} for i, v in enumerate(values)}
    return made.with_extras(held).allow(name)


class NoGrants:
    """Grants for a method that reads no data."""

    def refuse(self, *_):
        raise AssertionError("data was read")

    expert_labels = expert_inputs = target_labels = target_inputs = general = test_labels = refuse


def sizes(loras):
    """d and f of the first lora."""
    one = next(one for one in loras if one is not None)
    return one.a.shape[1], one.b.shape[1]


def run(adapted: Adapted, arrays, x, expert=None):
    """The linear's output [.., f], what the experts add to it, and the weights [.., e], for x [.., d]."""
    x = jnp.asarray(x, jnp.float32)
    given = {name: arrays[name] for name in ("params", "bank", "router")}
    found = _run(adapted, given, x.reshape(-1, 1, x.shape[-1]), expert)
    return tuple(leaf.reshape(*x.shape[:-1], -1) for leaf in found)


@partial(jax.jit, static_argnums=0)
def _run(adapted, arrays, rows, expert):
    seen = jnp.ones(rows.shape[:2], bool)
    batch = Batch(jnp.zeros(rows.shape[:2], jnp.int32), seen, seen, expert=expert)
    outer = adapted.route(arrays, batch) if adapted.route else None
    places = tuple((PATH, place) for _, place in adapted.places)
    with joined(places, arrays["bank"], arrays["router"], batch, outer=outer):
        y, records = adapted.model.apply({"params": arrays["params"]}, rows, mutable=["routing"])
    weights = select.dense(records["routing"][PATH]["weights"][0], arrays["bank"].alive.shape[0])
    if weights.ndim == 1:  # of the task: the same for every row
        weights = jnp.broadcast_to(weights, (len(rows), *weights.shape))
    return y, y - rows @ arrays["params"][PATH]["kernel"], weights
