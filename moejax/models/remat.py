"""What a block computes again in the backward pass, instead of keeping it from the forward."""

from typing import Literal

import flax.linen as nn
import jax

Remat = bool | Literal["none", "full", "dots"]
POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def rematerialised(block: type[nn.Module], remat: Remat) -> type[nn.Module]:
    """The block, its activations kept by a policy of `jax.checkpoint`.

    none (False)  all are kept
    full (True)   none but what enters the block: least memory, a third more time
    dots          the products with weights, which are dear; attention, norms and non-linearities are computed again
    """
    if remat in (False, "none"):
        return block
    policy = POLICIES["full" if remat is True else remat]
    return nn.remat(block, prevent_cse=False, policy=policy)
