"""A frozen base in eight or four bits: integers and a scale a column, made and multiplied by qwix.

W[i, j] = q[i, j] s[j] of each layer, q = round(W / s), s[j] = max_i |W[i, j]| / 127 (int4: / 7). The kernels of the
linears in the layers alone; embeddings, norms, biases and the head stay as they are, and so do experts and routers.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from moejax.types import UserError

Bits = Literal["int8", "int4"]


def quantised(kernel: jax.Array, bits: Bits) -> Any:
    """A stack of kernels [l, in, out] as qwix's QArray, which has its shape; differentiable in what it multiplies.

    Raises UserError without qwix.
    """
    if not find_spec("qwix"):
        raise UserError(f"base.quantise is {bits}, which needs qwix: pip install qwix")
    exact = kernel.astype(jnp.float32)  # in bfloat16, W / s would be rounded twice
    return _qwix().quantize(exact, jnp.dtype(bits), channelwise_axes=(0, 2))


def is_quantised(leaf: Any) -> bool:
    """Whether a parameter is integers with a scale."""
    return hasattr(leaf, "qvalue")


def plain(leaf: Any) -> Any:
    """A parameter as an array: q s of one that is quantised."""
    return _qwix().dequantize(leaf) if is_quantised(leaf) else leaf


def product(x: jax.Array, kernel: Any, dimensions: Any, **options: Any) -> jax.Array:
    """`lax.dot_general`, of a quantised kernel too: XLA multiplies by the scale where it reads it."""
    of = _qwix().dot_general if is_quantised(kernel) else jax.lax.dot_general
    return of(x, kernel, dimensions, **options)


def promoted(*given: Any, dtype: Any = None, inexact: bool = True) -> list[Any]:
    """Flax's promotion of input, kernel and bias to the dtype of a linear; of a quantised kernel it is the scale's."""
    x, kernel, bias = given
    if not is_quantised(kernel):
        return promote_dtype(x, kernel, bias, dtype=dtype, inexact=inexact)
    x, bias = promote_dtype(x, bias, dtype=dtype, inexact=inexact)
    return [x, kernel.astype(dtype), bias]


def _qwix() -> Any:
    return import_module("qwix")  # it takes a second, and few have it
