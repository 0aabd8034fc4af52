"""A base in bfloat16: routing, losses and all that is trained in float32; what is computed again, and in parts."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from moejax.adapted import Adapted, score
from moejax.contract import Fitted
from moejax.experts.bank import factored
from moejax.methods import load
from moejax.models.weights import make_model
from moejax.places import LINEARS, Lora, own_expert
from moejax.site import sown
from moejax.train.experts import Recipe, train_together, trainable
from moejax.train.fulls import FullRecipe, train_fulls
from moejax.train.optimiser import Optimiser
from moejax.train.rows import bound, pooled
from moejax.train.step import State, begin, masters, mean, train_step
from moejax.train.work import Work
from moejax.types import UserError

NAMES = ("ann", "bob", "cy", "dan", "eve")  # five: no other axis of the tiny model is so long
HIDDEN = 24  # of the tiny base's MLP
EXACT = (
    "exp",
    "exp2",
    "log",
    "log1p",
    "top_k",
    "sort",
    "argmax",
    "reduce_max",
    "cumsum",
    "erf_inv",
    "rsqrt",
    "sqrt",
)


def halved(kind: str):
    """The tiny base, its parameters and its arithmetic in bfloat16."""
    base = tiny.base(kind)
    config = replace(base.model.config, dtype="bfloat16")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base.params)
    return replace(base, model=make_model(config), params=params)


def routed(base, method: str) -> tuple[Adapted, Any, Any]:
    """A method whose gates stand at every linear; its arrays, and the gates and factors as what is trained."""
    row, pool = load(method), tiny.pool(base, *NAMES)
    gates = {
        path: {"gate": jnp.asarray(np.random.default_rng(1).normal(size=s.a.shape[:2] + s.a.shape[3:]), jnp.float32)}
        for path, s in factored(pool.bank).items()
    }  # fmt: skip
    fitted = Fitted({"places": gates, "knobs": {}}, pool.names)
    arrays = row.arrays(row.Config(), base, pool, fitted)
    sites = {path: {"a": s.a, "b": s.b} for path, s in pool.bank.sites.items()}
    return row.adapt(row.Config(), base), arrays, {"bank": {"sites": sites}, "router": {"places": gates}}


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, those of its loops and branches too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for one in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def program(base, method: str, optimiser: Optimiser) -> tuple[Any, State]:
    """The traced training step of a method's gates and experts, and the state that it gives."""
    adapted, arrays, free = routed(base, method)
    rows = {name: tiny.rows(base, 8, seed=i) for i, name in enumerate(NAMES)}
    batch = pooled(rows, NAMES, 6, 0)(0)
    state = begin(masters(free), optimiser)

    def step(state, arrays, batch):
        return train_step(state, arrays, batch, None, adapted=adapted, optimiser=optimiser)

    found = jax.make_jaxpr(step, return_shape=True)(state, arrays, batch)
    return found[0].jaxpr, found[1]


