"""Experts on several devices mix as on one, in value and gradient, and the bank stays where it lies."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.aggregation import formulations
from moejax.experts.stacks import Stack
from moejax.parallel.mesh import MeshConfig, make_mesh
from moejax.parallel.rules import placed
from moejax.types import Weights

B, T, D, F, R, E, K = 8, 3, 5, 7, 3, 8, 2
RNG = np.random.default_rng(0)


def drawn(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


X = drawn(B, T, D)
STACK = Stack(
    drawn(2, E, R, D), drawn(2, E, R, F), drawn(2, E), jnp.ones((2, E), bool), jnp.arange(2, dtype=jnp.int32)
)
INDEX = jnp.asarray(np.argsort(RNG.random((B, T, E)), axis=-1)[..., :K], jnp.int32)
WEIGHTS = {
    "step": Weights(drawn(B, T, K), INDEX), "all of a step": Weights(drawn(B, T, E)),
    "example": Weights(drawn(B, K), INDEX[:, 0]), "all of an example": Weights(drawn(B, E)),
    "task": Weights(drawn(K), INDEX[0, 0]), "all of a task": Weights(drawn(E)),
}  # fmt: skip


@partial(jax.jit, static_argnames=("mode", "how"))
def mixed(x, stack, weights, mode, how=None):
    """The mix and its gradients, along the cosine of the mix."""

    def mix(x, a, b, values):
        some = stack._replace(a=a, b=b)
        found = getattr(formulations, mode)(x, some, jnp.int32(1), Weights(values, weights.index), how)
        return jnp.sum(jnp.sin(found)), found

    return jax.value_and_grad(mix, argnums=(0, 1, 2, 3), has_aux=True)(x, stack.a, stack.b, weights.values)


CASES = [(name, mode, None) for name in WEIGHTS for mode in ("output", "factor")]
CASES += [("step", mode, how) for mode in ("output", "factor") for how in ("dense", "blocks", "gather")]


@pytest.mark.parametrize(("name", "mode", "how"), CASES)
def test_experts_of_four_devices_mix_as_those_of_one(name, mode, how):
    alone = mixed(X, STACK, WEIGHTS[name], mode, how)
    with jax.set_mesh(make_mesh(MeshConfig(2, 4, 1))):
        found = mixed(X, placed(STACK, "bank/sites/x/"), WEIGHTS[name], mode, how)
    for one, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1, np.abs(other).max()))


@pytest.mark.parametrize("sizes", [(8, 1, 1), (4, 1, 2)])
@pytest.mark.parametrize(("name", "mode", "how"), [("step", "output", "blocks"), ("task", "factor", None)])
def test_each_device_mixes_its_own_rows_where_all_experts_are_everywhere(name, mode, how, sizes):
    alone = mixed(X, STACK, WEIGHTS[name], mode, how)
    with jax.set_mesh(make_mesh(MeshConfig(*sizes))):
        found = mixed(X, placed(STACK, "bank/sites/x/"), WEIGHTS[name], mode, how)
    for one, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1, np.abs(other).max()))


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_do_not_divide_meet_all_experts_where_they_are(rows):
    weights = Weights(WEIGHTS["step"].values[:rows], INDEX[:rows])
    alone = mixed(X[:rows], STACK, weights, "output")
    with jax.set_mesh(make_mesh(MeshConfig(1, 4, 2))):
        found = mixed(X[:rows], placed(STACK, "bank/sites/x/"), weights, "output")
    for one, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(1, np.abs(other).max()))


def test_a_bank_that_the_axis_does_not_divide_is_mixed_on_every_device():
    six = Stack(*(leaf[:, :6] for leaf in STACK[:4]), slot=STACK.slot)
    weights = Weights(WEIGHTS["step"].values, INDEX % 6)
    alone = mixed(X, six, weights, "output")
    with jax.set_mesh(make_mesh(MeshConfig(2, 4, 1))):
        found = mixed(X, placed(six, "bank/sites/x/"), weights, "output")
    np.testing.assert_allclose(found[0][1], alone[0][1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["dense", "blocks"])
def test_rows_move_and_the_bank_does_not(how):
    with jax.set_mesh(make_mesh(MeshConfig(1, 8, 1))):
        stack = placed(STACK, "bank/sites/x/")
        x, weights = X, WEIGHTS["step"]
        text = mixed.lower(x, stack, weights, "output", how).compile().as_text()
    moved = re.findall(r"= (\w+)\[([\d,]*)\][^ ]* all-gather(?:-start)?\(", text)
    sizes = [np.prod([int(n) for n in shape.split(",") if n]) for _, shape in moved]
    assert sizes and max(sizes) <= B * T * max(D, F)  # rows of x or of the gradient, and their weights
    assert "reduce-scatter" in text
    assert not re.search(rf"all-gather[^\n]*\[2,{E},", text)
