"""One routed linear, ours: x W + the mix of k of e experts for each token, in each formulation.

Forward, and with the gradients of inputs, experts and weights.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from benchmarks.cases import SCALE, Case, Size, directions
from benchmarks.measure import Call, Entry
from moejax.aggregation import formulations
from moejax.aggregation.rule import Formulation, choose
from moejax.experts.merge import Mode
from moejax.experts.stacks import Stack
from moejax.routing import scores, select
from moejax.types import Weights

Grain = Literal["step", "example", "task"]
GRAINS: dict[Grain, str] = {"step": "by the rule", "example": "an example's", "task": "the task's"}
ROWS = 16  # texts that the tokens are cut into where weights are an example's


@dataclass(frozen=True)
class Way:
    """How experts are mixed. formulation None: as the library chooses; scored: Arrow's scores choose the experts."""

    mode: Mode = "output"
    formulation: Formulation | None = None
    scored: bool = False
    grain: Grain = "step"

    @property
    def name(self) -> str:
        """As it stands in a table."""
        mode, scored = "" if self.mode == "output" else f", {self.mode}", ", scored" * self.scored
        return f"ours, {self.formulation or GRAINS[self.grain]}{mode}{scored}"


OUTPUT, FACTOR, SCORED = Way(), Way("factor"), Way(scored=True)
STEPS: tuple[Formulation, ...] = ("dense", "gather", "blocks")
KERNEL: tuple[Formulation, ...] = ("kernel",)  # with an accelerator; interpreted on a CPU, it is for tests


class Given(NamedTuple):
    """A case on the device."""

    x: Float[Array, "b t d"]
    w: Float[Array, "d f"]
    stack: Stack
    slot: Int[Array, ""]
    weights: Weights
    prototypes: Float[Array, "e d"]
    aim: Float[Array, "b t f"]


def given(case: Case, grain: Grain = "step") -> Given:
    """One text of all tokens; `example`: ROWS texts with weights of their own; `task`: dense weights for all."""
    e, rows = case.size.e, ROWS if grain == "example" else 1
    a, b = jnp.asarray(case.a)[None], jnp.asarray(case.b)[None]
    scale, present = jnp.full((1, e), SCALE, jnp.float32), jnp.ones((1, e), bool)
    stack = Stack(a, b, scale, present, jnp.zeros(1, jnp.int32))
    weights = Weights(jnp.asarray(case.values)[None], jnp.asarray(case.index)[None])
    if grain == "example":
        weights = Weights(jnp.asarray(case.values[:ROWS]), jnp.asarray(case.index[:ROWS]))
    if grain == "task":
        weights = Weights(jnp.full(e, 1 / e, jnp.float32))
    x, aim = (jnp.asarray(leaf).reshape(rows, -1, case.size.d) for leaf in (case.x, case.aim))
    prototypes = jnp.asarray(directions(case.a, case.b))
    return Given(x, jnp.asarray(case.w), stack, jnp.int32(0), weights, prototypes, aim)


def routed(some: Given, way: Way | None, k: int) -> Float[Array, "b t f"]:
    """The layer's output; way None: of the bare base."""
    y = some.x @ some.w
    if way is None:
        return y
    weights = some.weights
    if way.scored:
        found = scores.absolute_projection(some.x, some.prototypes)
        weights = select.top_k(found, some.stack.present[0], k)
    mix = formulations.output if way.mode == "output" else formulations.factor
    return y + mix(some.x, some.stack, some.slot, weights, formulation=way.formulation)


@partial(jax.jit, static_argnames=("way", "k"))
def forward(some: Given, *, way: Way | None, k: int) -> Float[Array, "b t f"]:
    """The output alone."""
    return routed(some, way, k)


@partial(jax.jit, static_argnames=("way", "k"))
def both(some: Given, *, way: Way | None, k: int) -> tuple[Array, tuple[Array, ...]]:
    """The output, and gradients of <aim, output> in the inputs, the factors and the weights; bare: in the inputs."""
    if way is None:
        y, back = jax.vjp(lambda x: routed(some._replace(x=x), None, k), some.x)
        return y, back(some.aim)

    def layer(x, a, b, values):
        stack, weights = some.stack._replace(a=a, b=b), some.weights._replace(values=values)
        return routed(some._replace(x=x, stack=stack, weights=weights), way, k)

    y, back = jax.vjp(layer, some.x, some.stack.a, some.stack.b, some.weights.values)
    return y, back(some.aim)


def call(some: Given, way: Way | None, size: Size, back: bool = False) -> Call:
    """A call that returns when the device is done."""
    program = both if back else forward
    return lambda: jax.block_until_ready(program(some, way=way, k=size.k))


def rule(size: Size) -> Formulation:
    """What the library chooses where each token has its own experts."""
    return choose(size.n, size.e, size.k, jax.default_backend())


def ways(size: Size, grain: Grain = "step", whole: bool = True) -> list[Way]:
    """The library's own choice, and the other formulations by their names; whole: with those that peers compute too."""
    if grain != "step":
        return [Way(grain=grain), Way("factor", grain=grain)]
    named = STEPS + (KERNEL if jax.default_backend() != "cpu" else ())
    others = [Way(formulation=name) for name in named if name != rule(size)]
    return [OUTPUT, *[SCORED, FACTOR][: 2 * whole], *others]


def entries(case: Case, grain: Grain = "step", back: bool = False, whole: bool = True) -> list[Entry]:
    """The bare projection and all ways at a point."""
    some, size, name = given(case, grain), case.size, "bare, jax"
    found = [Entry(name, partial(call, some, None, size, back), name, "bare")]
    some_ways = ways(size, grain, whole)
    return found + [Entry(w.name, partial(call, some, w, size, back), name) for w in some_ways]


def output(case: Case, way: Way, back: bool = False) -> list[np.ndarray]:
    """What a way gives, for tests: the output [n, f], and the gradients in the inputs, a, b and the weights."""
    some = given(case, way.grain)
    found = both(some, way=way, k=case.size.k) if back else (forward(some, way=way, k=case.size.k), ())
    y, slopes = found
    return [np.asarray(y).reshape(case.aim.shape), *map(np.asarray, slopes)]
