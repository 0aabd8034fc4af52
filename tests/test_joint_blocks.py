"""Places on joins and blocks: published adapter positions, weights handed inward, next twice, row copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from joint_case import CONFIGS, arrays_of, base_of, batch_of, close, explicit, forward, jit, loop, same

from moejax.adapted import Adapted
from moejax.joint import joined
from moejax.places import LINEARS, Lora
from moejax.routing import select
from moejax.types import Weights

RNG = np.random.default_rng(11)
DOWN, UP = (jnp.asarray(RNG.normal(size=(3, *shape)) / 4, jnp.float32) for shape in ((16, 5), (5, 16)))
ADAPTERS = {"down": DOWN, "up": UP}  # one bottleneck a layer
JOINS = ("layers/attn_join", "layers/mlp_join")


def bottleneck(leaves, h):
    return jax.nn.relu(h @ leaves["down"]) @ leaves["up"]


def houlsby(site, next, x, h):
    """An adapter on the sub-layer's output, before the residual."""
    return next(x, h + bottleneck(site.leaves, h))


def pfeiffer(site, next, x, h):
    """An adapter on what the join gives, added before the same join again."""
    return next(x, h + bottleneck(site.leaves, next(x, h)))


def spelled_out(place, adapters):
    """The same position as a hook of the reference."""
    down, up = np.asarray(adapters["down"], np.float64), np.asarray(adapters["up"], np.float64)

    def hook(next, path, layer, x, h):
        z = h if place is houlsby else next(x, h)
        return next(x, h + np.maximum(z @ down[layer], 0) @ up[layer])

    return hook


@pytest.mark.parametrize("place", [houlsby, pfeiffer])
@pytest.mark.parametrize("kind", CONFIGS)
def test_adapters_sit_where_they_were_published_in_post_norm_and_pre_norm_blocks(kind, place):
    config, batch = CONFIGS[kind], batch_of()
    arrays = arrays_of(config, router={"places": dict.fromkeys(JOINS, ADAPTERS), "knobs": {}})
    adapted, mask = Adapted(base_of(config).model, (("layers/*_join", place),)), np.asarray(batch.mask)
    found, _ = forward(adapted, arrays, batch)
    close(found[mask], explicit(config, arrays, batch, join=spelled_out(place, ADAPTERS))[mask])
    bare, _ = forward(Adapted(base_of(config).model), arrays, batch)
    assert np.abs(found - bare)[mask].max() > 0.1
    silent = ADAPTERS | {"up": jnp.zeros_like(UP)}
    router = {"places": dict.fromkeys(JOINS, silent), "knobs": {}}
    same(forward(adapted, arrays | {"router": router}, batch)[0], bare)


def wasteful(site, next, *args):
    """Runs the module on nonsense first: only the last call may count."""
    next(*(2 * arg if arg.dtype == jnp.float32 else arg for arg in args[:1]), *args[1:])
    return next(*args)


TWICE = (
    "layers/attn/q", "layers/attn_norm", "layers/mlp", "layers/attn", "layers/mlp_join", "layers", "embed", "norm",
)  # fmt: skip


@pytest.mark.parametrize("paths", [TWICE, TWICE[-3:]], ids=["everywhere", "block"])
def test_next_may_be_called_twice_on_every_kind_of_module(paths):
    config, batch = CONFIGS["decoder"], batch_of()
    adapted = Adapted(base_of(config).model, tuple((path, wasteful) for path in paths))
    same(
        forward(adapted, arrays_of(config), batch)[0],
        forward(Adapted(base_of(config).model), arrays_of(config), batch)[0],
    )


def twice_around_the_norm(site, next, x):
    return next(x) + next(-x)


def test_both_calls_of_a_post_norm_join_use_its_norm():
    config, batch = CONFIGS["encoder"], batch_of(left=False)
    arrays = arrays_of(config)
    adapted = Adapted(base_of(config).model, (("layers/*_join/norm", twice_around_the_norm),))

    def hook(next, path, layer, x, h):
        return next(x, h) + next(-x, -h)

    close(forward(adapted, arrays, batch)[0], explicit(config, arrays, batch, join=hook))


