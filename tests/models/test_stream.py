import jax.numpy as jnp
import numpy as np

from moejax.models.stream import Cache, advance, context, last, tile

LEFT = jnp.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], bool)
RIGHT = jnp.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)


def test_positions_count_real_tokens_on_either_side():
    assert context(LEFT, causal=False).positions.tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert context(RIGHT, causal=False).positions.tolist() == [[0, 1, 2, 2, 2], [0, 1, 2, 3, 4]]


def test_bidirectional_mask_shows_all_real_tokens():
    mask = context(LEFT, causal=False).mask
    assert mask.shape == (2, 1, 5, 5)
    assert (mask == LEFT[:, None, None, :]).all()


def test_causal_mask_and_window_against_a_loop():
    for mask in (LEFT, RIGHT):
        for window in (None, 2):
            ctx = context(mask, causal=True, window=window)
            for row in range(2):
                place = np.cumsum(np.asarray(mask[row])) - 1
                for q in range(5):
                    for k in range(5):
                        if not mask[row, q]:
                            continue
                        seen = (
                            bool(mask[row, k]) and k <= q and (window is None or place[q] - place[k] < window)
                        )
                        assert bool(ctx.mask[row, 0, q, k]) == seen, (window, row, q, k)


def test_cached_context_is_the_rows_of_the_whole_context():
    whole = context(LEFT, causal=True, window=3)
    cache = Cache(
        jnp.zeros((1, 2, 7, 1, 2)), jnp.zeros((1, 2, 7, 1, 2)), jnp.zeros((2, 7), bool), jnp.int32(0)
    )
    for lo, hi in ((0, 3), (3, 4), (4, 5)):
        ctx = context(LEFT[:, lo:hi], causal=True, window=3, cache=cache)
        assert ctx.at == lo
        assert (ctx.positions == whole.positions[:, lo:hi]).all()
        assert (ctx.mask[..., :5] == whole.mask[:, :, lo:hi]).all()
        assert not ctx.mask[..., 5:].any()
        cache = advance(cache, LEFT[:, lo:hi])
    assert cache.at == 5
    assert cache.valid.tolist() == [[False, False, True, True, True, False, False], [True] * 5 + [False] * 2]
    assert advance(None, LEFT) is None


def test_last_is_the_last_real_token():
    assert last(LEFT).tolist() == [4, 4]
    assert last(RIGHT).tolist() == [2, 4]
    assert last(jnp.zeros((1, 3), bool)).tolist() == [2]


def test_tile_copies_rows_side_by_side_and_leaves_scalars():
    ctx = tile(context(LEFT, causal=True), 3)
    assert ctx.at.shape == ()
    assert ctx.mask.shape == (6, 1, 5, 5)
    assert ctx.positions.reshape(2, 3, 5)[:, 1].tolist() == context(LEFT, causal=True).positions.tolist()
