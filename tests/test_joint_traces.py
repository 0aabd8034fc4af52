"""One trace for each (adapted, shapes); choosing whole experts by row; typed places; patterns that meet nothing."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Array, Float, Int, TypeCheckError, jaxtyped
from joint_case import (
    CONFIGS,
    arrays_of,
    bank_of,
    base_of,
    batch_of,
    close,
    experts,
    forward,
    gates,
    jit,
    same,
)

from moejax.adapted import Adapted, score, start, step
from moejax.experts.bank import append, drop
from moejax.joint import joined
from moejax.places import LINEARS, Lora, own_expert
from moejax.routing import select
from moejax.types import Weights


@dataclass(frozen=True)
class TopK:
    """Top-k of x . g_e / temperature."""

    k: int

    def __call__(self, site, x):
        scores = jnp.einsum("btd,ed->bte", x, site.leaves["gate"]) / site.knobs["temperature"]
        return select.top_k(scores, site.present, self.k)


def adapt(kind, k=2):
    """Fresh objects each time, equal by value."""
    return Adapted(type(base_of(CONFIGS[kind]).model)(CONFIGS[kind]), ((LINEARS, Lora("output", TopK(k))),))


def arrays_with(kind, bank, seed=7, temperature=1.0):
    router = {"places": gates(bank, seed), "knobs": {"temperature": jnp.float32(temperature)}}
    labels = jnp.asarray(np.eye(3, 16), jnp.float32)
    return arrays_of(CONFIGS[kind], bank, router) | {"labels": labels}


@pytest.mark.parametrize("method", ["score", "decode"])
def test_one_trace_serves_new_routers_knobs_appended_and_dropped_experts_and_equal_adapted(method):
    kind, traces = "decoder" if method == "decode" else "encoder", []

    def decode(adapted, arrays, batch):
        _, state = start(adapted, arrays, batch, 1)
        return step(adapted, arrays, batch.tokens[:, 0], state)[0]

    chosen = {"score": lambda *a: score(*a)[0], "decode": decode}[method]

    @partial(jit, static_argnums=0)
    def counted(adapted, arrays, batch):
        traces.append(adapted)
        return chosen(adapted, arrays, batch)

    batch = batch_of()._replace(pool=batch_of().mask, choices=jnp.array([[0, 1], [1, 2]]))
    some = experts(CONFIGS[kind])
    where = {path: range(3) for path in ("layers/attn/q", "layers/attn/k", "layers/mlp/down")}
    bank = bank_of(CONFIGS[kind], some[:3], capacity=5, rank=3, where=where)
    first = counted(adapt(kind), arrays_with(kind, bank), batch)
    grown = append(bank, some[3], jnp.int32(3))
    others = [
        arrays_with(kind, bank, seed=8),
        arrays_with(kind, bank, temperature=0.2),
        arrays_with(kind, grown),
        arrays_with(kind, drop(grown, jnp.int32(0))),
    ]
    for arrays in others:
        assert np.abs(counted(adapt(kind), arrays, batch) - first).max() > 1e-4
    assert len(traces) == 1
    same(counted(adapt(kind), arrays_with(kind, bank), batch), first)
    counted.trace(adapt(kind, k=1), arrays_with(kind, bank), batch)
    assert len(traces) == 2
    if method == "decode":
        return
    exact = bank_of(CONFIGS[kind], some[:3], rank=3, where=where)
    full = arrays_with(kind, exact)
    full["router"]["places"] = jax.tree.map(
        lambda leaf: leaf[:, :3], arrays_with(kind, bank)["router"]["places"]
    )
    close(counted(adapt(kind), full, batch), first)  # padding with free slots changes nothing
    assert len(traces) == 3


def test_each_row_with_the_expert_it_names_equals_running_that_expert_alone():
    config, batch = CONFIGS["encoder"], batch_of(b=3, left=False)
    arrays, model = arrays_of(config), base_of(config).model
    by_row = Adapted(model, ((LINEARS, Lora()),), own_expert)
    chosen = jnp.array([2, 0, -1])
    found, _ = forward(by_row, arrays, batch._replace(expert=chosen))
    alone = [forward(by_row, arrays, batch._replace(expert=jnp.full(3, e)))[0] for e in (2, 0, -1)]
    for row in range(3):
        same(found[row], alone[row][row])
    same(alone[2], forward(Adapted(model), arrays, batch)[0])  # -1 names none
    by_weight, _ = forward(Adapted(model, ((LINEARS, Lora()),)), arrays, batch, Weights(jnp.eye(4)[2]))
    close(alone[0], by_weight)


def test_all_experts_on_all_rows_by_tiling_equals_each_alone():
    config, batch = CONFIGS["encoder"], batch_of(left=False)
    arrays = arrays_of(config)
    adapted = Adapted(base_of(config).model, ((LINEARS, Lora()),), own_expert)
    tiled = jax.tree.map(lambda leaf: jnp.repeat(leaf, 4, axis=0), batch)._replace(
        expert=jnp.tile(jnp.arange(4), 2)
    )
    found, _ = forward(adapted, arrays, tiled)
    for e in range(4):
        alone, _ = forward(adapted, arrays, batch._replace(expert=jnp.full(2, e)))
        close(found.reshape(2, 4, 6, 16)[:, e], alone)


@jaxtyped(typechecker=beartype)
def typed(site, next, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
    """A typed place: the letters bind anew at each call, so that d = f at q and d != f at down."""
    assert isinstance(numbered(site.layer), jax.Array)
    return next(x)


@jaxtyped(typechecker=beartype)
def numbered(layer: Int[Array, ""]) -> Int[Array, ""]:
    return layer


@jaxtyped(typechecker=beartype)
def typed_join(site, next, x: Float[Array, "b t d"], h: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    return next(x, h)


@jaxtyped(typechecker=beartype)
def wrong(site, next, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Claims that every linear keeps the width."""
    return next(x)


