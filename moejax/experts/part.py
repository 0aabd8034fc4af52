"""What an expert has at one module, of whatever kind: a LoRA, a bottleneck adapter, or a difference to the base."""

from moejax.experts import bottleneck as bottleneck_
from moejax.experts import delta as delta_
from moejax.experts import lora as lora_
from moejax.experts.bottleneck import Bottleneck
from moejax.experts.delta import Delta
from moejax.experts.lora import Lora

Part = Lora | Bottleneck | Delta
KINDS: dict[str, type] = {"lora": Lora, "bottleneck": Bottleneck, "delta": Delta}
"""The kinds of experts, as `moejax.json` names them."""


def rank(part: Part) -> int:
    """r, the number of rows of both factors; of a difference, which has none, 0."""
    return 0 if isinstance(part, Delta) else part.a.shape[0]


def scale(part: Part) -> float:
    """What the update is multiplied by."""
    if isinstance(part, Delta):
        return 1.0
    return lora_.scale(part) if isinstance(part, Lora) else part.scale


def norm(part: Part) -> float:
    """Frobenius norm of the update: of the product of both factors, scaled, or of the difference."""
    if isinstance(part, Delta):
        return delta_.norm(part)
    return lora_.norm(part) if isinstance(part, Lora) else bottleneck_.norm(part)
