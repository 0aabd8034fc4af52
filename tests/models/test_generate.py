import dataclasses

import family_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.models.decoder import DecoderConfig
from moejax.models.generate import bare, generate
from moejax.models.weights import random_base
from moejax.types import Batch

CONFIG = DecoderConfig(vocab=40, width=32, layers=2, heads=4, kv_heads=2, hidden=48)
PROMPTS = [[5, 9, 2], [7, 1, 30, 22, 8, 3], [11]]
NEW = 6


def padded(prompts, side):
    size = max(map(len, prompts))
    rows = [[0] * (size - len(p)) + p if side == "left" else p + [0] * (size - len(p)) for p in prompts]
    ones = [[1] * len(p) for p in prompts]
    marks = [[0] * (size - len(p)) + p if side == "left" else p + [0] * (size - len(p)) for p in ones]
    mask = jnp.array(marks, bool)
    return Batch(jnp.array(rows), mask, mask)


def uncached(base, prompts, new):
    """Greedy tokens and their logits by whole forwards without a cache, each prompt alone."""
    size = max(map(len, prompts)) + new

    @jax.jit
    def logits(params, tokens, count):
        mask = jnp.arange(size)[None] < count
        hidden, _ = base.model.apply({"params": params}, tokens, mask)
        return base.model.apply({"params": params}, hidden[:, count - 1], method="head")

    tokens, values = [], []
    for prompt in prompts:
        row, seen = list(prompt), []
        for _ in range(new):
            seen.append(logits(base.params, jnp.array([row + [0] * (size - len(row))]), len(row))[0])
            row.append(int(seen[-1].argmax()))
        tokens.append(row[len(prompt) :])
        values.append(jnp.stack(seen))
    return tokens, jnp.stack(values)


CASES = {
    "llama": CONFIG,
    "window": dataclasses.replace(CONFIG, window=3),
    "biased": dataclasses.replace(CONFIG, tied=True, qkv_bias=True),
    **{
        name: dataclasses.replace(family_cases.CASES[name].config, vocab=40)
        for name in ("phi", "gemma2", "gemma3", "gpt2")
    },
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    base = random_base(request.param, seed=1)
    return base, *uncached(base, PROMPTS, NEW)


@pytest.mark.parametrize("side", ["left", "right"])
def test_cached_equals_uncached(case, side):
    base, tokens, values = case
    start, step = bare(base.model, NEW)
    batch = padded(PROMPTS, side)
    made = jax.jit(lambda p, b: generate(start, step, p, b, max_new=NEW))(base.params, batch)
    assert made.tokens.tolist() == tokens
    assert made.length.tolist() == [NEW] * 3
    logits, cache = jax.jit(start)(base.params, batch)
    for i in range(NEW):
        np.testing.assert_allclose(logits, values[:, i], atol=1e-4)
        logits, cache = jax.jit(step)(base.params, jnp.array([row[i] for row in tokens]), cache)
    assert jnp.abs(values).max() > 4


def counter(first):
    """A toy: the next token is the last plus one, and the state counts the steps."""

    def logits(token):
        return jax.nn.one_hot(token + 1, 20) * 30.0

    def start(arrays, batch):
        return logits(jnp.array(first)), jnp.int32(0)

    def step(arrays, token, state):
        return logits(token), state + 1

    return start, step


def test_stops_at_the_end_token_and_pads_after_it():
    start, step = counter([2, 6, 4])
    made = generate(start, step, None, padded(PROMPTS, "left"), max_new=5, eos=(5, 19), pad=-1)
    assert made.tokens.tolist() == [[3, 4, 5, -1, -1], [7, 8, 9, 10, 11], [5, -1, -1, -1, -1]]
    assert made.length.tolist() == [3, 5, 1]


def test_runs_no_step_after_all_have_ended():
    calls = []
    start, step = counter([2, 3, 4])

    def counted(arrays, token, state):
        jax.debug.callback(lambda s: calls.append(int(s)), state)
        return step(arrays, token, state)

    made = generate(start, counted, None, padded(PROMPTS, "left"), max_new=9, eos=(5,))
    jax.block_until_ready(made)
    jax.effects_barrier()
    assert made.length.tolist() == [3, 2, 1]
    assert sorted(calls) == [0, 1]


def test_sampling_follows_the_temperature():
    odds = jnp.log(jnp.array([0.1, 0.2, 0.7]))

    def start(arrays, batch):
        return jnp.broadcast_to(odds, (4000, 3)), None

    def step(arrays, token, state):
        return jnp.broadcast_to(odds, (4000, 3)), None

    @jax.jit
    def draw(key, temperature):
        batch = padded(PROMPTS, "left")
        return generate(start, step, None, batch, max_new=2, key=key, temperature=temperature).tokens

    batches = {t: draw(jax.random.key(0), jnp.float32(t)) for t in (1.0, 0.5, 0.01)}
    for t, tokens in batches.items():
        expected = jax.nn.softmax(odds / t)
        for place in range(2):
            share = jnp.bincount(tokens[:, place], length=3) / 4000
            np.testing.assert_allclose(share, expected, atol=0.03)
    assert (draw(jax.random.key(0), jnp.float32(1.0)) == batches[1.0]).all()
    assert (draw(jax.random.key(1), jnp.float32(1.0)) != batches[1.0]).any()
    assert (batches[1.0][:, 0] != batches[1.0][:, 1]).any()


@pytest.mark.parametrize("wrong", [{"max_new": 0}, {"max_new": 2, "temperature": 0.0}])
def test_refuses_senseless_numbers(wrong):
    start, step = counter([2, 3, 4])
    with pytest.raises(ValueError, match="must be"):
        generate(start, step, None, padded(PROMPTS, "left"), **wrong)
