"""Prefill and cached steps against the uncached whole: left padding, what is held, copies of rows."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from joint_case import CONFIGS, arrays_of, base_of, batch_of, close, forward, jit, same

from moejax.adapted import Adapted, score, start, step
from moejax.models.generate import generate
from moejax.places import LINEARS, Lora
from moejax.routing import select
from moejax.types import Weights

CONFIG = CONFIGS["decoder"]
ROOM = 3
RNG = np.random.default_rng(21)
MORE = jnp.asarray(RNG.integers(1, 40, (2, ROOM)), jnp.int32)
MOLE = jnp.asarray(RNG.normal(size=(3, 5, 16)), jnp.float32)
begin = partial(jit, static_argnums=(0, 3))(start)
go_on = partial(jit, static_argnums=0)(step)


def cached(adapted, arrays, prompt, more):
    """Logits after the prompt and after each further token, through the cache [b, n + 1, v]."""
    logits, state = begin(adapted, arrays, prompt, ROOM)
    found = [logits]
    for token in more.T:
        logits, state = go_on(adapted, arrays, token, state)
        found.append(logits)
    return jnp.stack(found, axis=1)


def whole(prompt, more):
    """The batch that holds the further tokens already; `prompt` still marks the request alone."""
    longer = jnp.concatenate([prompt.tokens, more], axis=1)
    mask = jnp.concatenate([prompt.mask, jnp.ones(more.shape, bool)], axis=1)
    only = jnp.concatenate([prompt.prompt, jnp.zeros(more.shape, bool)], axis=1)
    return prompt._replace(tokens=longer, mask=mask, prompt=only)


@dataclass(frozen=True)
class PerToken:
    """Top-2 of x . g_e: recomputed at every token."""

    def __call__(self, site, x):
        return select.top_k(jnp.einsum("btd,ed->bte", x, site.leaves["gate"]), site.present, 2)


def pooled(site, x):
    """Softmax of g_e . mean over the request's tokens: [b, e]."""
    seen = site.batch.prompt[..., None].astype(x.dtype)
    mean = jnp.sum(x * seen, axis=1) / jnp.maximum(jnp.sum(seen, axis=1), 1)
    return select.softmax(jnp.einsum("bd,ed->be", mean, site.leaves["gate"]), site.present)


def held(site, x):
    """The same, decided at prefill and worn while decoding."""
    return site.once("weights", lambda: pooled(site, x))


def by_request(arrays, batch):
    """A route: top-2 experts of each row by its first tokens' sum."""
    total = jnp.sum(jnp.where(batch.prompt, batch.tokens, 0), axis=1)
    scores = jnp.sin(total[:, None] * jnp.arange(1.0, 5)[None])
    return select.top_k(scores, jnp.ones(4, bool), 2)


def side_by_side(site, next, x, ctx):
    """The block with no expert and with each alone, on copies of the rows, mixed by a gate (MoLE)."""
    hot = jnp.tile(jnp.eye(5, 4, k=-1), (x.shape[0], 1))
    ran = next(x, ctx, outer=Weights(hot), copies=5).reshape(x.shape[0], 5, *x.shape[1:])
    gate = jax.nn.softmax(jnp.einsum("bntd,nd->bnt", ran, site.leaves["gate"]), axis=1)
    return jnp.einsum("bntd,bnt->btd", ran, gate)


def one_after_the_other(site, next, x, ctx):
    """Two passes: each would need keys and values of its own."""
    return next(x, ctx, outer=Weights(jnp.zeros(4))) + next(x, ctx, outer=Weights(jnp.ones(4)))


MODEL = base_of(CONFIG).model
WAYS = {
    "bare": Adapted(MODEL),
    "per token": Adapted(MODEL, ((LINEARS, Lora("output", PerToken())),)),
    "held": Adapted(MODEL, ((LINEARS, Lora("output", held)),)),
    "route": Adapted(MODEL, ((LINEARS, Lora("factor")),), by_request),
    "copies": Adapted(MODEL, (("layers", side_by_side), (LINEARS, Lora())), copies=5),
}


def arrays_with_block_gates():
    arrays = arrays_of(CONFIG)
    return arrays | {
        "router": {"places": arrays["router"]["places"] | {"layers": {"gate": MOLE}}, "knobs": {}}
    }


@pytest.mark.parametrize("way", WAYS)
def test_cached_steps_equal_the_uncached_whole_with_prompts_of_unequal_length(way):
    arrays, prompt = arrays_with_block_gates(), batch_of()
    found = cached(WAYS[way], arrays, prompt, MORE)
    expected, _ = forward(WAYS[way], arrays, whole(prompt, MORE))
    close(found, expected[:, -ROOM - 1 :])
    if way != "bare":
        assert np.abs(expected - forward(WAYS["bare"], arrays, whole(prompt, MORE))[0])[:, -ROOM:].max() > 0.1


def test_two_calls_of_a_block_cannot_share_one_cache():
    twice = Adapted(MODEL, (("layers", one_after_the_other), (LINEARS, Lora())))
    with pytest.raises(ValueError, match="layers: one cache cannot serve two calls of next"):
        begin(twice, arrays_of(CONFIG), batch_of(), ROOM)


def test_what_is_not_held_is_decided_anew_from_the_new_token_alone_and_differs():
    arrays, prompt = arrays_with_block_gates(), batch_of()
    forgetful = Adapted(MODEL, ((LINEARS, Lora("output", pooled)),))
    expected, _ = forward(forgetful, arrays, whole(prompt, MORE))
    found = cached(forgetful, arrays, prompt, MORE)
    close(found[:, 0], expected[:, -ROOM - 1])
    assert np.abs(found - expected[:, -ROOM - 1 :])[:, 1:].max() > 0.01


def test_once_is_computed_anew_by_every_forward_that_keeps_no_cache():
    arrays, prompt = arrays_with_block_gates(), batch_of()
    forgetful = Adapted(MODEL, ((LINEARS, Lora("output", pooled)),))
    same(forward(WAYS["held"], arrays, prompt)[0], forward(forgetful, arrays, prompt)[0])


def test_the_route_never_sees_targets_answers_or_choices():
    seen = []

    def nosy(arrays, batch):
        seen.append((batch.targets, batch.answer, batch.choices))
        return Weights(jnp.ones(4))

    batch = batch_of()
    batch = batch._replace(targets=batch.tokens, answer=batch.mask)
    jax.eval_shape(partial(score, Adapted(MODEL, ((LINEARS, Lora()),), nosy)), arrays_of(CONFIG), batch)
    assert seen == [(None, None, None)]


@partial(jit, static_argnums=0)
def written(adapted, arrays, prompt):
    begin = partial(start, adapted, room=ROOM)
    return generate(begin, partial(step, adapted), arrays, prompt, max_new=ROOM).tokens


def test_generation_picks_the_best_token_of_each_uncached_whole():
    arrays, prompt = arrays_with_block_gates(), batch_of()
    tokens = written(WAYS["per token"], arrays, prompt)
    logits, _ = forward(WAYS["per token"], arrays, whole(prompt, tokens))
    same(tokens, jnp.argmax(logits[:, -ROOM - 1 : -1], axis=-1))
    assert len(np.unique(tokens)) > 2


def test_a_place_without_weights_says_so():
    with pytest.raises(
        ValueError, match=r"layers/attn/q: no weights; give a score, a route, or an enclosing"
    ):
        forward(Adapted(MODEL, ((LINEARS, Lora()),)), arrays_of(CONFIG), batch_of())
