"""What an expert has at one site, of whatever kind: a LoRA at a linear, a bottleneck adapter at a sub-layer."""

from moejax.experts import bottleneck as bottleneck_
from moejax.experts import lora as lora_
from moejax.experts.bottleneck import Bottleneck
from moejax.experts.lora import Lora

Part = Lora | Bottleneck
KINDS: dict[str, type] = {"lora": Lora, "bottleneck": Bottleneck}
"""The kinds of experts, as `moejax.json` names them."""


def rank(part: Part) -> int:
    """r, the number of rows of both factors."""
    return part.a.shape[0]


def scale(part: Part) -> float:
    """What the update is multiplied by."""
    return lora_.scale(part) if isinstance(part, Lora) else part.scale


def norm(part: Part) -> float:
    """Frobenius norm of the product of both factors, scaled."""
    return lora_.norm(part) if isinstance(part, Lora) else bottleneck_.norm(part)
