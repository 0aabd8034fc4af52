"""Soft prompts: their length belongs to the batch, as negative ids; their vectors to the place at `embed`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from joint_case import CONFIGS, arrays_of, base_of, batch_of, close, explicit, forward, jit, same

from moejax.adapted import Adapted, run, start, step
from moejax.types import Weights

RNG = np.random.default_rng(31)
SLOTS = 2
PROMPTS = jnp.asarray(RNG.normal(size=(4, SLOTS, 16)), jnp.float32)  # of four experts
MIX = Weights(jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32))


def soft_prompt(site, next, tokens):
    """The word embedding, and the experts' prompts mixed by the row's weights where a slot stands."""
    mixed = jnp.einsum("be,epd->bpd", site.outer.values, site.router["prompts"])
    slots = jnp.clip(-1 - tokens, 0, SLOTS - 1)
    vectors = jnp.take_along_axis(mixed, slots[..., None], axis=1)
    return jnp.where((tokens < 0)[..., None], vectors, next(jnp.maximum(tokens, 0)))


def with_slots(batch, at):
    """The batch with slots -1 .. -p put in before place `at[b]` of each row."""
    tokens, mask = [], []
    for row, valid, place in zip(np.asarray(batch.tokens), np.asarray(batch.mask), at, strict=True):
        tokens.append(np.insert(row, [place] * SLOTS, [-1, -2]))
        mask.append(np.insert(valid, [place] * SLOTS, True))
    mask = jnp.asarray(np.stack(mask))
    return batch._replace(tokens=jnp.asarray(np.stack(tokens)), mask=mask, prompt=mask)


def explicit_embedding(prompts, batch):
    """The hook of the reference: vectors put in row by row."""
    mixed = np.einsum("be,epd->bpd", np.asarray(MIX.values, np.float64), np.asarray(prompts, np.float64))

    def hook(next, tokens):
        x = next(np.maximum(tokens, 0))
        for b, t in zip(*np.nonzero(tokens < 0), strict=True):
            x[b, t] = mixed[b, -1 - tokens[b, t]]
        return x

    return hook


def given(config):
    adapted = Adapted(base_of(config).model, (("embed", soft_prompt),))
    return adapted, arrays_of(config, router={"places": {}, "knobs": {}, "prompts": PROMPTS})


@pytest.mark.parametrize("kind", CONFIGS)
def test_routed_prompts_equal_vectors_put_in_row_by_row(kind):
    adapted, arrays = given(CONFIGS[kind])
    batch = with_slots(batch_of(), (0, 4))  # before a full row, and inside a padded one
    found, _ = forward(adapted, arrays, batch, MIX)
    mask = np.asarray(batch.mask)
    hook = explicit_embedding(PROMPTS, batch)
    close(found[mask], explicit(CONFIGS[kind], arrays, batch, embed=hook)[mask])


def test_a_batch_without_slots_is_bit_equal_to_the_base():
    adapted, arrays = given(CONFIGS["decoder"])
    same(
        forward(adapted, arrays, batch_of(), MIX)[0],
        forward(Adapted(adapted.model), arrays, batch_of())[0],
    )


def test_gradients_reach_the_prompts():
    config = CONFIGS["encoder"]
    adapted, arrays = given(config)
    batch, aim = with_slots(batch_of(), (0, 4)), RNG.normal(size=(2, 8, 16)) / 4
    aim *= np.asarray(batch.mask)[..., None]

    @jit
    def slope(arrays, batch):
        def loss(prompts):
            router = arrays["router"] | {"prompts": prompts}
            hidden = run(adapted, arrays | {"router": router}, batch, outer=MIX).hidden
            return jnp.sum(hidden * jnp.asarray(aim, jnp.float32))

        return jax.grad(loss)(arrays["router"]["prompts"])

    def moved(way):
        hook = explicit_embedding(np.asarray(PROMPTS, np.float64) + way, batch)
        return np.sum(explicit(config, arrays, batch, embed=hook) * aim)

    way = RNG.normal(size=PROMPTS.shape) * 1e-6
    expected = (moved(way) - moved(-way)) / 2e-6
    assert abs(expected) > 0.05
    assert np.sum(np.asarray(slope(arrays, batch)) * way) / 1e-6 == pytest.approx(expected, rel=1e-4)


def test_decoding_after_a_soft_prompt_equals_the_uncached_whole():
    adapted, arrays = given(CONFIGS["decoder"])
    adapted = Adapted(adapted.model, adapted.places, route)
    batch = with_slots(batch_of(), (0, 2))
    more = jnp.asarray(RNG.integers(1, 40, (2, 2)), jnp.int32)
    logits, state = jit(start, static_argnums=(0, 3))(adapted, arrays, batch, 2)
    found, one_step = [logits], jit(step, static_argnums=0)
    for token in more.T:
        logits, state = one_step(adapted, arrays, token, state)
        found.append(logits)
    longer = batch._replace(
        tokens=jnp.concatenate([batch.tokens, more], axis=1),
        mask=jnp.concatenate([batch.mask, jnp.ones((2, 2), bool)], axis=1),
    )
    close(jnp.stack(found, axis=1), forward(adapted, arrays, longer)[0][:, -3:])


def route(arrays, batch):
    return MIX
