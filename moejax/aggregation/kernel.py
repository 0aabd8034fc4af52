"""Routed LoRA as matrix products grouped by expert, through the rank, in Pallas kernels for a TPU or a GPU.

Three products, closed under transposition: the gradients of `shrink` and `expand` are made of the other two. The
factors are read by (slot, expert) from the whole bank, in its own dtype; no other expert's are touched, and nothing
of the size of rows times experts is built. Products are taken in the dtype of x and added in float32; float32 is
multiplied as the backend multiplies by default (`jax.default_matmul_precision`).
"""

from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moejax.aggregation import kernel_gpu, kernel_tpu
from moejax.aggregation.kernel_plan import Plan

BACKENDS: dict[str, ModuleType] = {"tpu": kernel_tpu, "gpu": kernel_gpu}  # by jax.default_backend()


def shrink(
    x: Float[Array, "n d"],
    a: Float[Array, "s e r d"],
    slot: Int[Array, ""],
    plan: Plan,
    backend: str,
    interpret: Any = False,
) -> Float[Array, "n k r"]:
    """z[i, j] = A[slot, index[i, j]] x[i], in float32. Differentiable in x and a.

    backend "tpu" or "gpu": whose kernel; interpret: True runs it, slowly, on any backend (or Pallas' InterpretParams).
    """
    return _shrink(backend, interpret, x, a, jnp.maximum(slot, 0), plan)


def expand(
    z: Float[Array, "n k r"],
    b: Float[Array, "s e r f"],
    slot: Int[Array, ""],
    plan: Plan,
    dtype: jnp.dtype,
    backend: str,
    interpret: Any = False,
) -> Float[Array, "n f"]:
    """y[i] = sum_j z[i, j] B[slot, index[i, j]], in `dtype`. Differentiable in z and b."""
    return _expand(dtype, backend, interpret, z, b, jnp.maximum(slot, 0), plan)


def outer(
    z: Float[Array, "n k r"], x: Float[Array, "n d"], plan: Plan, backend: str, interpret: Any = False
) -> Float[Array, "e r d"]:
    """Of each expert, the sum over its pairs (i, j) of z[i, j] (x) x[i], in float32. Not differentiable."""
    return BACKENDS[backend].outer(z, x, plan, interpret)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _shrink(backend, interpret, x, a, slot, plan):
    return BACKENDS[backend].shrink(x, a, slot, plan, interpret)


def _shrink_forward(backend, interpret, x, a, slot, plan):
    return _shrink(backend, interpret, x, a, slot, plan), (x, a, slot, plan)


def _shrink_backward(backend, interpret, kept, dz):
    x, a, slot, plan = kept
    dx = BACKENDS[backend].expand(dz, a, slot, plan, x.dtype, interpret)
    return dx, _in_bank(outer(dz, x, plan, backend, interpret), a, slot), None, None


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _expand(dtype, backend, interpret, z, b, slot, plan):
    return BACKENDS[backend].expand(z, b, slot, plan, dtype, interpret)


def _expand_forward(dtype, backend, interpret, z, b, slot, plan):
    return _expand(dtype, backend, interpret, z, b, slot, plan), (z, b, slot, plan)


def _expand_backward(dtype, backend, interpret, kept, dy):
    z, b, slot, plan = kept
    dz = BACKENDS[backend].shrink(dy, b, slot, plan, interpret)
    return dz.astype(z.dtype), _in_bank(outer(z, dy, plan, backend, interpret), b, slot), None, None


def _in_bank(
    slope: Float[Array, "e r d"], bank: Float[Array, "s e r d"], slot: Int[Array, ""]
) -> Float[Array, "s e r d"]:
    """The gradient of one slot as one of the bank: zero elsewhere."""
    return jnp.zeros_like(bank).at[slot].set(slope.astype(bank.dtype))


_shrink.defvjp(_shrink_forward, _shrink_backward)
_expand.defvjp(_expand_forward, _expand_backward)
