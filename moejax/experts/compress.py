"""An expert of LoRAs made smaller: at every site the best of low rank, with the error that this makes."""

from math import hypot
from typing import NamedTuple

from moejax.experts import lora
from moejax.experts.expert import Expert, SiteKey


class Compressed(NamedTuple):
    """error: relative, in Frobenius norm, over all sites; worst: the site that is least well met, and its error."""

    expert: Expert
    error: float
    worst: tuple[SiteKey, float]


def compress(expert: Expert, rank: int | None = None, energy: float = 1.0) -> Compressed:
    """Each LoRA of at most `rank`, or of the least rank that keeps `energy` of its squared singular values."""
    made = {site: lora.compress(one, rank, energy) for site, one in expert.loras.items()}
    sizes = {site: lora.norm(one._replace(bias=None)) for site, one in expert.loras.items()}
    size = hypot(*sizes.values())
    lost = hypot(*(made[site][1] * sizes[site] for site in made))
    worst = max(made, key=lambda site: made[site][1])
    smaller = expert._replace(loras={site: one for site, (one, _) in made.items()})
    return Compressed(smaller, lost / size if size else 0.0, (worst, made[worst][1]))
