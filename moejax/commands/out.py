"""In which form a command writes an expert: an adapter for PEFT, made smaller if so asked, or a whole model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moejax.experts import files
from moejax.experts.compress import compress
from moejax.experts.expert import Expert, SiteKey
from moejax.experts.write_whole import write_whole
from moejax.models.base import Base
from moejax.types import UserError

TASK_TYPES = {"encoder": "FEATURE_EXTRACTION", "decoder": "CAUSAL_LM"}


@dataclass(frozen=True, kw_only=True)
class Smaller:
    """How much of an expert is kept."""

    rank: int = 0
    """At most this rank at each linear; 0: as much as it takes."""
    energy: float = 1.0
    """Share of each linear's squared singular values that is kept at least, as .99; `rank` goes before it."""


@dataclass(frozen=True, kw_only=True)
class Form(Smaller):
    """What is written."""

    full: bool = False
    """Write base and adapter as one whole model, for transformers, instead of an adapter."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers of a whole model's files; those of an adapter are float32."""
    shard: float = 5.0
    """GB of a whole model's weights in one file, at most."""


def check(form: Smaller, out: Path) -> None:
    """Raise UserError on a rank, energy or size that is none, and on a folder that is there."""
    if out.exists():
        raise UserError(f"{out} is there already: name a folder that is not")
    if form.rank < 0 or not 0 < form.energy <= 1:
        raise UserError(
            f"--rank is {form.rank} and --energy {form.energy:g}: expected a rank of at least 1 and a share up to 1"
        )
    if isinstance(form, Form) and not form.shard > 0:
        raise UserError(f"--shard is {form.shard:g}: expected GB above 0")


def said_of(error: float, worst: tuple[SiteKey, float]) -> str:
    """The error of an approximation, of the whole and where it is largest."""
    (path, layer), most = worst
    return f"relative error {error:.3g} (at most {most:.3g}, at {path}, layer {layer})"


def write_out(out: Path, expert: Expert, base: Base, form: Form) -> str:
    """Write an expert of LoRAs as the form says, and say how. Raises UserError as `check` and the writers do."""
    check(form, out)
    error = ""
    if form.rank or form.energy < 1:
        found = compress(expert, form.rank or None, form.energy)
        expert, error = found.expert, ", " + said_of(found.error, found.worst)
    ranks = sorted({len(one.a) for one in expert.loras.values()})
    ranked = f"rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "")
    if not form.full:
        files.write(
            out, expert, base.sites, fingerprint=base.fingerprint, base_name=base.folder,
            task_type=TASK_TYPES.get(base.kind),
        )  # fmt: skip
        return f"{out}: {len(expert.loras)} modules, {ranked}{error}"
    if base.homes.whole is None:
        raise UserError("the whole base is not at hand: name its folder with --base")
    source = Path(base.folder) if base.folder else None
    names = write_whole(out, expert, base.homes.whole, source, round(form.shard * 1e9), form.dtype)
    return (
        f"{out}: the base with {len(expert.loras)} modules changed, {form.dtype}, "
        f"{len(names)} file{'s' * (len(names) > 1)}{error}"
    )
