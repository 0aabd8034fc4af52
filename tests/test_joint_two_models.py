"""Two models in one program: the states of one, read by cross-attention in some blocks of the other (CALM).

The first model's whole pass comes first, then the projections to keys and values, then the second model, whose
place at `layers` attends where its layer has a connection.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from joint_case import CONFIGS, base_of, batch_of, close, jit, same
from reference import Reference, softmax

from moejax.adapted import Adapted, head, run
from moejax.experts.bank import Bank
from moejax.models.decoder import empty_cache
from moejax.models.generate import generate
from moejax.types import Batch

FIRST = replace(CONFIGS["decoder"], width=12, heads=3, kv_heads=3, layers=3)
SECOND = replace(CONFIGS["decoder"], layers=4)
READ = (0, 2)  # layers of the first model
AT = (-1, 0, -1, 1)  # connection of each layer of the second
HEADS, SIZE = 2, 4
NEW = 3


def weights(seed=41):
    """Two connections: queries from the second model's width, keys and values from the first's."""
    rng = np.random.default_rng(seed)
    shapes = {"q": (16, 8), "k": (12, 8), "v": (12, 8), "o": (8, 16)}
    return {n: jnp.asarray(rng.normal(size=(2, *s)) / s[0] ** 0.5, jnp.float32) for n, s in shapes.items()}


def capturing(site, next, x, ctx):
    y = next(x, ctx)
    site.sow("states", y)
    return y


def attending(site, next, x, ctx):
    """Cross-attention after the block, where its layer has a connection."""
    x, conn = next(x, ctx), site.router
    at = jnp.array(AT)[site.layer]

    def attend(x):
        i = jnp.maximum(at, 0)
        q = (x @ conn["q"][i]).reshape(*x.shape[:2], HEADS, SIZE)
        scores = jnp.einsum("bthd,bshd->bhts", q, conn["keys"][i]) / SIZE**0.5
        mixed = jnp.einsum(
            "bhts,bshd->bthd", jax.nn.softmax(jnp.where(ctx.mask, scores, -1e30), axis=-1), conn["values"][i]
        )
        return x + mixed.reshape(*x.shape[:2], -1) @ conn["o"][i]

    return jax.lax.cond(at >= 0, attend, lambda x: x, x)


ONE = Adapted(base_of(FIRST).model, (("layers", capturing),))
TWO = Adapted(base_of(SECOND).model, (("layers", attending),))


def arrays_of_both(conn):
    return {"one": base_of(FIRST).params, "two": base_of(SECOND).params, "conn": conn}


def model(params, router):
    return {"params": params, "bank": Bank({}, jnp.ones(1, bool)), "router": router}


def project(conn, states):
    """Keys and values of all connections [c, b, t, heads, size]."""
    rows = states[jnp.array(READ)]
    return tuple(
        jnp.einsum("cbtd,cdf->cbtf", rows, conn[n]).reshape(*rows.shape[:3], HEADS, SIZE) for n in "kv"
    )


def together(arrays, batch, caches=(None, None), memory=None):
    """One pass of both: logits, the caches, and the memory with these tokens' keys and values in it."""
    first = run(ONE, model(arrays["one"], {}), batch, cache=caches[0], held={}, record=True)
    new = project(arrays["conn"], first.records["layers"]["states"][0])
    if memory is not None:
        at = (0, 0, caches[0].at, 0, 0)
        new = tuple(
            jax.lax.dynamic_update_slice(old, rows, at) for old, rows in zip(memory, new, strict=True)
        )
    router = arrays["conn"] | dict(zip(("keys", "values"), new, strict=True))
    second = run(TWO, model(arrays["two"], router), batch, cache=caches[1], held={})
    return head(TWO.model, {"params": arrays["two"]}, second.hidden), ((first.cache, second.cache), new)


logits_of = jit(lambda arrays, batch: together(arrays, batch)[0])