@pytest.mark.parametrize(("kind", "method"), [("encoder", "token_gate"), ("decoder", "phatgoose")])
def test_a_base_in_bfloat16_is_routed_and_trained_in_float32(kind, method):
    traced, (state, loss) = program(halved(kind), method, Optimiser(1e-2, 3))
    floats = [leaf.dtype for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert floats and set(floats) == {jnp.dtype("float32")} and loss.dtype == jnp.float32
    seen, scored, halves = set(), 0, 0
    for equation in equations(traced):
        name = equation.primitive.name
        kinds = {v.aval.dtype for v in equation.invars if hasattr(v.aval, "dtype")}
        halves += jnp.dtype("bfloat16") in kinds
        activation = any(
            getattr(v.aval, "shape", ())[-1:] == (HIDDEN,) for v in equation.outvars
        )  # gelu's slope
        if name in EXACT and not activation:
            seen.add(name)
            assert jnp.dtype("bfloat16") not in kinds, equation
        for out in equation.outvars:
            shape = getattr(out.aval, "shape", ())
            if name == "dot_general" and len(shape) == 3 and shape[-1] % len(NAMES) == 0:
                scored += 1
                assert out.aval.dtype == jnp.float32, equation  # [b, t, e], or of several sites [b, t, n e]
    assert {"exp", "log"} <= seen and scored and halves > 20


def test_weights_come_out_in_float32():
    adapted, arrays, _ = routed(halved("encoder"), "token_gate")
    batch = tiny.as_batch(tiny.rows(tiny.base("encoder"), 4))
    logp, records = jax.jit(partial(score, adapted, record=True))(arrays, batch)
    weights = sown(records, "weights")
    assert logp.dtype == jnp.float32 and weights
    assert {one.values.dtype for one in weights.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(weights[tiny.EVERYWHERE].values.sum(-1), 1, atol=1e-6)


def test_a_full_fine_tune_in_bfloat16_has_float32_masters(tmp_path):
    """Steps of 1e-4 on weights near 1 would be lost in bfloat16, whose next number is 1e-2 away."""
    base = halved("encoder")
    recipe = FullRecipe(batch=4, optimiser=Optimiser(1e-4, 3, warmup=0.0, schedule="constant"))
    found = train_fulls(base, {"ann": tiny.rows(base, 8)}, recipe, Work(tmp_path))["ann"]
    kernels = np.concatenate(
        [np.ravel(one.w) for (path, _), one in found.deltas.items() if path.endswith("mlp/up")]
    )
    assert kernels.dtype == np.float32
    assert np.mean(kernels != 0) > 0.9 and np.abs(kernels).max() < 1e-3


def test_what_is_computed_again_changes_no_number():
    base, states, products = tiny.base("decoder"), {}, {}
    batch, optimiser = tiny.as_batch(tiny.rows(base, 4)), Optimiser(1e-2, 3, warmup=0.0, schedule="constant")
    for remat in ("none", "dots", "full"):
        other = replace(base, model=make_model(replace(base.model.config, remat=remat)))
        adapted, arrays, free = routed(other, "token_gate")
        traced = train_step.trace(
            begin(masters(free), optimiser), arrays, batch, None, adapted=adapted, optimiser=optimiser
        )
        names = [one.primitive.name for one in equations(traced.jaxpr.jaxpr)]
        products[remat] = names.count("dot_general")
        states[remat] = traced.lower().compile()(begin(masters(free), optimiser), arrays, batch, None)[0]
    assert products["none"] < products["dots"] < products["full"], products
    close(states["dots"], states["none"])
    close(states["full"], states["none"])


def close(one, other, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), one, other)


def pulled(rows, records, batch):
    """A mean, and a part that no row has."""
    return mean(rows, records, batch) + 0.1


def worn(base, names) -> tuple[Adapted, Any, Any]:
    """Rows that wear their own expert; its factors are what is trained."""
    pool = tiny.pool(base, *names)
    arrays = {"params": base.params, "bank": pool.bank, "router": {}, "labels": base.labels}
    return Adapted(base.model, ((LINEARS, Lora("output")),), route=own_expert), arrays, trainable(pool.bank)


@pytest.mark.parametrize("together", [False, True])
def test_a_batch_in_parts_is_the_whole_batch(together):
    """With 7 real rows of 12, parts have unequal numbers of them, the last expert none."""
    base, names = tiny.base("encoder"), NAMES[:3]
    rows = {name: tiny.rows(base, 9, seed=i) for i, name in enumerate(names)}
    adapted, arrays, free = worn(base, names) if together else routed(base, "token_gate")
    for real in (12, 7):
        batch = bound(rows, names, 4, 0)(0)._replace(weight=(np.arange(12) < real).astype(np.float32))
        found = {}
        for parts in (1, 4):
            optimiser = Optimiser(1e-2, 3, warmup=0.0, schedule="constant", clip=1e-3, accumulate=parts)
            state, losses = begin(masters(free), optimiser, together), []
            for _ in range(3):
                state, loss = train_step(
                    state, arrays, batch, None, adapted=adapted, optimiser=optimiser, together=together,
                    objective=pulled,
                )  # fmt: skip
                losses.append(loss)
            found[parts] = state, jnp.stack(losses)
        assert found[1][1].shape == ((3, 3) if together else (3,))
        moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found[1][0].trainable, free)
        assert max(jax.tree.leaves(moved)) > 1e-2
        close(found[4], found[1], 1e-5)


def test_a_part_takes_less_memory():
    base = tiny.base("encoder")
    adapted, arrays, free = worn(base, NAMES[:3])
    batch = tiny.as_batch(tiny.rows(base, 48))._replace(expert=np.arange(48, dtype=np.int32) % 3)

    def room(parts: int) -> int:
        optimiser = Optimiser(1e-2, 3, accumulate=parts)
        lowered = train_step.lower(
            begin(masters(free), optimiser), arrays, batch, None, adapted=adapted, optimiser=optimiser
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert room(8) < 0.5 * room(1)


def test_rows_that_do_not_divide_are_refused(tmp_path):
    base = tiny.base("encoder")
    recipe = Recipe(rank=2, targets=(tiny.EVERYWHERE,), batch=4, optimiser=Optimiser(1e-2, 3, accumulate=3))
    rows = {"ann": tiny.rows(base, 8)}
    with pytest.raises(UserError, match="accumulate is 3, but a batch of 4 rows does not divide"):
        train_together(base, rows, recipe, Work(tmp_path))
