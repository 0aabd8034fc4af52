"""The bases spelled out: plain jnp, a Python loop over layers, no Linen; hooks where the joint has places.

A hook is `fn(next, path, layer, *args)` for linears and joins, `fn(next, layer, x)` for blocks and
`fn(next, tokens)` for the embedding.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


def straight(next, path, layer, *args):
    return next(*args)


@dataclass
class Reference:
    """`hidden(tokens, mask)` of a base, with hooks."""

    config: Any
    params: Any
    linear: Any = straight
    join: Any = straight
    block: Any = staticmethod(lambda next, layer, x: next(x))
    embed: Any = staticmethod(lambda next, tokens: next(tokens))

    def hidden(self, tokens, mask):
        """States after the last norm [b, t, d]."""
        c = self.config.block
        positions = jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=1) - 1, 0)
        x = self.embed(lambda ids: self.params["embed"]["embedding"][ids], tokens)
        length = tokens.shape[1]
        seen = jnp.broadcast_to(mask[:, None, None, :], (mask.shape[0], 1, length, length))
        if c.post:
            x = x + self.params["type"]["embedding"][0] + self.params["position"]["embedding"][positions]
            x = norm(c, x, self.params["embed_norm"])
        else:
            seen = seen & jnp.tril(jnp.ones((length, length), bool))[None, None]
        for layer in range(self.config.layers):
            weights = jax.tree.map(lambda leaf, n=layer: leaf[n], self.params["layers"])
            run = lambda x, w=weights, n=layer: self.body(w, n, x, positions, seen)  # noqa: E731
            x = self.block(run, layer, x)
        return x if c.post else norm(c, x, self.params["norm"])

    def logits(self, tokens, mask):
        """Logits of the next token [b, t, v]."""
        return self.hidden(tokens, mask) @ self.params["lm_head"]["kernel"]

    def body(self, w, layer, x, positions, seen):
        """One block."""
        c = self.config.block

        def linear(part, name, x):
            leaves = w[part][name]
            plain = lambda x: x @ leaves["kernel"] + leaves.get("bias", jnp.zeros(()))  # noqa: E731
            return self.linear(plain, f"layers/{part}/{name}", layer, x)

        def join(name, x, h):
            plain = lambda x, h: norm(c, x + h, w[name]["norm"]) if c.post else x + h  # noqa: E731
            return self.join(plain, f"layers/{name}", layer, x, h)

        z = x if c.post else norm(c, x, w["attn_norm"])
        q, k, v = (linear("attn", name, z) for name in "qkv")
        x = join("attn_join", x, linear("attn", "o", attention(c, q, k, v, positions, seen)))
        z = x if c.post else norm(c, x, w["mlp_norm"])
        if c.gated:
            h = jax.nn.silu(linear("mlp", "gate", z)) * linear("mlp", "up", z)
        else:
            h = jax.nn.gelu(linear("mlp", "up", z), approximate=False)
        return join("mlp_join", x, linear("mlp", "down", h))


def norm(c, x, leaves):
    """LayerNorm or RMSNorm."""
    centred = x - x.mean(-1, keepdims=True) if c.norm == "layer" else x
    y = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + c.eps) * across(leaves["scale"], x)
    return y + across(leaves["bias"], x) if c.norm == "layer" else y


def across(vector, x):
    """A vector shaped to go with x."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def attention(c, q, k, v, positions, seen):
    """Grouped heads, one at a time."""
    group, outs = c.heads // c.kv_heads, []
    for head in range(c.heads):
        mine = slice(head * c.head_dim, (head + 1) * c.head_dim)
        kv = slice(head // group * c.head_dim, (head // group + 1) * c.head_dim)
        q_h, k_h, v_h = q[..., mine], k[..., kv], v[..., kv]
        if c.rotary is not None:
            q_h, k_h = turn(q_h, positions, c.rotary.theta), turn(k_h, positions, c.rotary.theta)
        scores = jnp.einsum("btd,bsd->bts", q_h, k_h) / c.head_dim**0.5
        scores = jnp.where(seen[:, 0], scores, -1e30)
        outs.append(jnp.einsum("bts,bsd->btd", jax.nn.softmax(scores, axis=-1), v_h))
    return jnp.concatenate(outs, axis=-1)


def turn(x, positions, theta):
    """Rotary positions: pairs (i, i + dh/2) turned by position * theta^(-2i/dh)."""
    half = x.shape[-1] // 2
    angle = positions[..., None] * (theta ** (-jnp.arange(half) / half))[None, None]
    left, right = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)