def gate_of_the_block(site, next, x, ctx):
    """One gate a block, from its input: weights for every linear inside."""
    weights = select.softmax(jnp.einsum("btd,ed->bte", x, site.leaves["gate"]), site.bank.alive)
    return next(x, ctx, outer=weights)


GATE = jnp.asarray(RNG.normal(size=(3, 4, 16)), jnp.float32)


def fused(config, arrays, batch):
    """The reference of `gate_of_the_block`: the block's hook decides, the linears' hook uses it."""
    inside = {}

    def block(next, layer, x):
        scores = np.einsum("btd,ed->bte", x, np.asarray(GATE[layer], np.float64))
        z = np.exp(scores - scores.max(-1, keepdims=True))
        inside["w"] = z / z.sum(-1, keepdims=True)
        return next(x)

    def linear(next, path, layer, x):
        return next(x) + loop(arrays["bank"], path, layer, x, inside["w"])

    return explicit(config, arrays, batch, block=block, linear=linear)


def test_a_block_hands_weights_inward_to_its_linears():
    config, batch = CONFIGS["decoder"], batch_of()
    arrays = arrays_of(config, router={"places": {"layers": {"gate": GATE}}, "knobs": {}})
    adapted = Adapted(base_of(config).model, (("layers", gate_of_the_block), (LINEARS, Lora())))
    mask = np.asarray(batch.mask)
    close(forward(adapted, arrays, batch)[0][mask], fused(config, arrays, batch)[mask])


def zeroed(site, next, x):
    """A module inside the block hands no weight to what is inside it."""
    return next(x, outer=Weights(jnp.zeros(4)))


def test_the_nearest_enclosing_place_decides_and_only_for_what_it_encloses():
    config, batch = CONFIGS["decoder"], batch_of()
    arrays = arrays_of(config, router={"places": {"layers": {"gate": GATE}}, "knobs": {}})
    places = (("layers", gate_of_the_block), ("layers/mlp", zeroed), (LINEARS, Lora()))
    found, records = forward(Adapted(base_of(config).model, places), arrays, batch)
    assert np.all(records["layers"]["mlp"]["down"]["weights"][0].values == 0)
    assert np.all(records["layers"]["attn"]["q"]["weights"][0].values[1:].sum(-1) > 0.2)
    bank = arrays["bank"]
    attention_only = bank._replace(sites={p: s for p, s in bank.sites.items() if "mlp" not in p})
    mask = np.asarray(batch.mask)
    close(found[mask], fused(config, arrays | {"bank": attention_only}, batch)[mask])


def one_after_the_other(site, next, x, ctx):
    """The block without experts, then with each alone, mixed by a gate on their outputs (MoLE)."""
    ran = [next(x, ctx, outer=Weights(jnp.zeros(4)))]
    ran += [next(x, ctx, outer=Weights(jnp.eye(4)[i])) for i in range(4)]
    return mixed_by_gate(site, jnp.stack(ran, axis=2))


def side_by_side(site, next, x, ctx):
    """The same in one call on copies of the rows."""
    hot = jnp.tile(jnp.eye(5, 4, k=-1), (x.shape[0], 1))  # copy 0 wears none, copy i expert i - 1
    ran = next(x, ctx, outer=Weights(hot), copies=5)
    return mixed_by_gate(site, jnp.moveaxis(ran.reshape(x.shape[0], 5, *x.shape[1:]), 1, 2))


def mixed_by_gate(site, ran):
    """ran [b, t, n, d]: softmax over n of ran . gate."""
    gate = jax.nn.softmax(jnp.einsum("btnd,nd->btn", ran, site.leaves["gate"]), axis=-1)
    return jnp.einsum("btnd,btn->btd", ran, gate)


MOLE = jnp.asarray(RNG.normal(size=(3, 5, 16)), jnp.float32)


