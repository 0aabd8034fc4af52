"""What both bases owe the joint: names, parts, padding, dtype, gradients."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from family_cases import CASES

from moejax.models import weights
from moejax.models.block import Block, slice_layers
from moejax.models.decoder import DecoderConfig, empty_cache
from moejax.models.encoder import EncoderConfig
from moejax.models.stream import Stream
from moejax.types import UserError

ENCODER = EncoderConfig(vocab=60, width=64, layers=3, heads=4, hidden=96, positions=40)
DECODER = DecoderConfig(vocab=60, width=64, layers=3, heads=4, kv_heads=2, hidden=96)
CONFIGS = pytest.mark.parametrize("config", [ENCODER, DECODER], ids=["encoder", "decoder"])
SMALL = {"vocab": 60, "width": 64, "layers": 3}
FAMILIES = {
    "encoder": ENCODER,
    "decoder": DECODER,
    "phi": dataclasses.replace(CASES["phi"].config, **SMALL),
    "gemma": dataclasses.replace(CASES["gemma3"].config, **SMALL, local=(True, False, True), cap=4.0),
    "gpt2": dataclasses.replace(CASES["gpt2"].config, **SMALL),
}
EVERY = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
random_base = functools.cache(weights.random_base)


def hidden_of(base, tokens, mask):
    return jax.jit(base.model.apply)({"params": base.params}, tokens, mask)[0]


def texts(rows=8, length=16):
    tokens = jax.random.randint(jax.random.key(0), (rows, length), 0, 60)
    return tokens, jnp.arange(length)[None] >= (jnp.arange(rows) % 5)[:, None]


def met(config):
    """Paths and argument shapes of every __call__ under one apply."""
    base, found = random_base(config), {}
    tokens, mask = texts(2, 5)

    def look(call, args, kwargs, context):
        if context.method_name == "__call__":
            found["/".join(context.module.path)] = (context.module, [getattr(a, "shape", None) for a in args])
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        jax.eval_shape(base.model.apply, {"params": base.params}, tokens, mask)
    return found


@CONFIGS
def test_every_place_has_its_name(config):
    found = met(config)
    sites = ["attn/q", "attn/k", "attn/v", "attn/o", "mlp/up", "mlp/down"]
    sites += ["mlp/gate"] if config is DECODER else []
    for site in sites:
        module, (shape,) = found[f"layers/{site}"]
        assert isinstance(module, nn.Dense) and shape == (2, 5, 96 if site == "mlp/down" else 64)
    for join in ("attn_join", "mlp_join"):
        assert found[f"layers/{join}"][1] == [(2, 5, 64), (2, 5, 64)]
    assert isinstance(found["layers"][0], Block)
    assert found["embed"][1] == [(2, 5)]
    assert set(random_base(config).shapes) == {f"layers/{site}" for site in sites}


@EVERY
def test_parts_are_bit_equal_to_the_whole(config):
    base = random_base(config)
    model, variables = base.model, {"params": base.params}
    tokens, mask = texts()
    whole = hidden_of(base, tokens, mask)

    @functools.partial(jax.jit, static_argnums=0)
    def below(lo, variables):
        x, ctx = model.apply(variables, tokens, mask, method="start")
        return model.apply(slice_layers(variables, 0, lo), Stream(x), ctx, jnp.arange(lo), method="part").x

    @functools.partial(jax.jit, static_argnums=0)
    def above(lo, variables, x):
        ctx = model.apply(variables, tokens, mask, method="start")[1]
        given, layers = slice_layers(variables, lo, config.layers), jnp.arange(lo, config.layers)
        stream = model.apply(given, Stream(x), ctx, layers, method="part")
        return model.apply(given, stream.x, method="finish")

    middle = [below(lo, variables) for lo in range(config.layers + 1)]
    for lo, x in enumerate(middle):
        assert (above(lo, variables, x) == whole).all(), lo
    for before, after in itertools.pairwise(middle):
        assert jnp.abs(before - after).max() > 0.1  # each layer does something


def test_slice_layers_takes_params_and_variables():
    params = {"embed": {"embedding": jnp.zeros((3, 2))}, "layers": {"attn": {"q": jnp.arange(4)}}}
    cut = slice_layers({"params": params}, 1, 3)["params"]
    assert cut["layers"]["attn"]["q"].tolist() == [1, 2]
    assert cut["embed"]["embedding"].shape == (3, 2)
    assert slice_layers(params, 2, 4)["layers"]["attn"]["q"].tolist() == [2, 3]


@EVERY
def test_padding_changes_nothing_for_real_tokens(config):
    base = random_base(config)
    tokens = jax.random.randint(jax.random.key(3), (1, 6), 0, 60)
    alone = hidden_of(base, tokens, jnp.ones((1, 6), bool))
    for before, after in ((5, 0), (0, 5), (2, 3)):
        padded = jnp.pad(tokens, ((0, 0), (before, after)), constant_values=7)
        mask = jnp.pad(jnp.ones((1, 6), bool), ((0, 0), (before, after)))
        hidden = hidden_of(base, padded, mask)
        np.testing.assert_allclose(hidden[:, before : before + 6], alone, atol=2e-5)
    unmasked = hidden_of(base, padded, jnp.ones_like(mask))
    assert jnp.abs(unmasked[:, before : before + 6] - alone).max() > 0.1


@EVERY
def test_only_a_decoder_hides_the_future(config):
    base = random_base(config)
    tokens, mask = texts(1, 8)
    other = tokens.at[0, 6].add(1) % 60
    one, two = (hidden_of(base, t, mask) for t in (tokens, other))
    early = jnp.abs(one[:, :6] - two[:, :6]).max()
    assert (early > 0.01) if isinstance(config, EncoderConfig) else (early == 0)
    assert jnp.abs(one[:, 6:] - two[:, 6:]).max() > 0.1


@pytest.mark.slow
@EVERY
def test_bfloat16_stays_bfloat16(config):
    full = random_base(config)
    half = weights.make_model(dataclasses.replace(config, dtype="bfloat16"))
    variables = {"params": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), full.params)}
    tokens, mask = texts(2, 6)
    x, ctx = half.apply(variables, tokens, mask, method="start")
    stream = jax.eval_shape(lambda v: half.apply(v, Stream(x), ctx, jnp.arange(3), method="part"), variables)
    hidden = hidden_of(dataclasses.replace(full, model=half, params=variables["params"]), tokens, mask)
    assert (x.dtype, stream.x.dtype, hidden.dtype) == (jnp.bfloat16,) * 3
    if isinstance(config, DecoderConfig):
        assert half.apply(variables, hidden, method="head").dtype == jnp.bfloat16
        empty = empty_cache(half.config, 2, 8)
        cached, cache = jax.eval_shape(half.apply, variables, tokens, mask, empty)
        assert (cached.dtype, cache.k.dtype, cache.v.dtype) == (jnp.bfloat16,) * 3
    exact = hidden_of(full, tokens, mask)
    error = jnp.where(mask[..., None], hidden.astype(jnp.float32) - exact, 0)
    assert 0 < jnp.sqrt(jnp.mean(error**2)) < 0.1 * jnp.sqrt(jnp.mean(exact**2))


@pytest.mark.slow
@EVERY
def test_gradients_flow_through_scan_and_remat(config):
    base = random_base(config, 0, 1.0)
    tokens, mask = texts(2, 6)
    target = jax.random.normal(jax.random.key(5), (2, 6, 64))

    def loss(params, model):
        hidden, _ = model.apply({"params": params}, tokens, mask)
        return jnp.mean((hidden * target * mask[..., None]) ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    grads = gradient(base.params, base.model)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        blind = (
            "lm_head",
            "['k']['bias']",
            "['qkv']['bias']",
        )  # not in this loss; a constant under the softmax
        unused = any(name in jax.tree_util.keystr(path) for name in blind)
        assert jnp.isfinite(leaf).all() and (unused or jnp.abs(leaf).max() > 1e-5), path
    if config is DECODER:
        plain = gradient(base.params, weights.make_model(dataclasses.replace(config, remat=False)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, plain)


@CONFIGS
def test_models_are_values(config):
    one, two = weights.make_model(config), weights.make_model(dataclasses.replace(config))
    assert one is not two and one == two and hash(one) == hash(two)
    assert one != weights.make_model(dataclasses.replace(config, hidden=128))


@CONFIGS
def test_unknown_collections_ride_the_layer_axis(config):
    """A collection that the base never heard of is cut by layer and comes back stacked."""
    base = random_base(config)
    tokens, mask = texts(2, 5)

    def look(call, args, kwargs, context):
        if context.method_name == "__call__" and context.module.path == ("layers", "attn", "q"):
            context.module.sow("seen", "number", context.module.get_variable("mine", "number"))
        return call(*args, **kwargs)

    variables = {"params": base.params, "mine": {"layers": {"attn": {"q": {"number": jnp.arange(3) + 10}}}}}

    @jax.jit
    def run(variables):
        with nn.intercept_methods(look):
            return base.model.apply(variables, tokens, mask, mutable=["seen"])

    _, out = run(variables)
    assert out["seen"]["layers"]["attn"]["q"]["number"][0].tolist() == [10, 11, 12]


def test_encoder_refuses_what_it_cannot_do():
    base = random_base(dataclasses.replace(ENCODER, layers=1))
    with pytest.raises(UserError, match="41 tokens is too long for 40 positions"):
        base.model.apply({"params": base.params}, *texts(1, 41))
    with pytest.raises(ValueError, match="no cache"):
        base.model.apply({"params": base.params}, *texts(1, 4), empty_cache(DECODER, 1, 4))
