"""The kernels lower for a TPU and for CUDA at the sizes of the benchmarks, forward and backward.

What this shows. For a TPU: the shapes of the blocks suit its tiles of 8 by 128, and every operation has a form in
Mosaic's dialect, whose verifier accepts it. For CUDA: the same of Triton's dialect, whose blocks must be powers of
two. What it does not: Mosaic's and Triton's own compilers do not run, so that layouts, and whether a block fits into
VMEM, shared memory or registers, are unseen; nothing runs on a device, and no number is computed.
"""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from moejax.aggregation import kernel, kernel_plan

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")  # by jax 0.11
PLATFORMS = {"tpu": ("tpu", "TPU v5 lite"), "cuda": ("gpu", "NVIDIA A100")}
CALLS = {"tpu": "@tpu_custom_call", "cuda": "gpu.triton"}
SIZES = (
    (1, 384, 8, 1, 8),
    (1, 4096, 256, 2, 16),
    (512, 1024, 8, 2, 16),
    (2048, 384, 256, 2, 8),
    (2048, 4096, 256, 1, 16),
    (100, 77, 5, 3, 3),  # nothing is a multiple of anything
)  # n, d = f, e, k, r


def mixed(backend, m, x, a, b, index, slot):
    """Of the kernels' output, a number to differentiate."""
    plan = kernel_plan.plan(index, a.shape[1], m)
    z = kernel.shrink(x, a, slot, plan, backend)
    return jnp.sum(kernel.expand(z, b, slot, plan, x.dtype, backend) ** 2, dtype=jnp.float32)


def lowered(what, platform, sizes, dtype, m=None):
    """The program's text, for a device that is not here."""
    (n, d, e, k, r), (backend, device) = sizes, PLATFORMS[platform]
    m = m or kernel_plan.rows(backend, n * k, e)
    bank, number = jax.ShapeDtypeStruct((3, e, r, d), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32)
    x, index = jax.ShapeDtypeStruct((n, d), dtype), jax.ShapeDtypeStruct((n, k), jnp.int32)
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=AbstractDevice(device, 1, backend))):
        traced = jax.jit(partial(what, backend, m)).trace(x, bank, bank, index, number)
        return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_lowers_forward_and_backward(platform, sizes, dtype):
    text = lowered(jax.grad(mixed, argnums=(2, 3, 4)), platform, sizes, dtype)
    assert text.count(CALLS[platform]) == 6  # both products, and two gradients of each


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_no_device_has_does_not_lower(platform):
    """Blocks of 12 rows run interpreted: only lowering says that they are wrong."""
    with pytest.raises(ValueError, match="divisible by 8" if platform == "tpu" else "power of 2"):
        lowered(mixed, platform, SIZES[2], jnp.float32, m=12)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_forward_builds_nothing_of_the_size_of_a_layers_bank(platform):
    n, d, e, k, r = sizes = SIZES[3]
    text = lowered(mixed, platform, sizes, jnp.float32)
    assert text.count(CALLS[platform]) == 2 and f"tensor<3x{e}x{r}x{d}xf32>" in text
    assert f"tensor<{e}x{r}x{d}x" not in text and f"x{e}x{r}x" not in text.replace(f"3x{e}x{r}x{d}", "")