@pytest.mark.parametrize("place", [one_after_the_other, side_by_side])
def test_every_expert_through_the_whole_block_by_calls_or_by_copies_of_rows(place):
    config, batch, worn = CONFIGS["decoder"], batch_of(), {}
    arrays = arrays_of(config, router={"places": {"layers": {"gate": MOLE}}, "knobs": {}})
    adapted = Adapted(base_of(config).model, (("layers", place), (LINEARS, Lora())), copies=5)

    def block(next, layer, x):
        ran = []
        for i in range(5):
            worn["w"] = np.zeros((1, 1, 4)) if i == 0 else np.eye(4)[i - 1][None, None]
            ran.append(next(x))
        ran = np.stack(ran, axis=2)
        z = np.exp(np.einsum("btnd,nd->btn", ran, np.asarray(MOLE[layer], np.float64)))
        return np.einsum("btnd,btn->btd", ran, z / z.sum(-1, keepdims=True))

    def linear(next, path, layer, x):
        return next(x) + loop(arrays["bank"], path, layer, x, worn["w"])

    mask = np.asarray(batch.mask)
    expected = explicit(config, arrays, batch, block=block, linear=linear)
    close(forward(adapted, arrays, batch)[0][mask], expected[mask])


def rows_seen(site, next, x):
    """Sows the rows of the request that a linear sees, and the weights that came from the route."""
    site.sow("rows", (site.batch.tokens, site.outer.values))
    return next(x)


def copying(site, next, x, ctx):
    return next(x, ctx, copies=3).reshape(x.shape[0], 3, *x.shape[1:])[:, 1]


def routed(arrays, batch):
    return Weights(batch.tokens[:, :4].astype(jnp.float32))


def for_all(arrays, batch):
    return Weights(jnp.arange(4.0))


def test_inside_copies_the_request_and_the_weights_of_the_route_are_repeated_too():
    config, batch = CONFIGS["decoder"], batch_of()
    places = (("layers", copying), ("layers/attn/q", rows_seen))
    for route in (routed, for_all):
        adapted = Adapted(base_of(config).model, places, route)
        found, records = forward(adapted, arrays_of(config), batch)
        close(found, forward(Adapted(base_of(config).model), arrays_of(config), batch)[0])
        tokens, weights = records["layers"]["attn"]["q"]["rows"][0]
        same(tokens[0], np.repeat(batch.tokens, 3, axis=0))
        expected = route(None, batch).values
        same(weights[0], np.repeat(expected, 3, axis=0) if route is routed else expected)


def test_copies_at_a_linear_repeat_its_input_rows():
    config, batch, arrays = CONFIGS["encoder"], batch_of(left=False), arrays_of(CONFIGS["encoder"])

    def last_copy(site, next, x):
        return next(x, copies=2).reshape(x.shape[0], 2, x.shape[1], -1)[:, 1]

    adapted = Adapted(base_of(config).model, (("layers/mlp/*", last_copy),))
    close(forward(adapted, arrays, batch)[0], forward(Adapted(base_of(config).model), arrays, batch)[0])


def test_nested_joints_add_up():
    config, batch, arrays = CONFIGS["encoder"], batch_of(left=False), arrays_of(CONFIGS["encoder"])
    places, model = ((LINEARS, Lora()),), base_of(config).model
    first, second = Weights(jnp.array([1.0, -0.5, 0.3, 0.0])), Weights(jnp.array([0.2, 0.7, 0.0, 1.0]))

    @jit
    def both(arrays, batch):
        with (
            joined(places, arrays["bank"], {}, batch, outer=first),
            joined(places, arrays["bank"], {}, batch, outer=second),
        ):
            return model.apply({"params": arrays["params"]}, batch.tokens, batch.mask)[0]

    summed = Weights(first.values + second.values)
    close(both(arrays, batch), forward(Adapted(model, places), arrays, batch, summed)[0])


def test_the_first_pattern_that_matches_decides():
    config, batch, arrays = CONFIGS["encoder"], batch_of(left=False), arrays_of(CONFIGS["encoder"])
    outer = Weights(jnp.ones(4))
    spared = (("layers/attn/*", lambda site, next, x: next(x)), (LINEARS, Lora()))
    model, bank = base_of(config).model, arrays["bank"]
    mlp_only = bank._replace(sites={p: s for p, s in bank.sites.items() if "mlp" in p})
    same(
        forward(Adapted(model, spared), arrays, batch, outer)[0],
        forward(Adapted(model, ((LINEARS, Lora()),)), arrays | {"bank": mlp_only}, batch, outer)[0],
    )
