"""log p of continuations: against whole forwards of single texts, whatever is batched, padded and cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shell
import world

from moejax.adapted import head, run
from moejax.evaluate.continuations import continuations, paired
from moejax.models.prompts import left_padded

RNG = np.random.default_rng(0)
SIZES = ((5, 2), (1, 7), (20, 1), (3, 3), (9, 12))
PAIRS = [tuple(RNG.integers(0, 36, n).tolist() for n in size) for size in SIZES]
WHOLE = jax.jit(
    lambda arrays, batch, adapted: head(adapted.model, arrays, run(adapted, arrays, batch).hidden),
    static_argnames="adapted",
)


def alone(made, context, answer, longest=10**6):
    """The same from one forward over one text, with numpy's sums."""
    row = [*context, *answer][-(longest + 1) :]
    batch = left_padded([row[:-1]], 1, least=32)
    n = len(answer)
    asked = batch.mask.copy()
    asked[:, asked.shape[1] - n + 1 :] = False
    logits = np.asarray(WHOLE(made.arrays, batch._replace(prompt=asked), made.adapted))[0, -n:].astype(float)
    logp = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    return logp[np.arange(n), answer].sum(), bool((logits.argmax(1) == answer).all())


def scored(made, pairs, size=4, longest=10**6):
    return continuations(made.base, made.adapted, made.arrays, pairs, size, longest)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["base", "arrow(k=2)"])
def test_sums_are_those_of_single_forwards(method):
    made = shell.made(method)
    expected = [alone(made, *pair) for pair in PAIRS]
    for size in (1, 2, 8):
        found = scored(made, PAIRS, size)
        np.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected], rtol=1e-5)
        assert [g for _, g in found] == [g for _, g in expected]


def test_experts_change_the_sums():
    bare, routed = (np.array([s for s, _ in scored(shell.made(m), PAIRS)]) for m in ("base", "arrow(k=2)"))
    assert np.abs(bare - routed).max() > 0.1


def test_the_greedy_continuation_is_known():
    made = shell.made("base")
    context = PAIRS[0][0]
    batch = left_padded([context], 1, least=32)
    best = int(np.asarray(WHOLE(made.arrays, batch, made.adapted))[0, -1].argmax())
    assert [g for _, g in scored(made, [(context, [best]), (context, [(best + 1) % 36])])] == [True, False]


def test_a_long_context_is_cut_on_the_left():
    made = shell.made("arrow(k=2)")
    longest = 6
    found = scored(made, PAIRS[:1] + PAIRS[2:4], longest=longest)
    expected = [alone(made, *pair, longest) for pair in PAIRS[:1] + PAIRS[2:4]]
    np.testing.assert_allclose([s for s, _ in found], [s for s, _ in expected], rtol=1e-5)
    assert abs(found[1][0] - scored(made, PAIRS[2:3])[0][0]) > 1e-3


def test_other_lengths_within_a_bucket_compile_nothing():
    made = shell.made("arrow(k=2)")
    scored(made, [(PAIRS[0][0], [1, 2, 3, 4])] * 4)
    with world.compiles() as compiled:
        scored(made, [(PAIRS[2][0][:7], [5, 6, 7]), (PAIRS[1][0], [1, 2, 3, 4]), (PAIRS[3][0], [3])])
    assert compiled == []
    assert jnp.isfinite(scored(made, PAIRS[:1])[0][0])


def test_routers_see_the_context_as_the_request_and_nothing_else():
    batch, most = paired(shell.made("base").base, [([1, 2, 3], [4, 5]), ([6], [7])], 100)
    asked = [row[mark].tolist() for row, mark in zip(batch.tokens, batch.prompt, strict=True)]
    assert asked == [[1, 2, 3], [6]] and most == 2
    scored = [row[mark].tolist() for row, mark in zip(batch.targets, batch.answer, strict=True)]
    assert scored == [[4, 5], [7]]
    assert [row[mark].tolist() for row, mark in zip(batch.tokens, batch.mask, strict=True)] == [
        [1, 2, 3, 4],
        [6],
    ]
