"""The bases spelled out in numpy, float64: a Python loop over layers; hooks where the joint has places.

A hook is `fn(next, path, layer, *args)` for linears and joins, `fn(next, layer, x)` for blocks and
`fn(next, tokens)` for the embedding. Gradients are checked against differences: float64 is fine enough.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import scipy.special


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
        c, tokens, mask = self.config.block, np.asarray(tokens), np.asarray(mask)
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self.params)
        length = tokens.shape[1]
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        seen = np.broadcast_to(mask[:, None, :], (mask.shape[0], length, length))
        x = self.embed(lambda ids: self.params["embed"]["embedding"][ids], tokens)
        if c.post:
            x = x + self.params["type"]["embedding"][0] + self.params["position"]["embedding"][positions]
            x = norm(c, x, self.params["embed_norm"])
        else:
            seen = seen & np.tril(np.ones((length, length), bool))[None]
        for layer in range(self.config.layers):
            weights = jax.tree.map(lambda leaf, n=layer: leaf[n], self.params["layers"])
            x = self.block(lambda x, w=weights, n=layer: self.body(w, n, x, positions, seen), layer, x)
        return x if c.post else norm(c, x, self.params["norm"])

    def logits(self, tokens, mask):
        """Logits of the next token [b, t, v]."""
        return self.hidden(tokens, mask) @ self.params["lm_head"]["kernel"]

    def body(self, w, layer, x, positions, seen):
        """One block."""
        c = self.config.block

        def linear(part, name, x):
            def plain(x):
                y = x @ w[part][name]["kernel"]
                return y + w[part][name]["bias"] if "bias" in w[part][name] else y

            return self.linear(plain, f"layers/{part}/{name}", layer, x)

        def join(name, x, h):
            def plain(x, h):
                return norm(c, x + h, w[name]["norm"]) if c.post else x + h

            return self.join(plain, f"layers/{name}", layer, x, h)

        z = x if c.post else norm(c, x, w["attn_norm"])
        q, k, v = (linear("attn", name, z) for name in "qkv")
        x = join("attn_join", x, linear("attn", "o", attention(c, q, k, v, positions, seen)))
        z = x if c.post else norm(c, x, w["mlp_norm"])
        up = linear("mlp", "up", z)
        if c.gated:
            gate = linear("mlp", "gate", z)
            return join("mlp_join", x, linear("mlp", "down", up * gate / (1 + np.exp(-gate))))
        return join("mlp_join", x, linear("mlp", "down", up * (1 + scipy.special.erf(up / 2**0.5)) / 2))


def norm(c, x, leaves):
    """LayerNorm or RMSNorm."""
    centred = x - x.mean(-1, keepdims=True) if c.norm == "layer" else x
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + c.eps) * leaves["scale"]
    return y + leaves["bias"] if c.norm == "layer" else y


def softmax(scores):
    """Over the last axis."""
    z = np.exp(scores - scores.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


def attention(c, q, k, v, positions, seen):
    """Grouped heads, one at a time."""
    group, outs = c.heads // c.kv_heads, []
    for head in range(c.heads):
        mine = slice(head * c.head_dim, (head + 1) * c.head_dim)
        kv = slice(head // group * c.head_dim, (head // group + 1) * c.head_dim)
        q_h, k_h, v_h = q[..., mine], k[..., kv], v[..., kv]
        if c.rotary is not None:
            q_h, k_h = turn(q_h, positions, c.rotary.theta), turn(k_h, positions, c.rotary.theta)
        scores = np.einsum("btd,bsd->bts", q_h, k_h) / c.head_dim**0.5
        outs.append(np.einsum("bts,bsd->btd", softmax(np.where(seen, scores, -1e30)), v_h))
    return np.concatenate(outs, axis=-1)


def turn(x, positions, theta):
    """Rotary positions: pairs (i, i + dh/2) turned by position * theta^(-2i/dh)."""
    half = x.shape[-1] // 2
    angle = positions[..., None] * theta ** (-np.arange(half) / half)
    left, right = x[..., :half], x[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)