def test_typed_places_are_checked_inside_scan_remat_and_gradient():
    config, batch, arrays = CONFIGS["decoder"], batch_of(), arrays_of(CONFIGS["decoder"])
    model = base_of(config).model
    good = Adapted(model, ((LINEARS, typed), ("layers/*_join", typed_join)))
    bad = Adapted(model, (("layers/mlp/down", wrong),))

    def loss(adapted, params):
        return jnp.sum(forward.__wrapped__(adapted, arrays | {"params": params}, batch)[0])

    jax.eval_shape(jax.grad(partial(loss, good)), arrays["params"])
    with pytest.raises(TypeCheckError, match="wrong"):
        jax.eval_shape(jax.grad(partial(loss, bad)), arrays["params"])


@pytest.mark.parametrize("pattern", ["layers/atn/q", "layer", "layers/mlp/gates", "Layers/attn/q"])
def test_a_pattern_that_meets_no_module_is_refused(pattern):
    adapted = Adapted(base_of(CONFIGS["decoder"]).model, ((pattern, lambda site, next, x: next(x)),))
    with pytest.raises(
        ValueError, match=f"no module of the base matches the place '{pattern}': check its path"
    ):
        jax.eval_shape(partial(forward.__wrapped__, adapted), arrays_of(CONFIGS["decoder"]), batch_of())


def test_a_part_of_the_model_may_leave_patterns_unmet_if_said():
    config, batch, arrays = CONFIGS["decoder"], batch_of(), arrays_of(CONFIGS["decoder"])
    model, places = base_of(config).model, ((LINEARS, typed),)

    def embedded(partial):
        with joined(places, arrays["bank"], {}, batch, partial=partial):
            return model.apply({"params": arrays["params"]}, batch.tokens, batch.mask, method="start")[0]

    assert embedded(True).shape == (2, 6, 16)
    with pytest.raises(ValueError, match="no module"):
        embedded(False)


def test_an_error_inside_is_not_hidden_by_patterns_that_were_not_yet_met():
    config = CONFIGS["decoder"]

    def broken(site, next, tokens):
        raise RuntimeError("from the place")

    adapted = Adapted(base_of(config).model, (("embed", broken), (LINEARS, typed)))
    with pytest.raises(RuntimeError, match="from the place"):
        jax.eval_shape(partial(forward.__wrapped__, adapted), arrays_of(config), batch_of())