def spelled_out(conn, batch):
    """The same in numpy."""
    conn, states = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), conn), []

    def capture(next, layer, x):
        states.append(next(x))
        return states[-1]

    Reference(FIRST, base_of(FIRST).params, block=capture).hidden(batch.tokens, batch.mask)
    seen = np.asarray(batch.mask)[:, None, :] & np.tril(np.ones((batch.tokens.shape[1],) * 2, bool))[None]

    def attend(next, layer, x):
        x, c = next(x), AT[layer]
        if c < 0:
            return x
        q, k, v = x @ conn["q"][c], states[READ[c]] @ conn["k"][c], states[READ[c]] @ conn["v"][c]
        outs = []
        for h in range(HEADS):
            part = slice(h * SIZE, (h + 1) * SIZE)
            scores = np.einsum("btd,bsd->bts", q[..., part], k[..., part]) / SIZE**0.5
            outs.append(softmax(np.where(seen, scores, -1e30)) @ v[..., part])
        return x + np.concatenate(outs, axis=-1) @ conn["o"][c]

    return Reference(SECOND, base_of(SECOND).params, block=attend).logits(batch.tokens, batch.mask)


@pytest.mark.parametrize("left", [True, False])
def test_connected_models_equal_the_same_spelled_out(left):
    batch, conn = batch_of(left=left), weights()
    found = logits_of(arrays_of_both(conn), batch)
    expected = spelled_out(conn, batch)
    mask = np.asarray(batch.mask)
    close(found[mask], expected[mask])


def test_a_connection_that_writes_zero_is_bit_equal_to_the_second_model_alone():
    batch, conn = batch_of(), weights()
    silent = conn | {"o": jnp.zeros_like(conn["o"])}

    @jit
    def alone(params, batch):
        return head(TWO.model, {"params": params}, run(Adapted(TWO.model), model(params, {}), batch).hidden)

    found = logits_of(arrays_of_both(silent), batch)
    same(found, alone(base_of(SECOND).params, batch))
    assert np.abs(found - logits_of(arrays_of_both(conn), batch)).max() > 0.1


def test_a_later_token_changes_nothing_before_it():
    batch, arrays = batch_of(left=False), arrays_of_both(weights())
    later = batch._replace(tokens=batch.tokens.at[0, 4].add(1))
    one, other = logits_of(arrays, batch), logits_of(arrays, later)
    same(one[:, :4], other[:, :4])
    assert np.abs(one[0, 4:] - other[0, 4:]).min(axis=-1).max() > 1e-4


def test_gradients_reach_the_connections():
    batch, conn = batch_of(left=False), weights()
    mask = np.asarray(batch.mask)[..., None]
    aim = np.random.default_rng(42).normal(size=(2, 6, 40)) * mask / 4

    @jit
    def slope(arrays, batch):
        def loss(conn):
            return jnp.sum(together(arrays | {"conn": conn}, batch)[0] * jnp.asarray(aim, jnp.float32))

        return jax.grad(loss)(arrays["conn"])

    found, rng = slope(arrays_of_both(conn), batch), np.random.default_rng(43)
    for name in conn:
        way = rng.normal(size=conn[name].shape)
        wide = {n: np.asarray(leaf, np.float64) for n, leaf in conn.items()}
        ends = [np.sum(spelled_out(wide | {name: wide[name] + s * way}, batch) * aim) for s in (1e-6, -1e-6)]
        expected = (ends[0] - ends[1]) / 2e-6
        assert abs(expected) > 0.05
        assert float(np.sum(np.asarray(found[name]) * way)) == pytest.approx(expected, rel=1e-4)


def begin(arrays, batch):
    """Prefill: the first model's cache, the second's, and the connections' keys and values."""
    rows, slots = batch.tokens.shape[0], batch.tokens.shape[1] + NEW
    caches = tuple(empty_cache(config, rows, slots) for config in (FIRST, SECOND))
    memory = (jnp.zeros((2, rows, slots, HEADS, SIZE)),) * 2
    logits, state = together(arrays, batch, caches, memory)
    return logits[:, -1], state


def go_on(arrays, token, state):
    seen = jnp.ones((token.shape[0], 1), bool)
    logits, state = together(arrays, Batch(token[:, None], seen, ~seen), *state)
    return logits[:, -1], state


def test_decoding_with_three_caches_in_one_loop_equals_the_uncached_whole():
    batch, arrays = batch_of(), arrays_of_both(weights())
    tokens = jit(partial(generate, begin, go_on, max_new=NEW))(arrays, batch).tokens
    longer = batch._replace(
        tokens=jnp.concatenate([batch.tokens, tokens], axis=1),
        mask=jnp.concatenate([batch.mask, jnp.ones((2, NEW), bool)], axis=1),
    )
    expected = logits_of(arrays, longer)
    same(tokens, jnp.argmax(expected[:, -NEW - 1 : -1], axis=-1))
    assert len(np.unique(tokens)) > 2
