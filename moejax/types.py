"""Words that every floor shares: array aliases, the dimension alphabet, the batch and the weights.

b batch, t tokens, d in, f out, r rank, e experts, k chosen, l layers, s slots, c choices, v vocabulary, n rows.
"""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

PRNGKey = jax.Array
PyTree = Any


class UserError(Exception):
    """Bad input: one sentence that names the file, key or flag, what was expected, and what to do."""


class AccessDenied(Exception):
    """A method asked for data or extras that its card does not grant."""


class NotApplicable(UserError):
    """A method cannot be used with this pool: one sentence that names what is missing."""


class Weights(NamedTuple):
    """How much of each expert to use; the rank says the granularity: task, example or step.

    `index` None: `values` is dense over the experts, `[e]`, `[b, e]` or `[b, t, e]`, zero off the selection.
    Otherwise `values` and `index` are `[..., k]`: the k chosen experts and their weights.
    """

    values: Float[Array, "..."]
    index: Int[Array, "..."] | None = None


class Batch(NamedTuple):
    """One batch of requests, arrays only, on the host or on a device. Fields that a base does not need are None.

    tokens  Int[b, t]      padded token ids (negative: a slot of a soft prompt)
    mask    Bool[b, t]     True at real tokens, padding left or right
    prompt  Bool[b, t]     request tokens: what a pooled statistic may see (never the answer, never padding)
    pool    Bool[b, t]     encoder: tokens whose states are averaged into the sentence vector
    targets Int[b]         encoder: position of the right label within `choices`; -1 unknown
            Int[b, t]      decoder: the token that follows each position
            Int[b, u]      seq2seq: the tokens of the answer, padded on the right
    answer  Bool[b, t]     decoder: positions whose `targets` are scored; seq2seq: Bool[b, u], those of the answer
    choices Int[b, c]      encoder: rows of `arrays["labels"]`; -1 pads
    query   Float[b, q]    the request's sentence vector
    expert  Int[b]         the row's own expert: only under an expert grant or the task oracle
    prefix  Float[b, t, d] cached activations that enter the lowest layer whose parameters are given
    weight  Float[b]       1 for a real row, 0 for a row that only fills the batch
    """

    tokens: Any
    mask: Any
    prompt: Any
    pool: Any = None
    targets: Any = None
    answer: Any = None
    choices: Any = None
    query: Any = None
    expert: Any = None
    prefix: Any = None
    weight: Any = None
