"""What was found while loading an expert, and how it stands against its pool."""

from collections.abc import Sequence
from math import isfinite, nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

OUTLIER = 10.0  # times the pool's median norm, or a tenth of it
FEWEST = 3  # experts below which a median says nothing


class LoadReport(NamedTuple):
    """One expert as loaded, by Hugging Face module names.

    matched: modules with weights. unmatched: modules of the base that the config targets, without weights.
    zero: tensors that make their module's delta zero. scale: effective scale by module. norm: Frobenius norm
    of the whole delta. median: the pool's, once compared. warnings: sentences for the user. file: of the weights.
    kind: of the expert where it is no adapter. hash: of its content, `verified` against the one that it recorded.
    The norm of a checkpoint is NaN where no base was at hand.
    """

    name: str
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    zero: tuple[str, ...]
    scale: dict[str, float]
    norm: float
    median: float | None = None
    warnings: tuple[str, ...] = ()
    file: Path = Path()
    kind: str = ""
    hash: str = ""
    verified: bool = False


def compare(reports: Sequence[LoadReport], hashes: Sequence[str]) -> tuple[LoadReport, ...]:
    """The reports with the pool's median norm, and warnings on outliers and on content that comes twice."""
    norms = [report.norm for report in reports if isfinite(report.norm)]
    middle = median(norms) if norms else nan
    first: dict[str, str] = {}
    compared = []
    for report, digest in zip(reports, hashes, strict=True):
        more = []
        ratio = report.norm / middle if middle else 1.0
        if len(norms) >= FEWEST and isfinite(ratio) and not 1 / OUTLIER <= ratio <= OUTLIER:
            more.append(f"expert {report.name!r} has {ratio:.3g} times the pool's median norm")
        twin = first.setdefault(digest, report.name)
        if twin != report.name:
            more.append(f"experts {twin!r} and {report.name!r} hold the same weights")
        compared.append(report._replace(median=middle, warnings=report.warnings + tuple(more)))
    return tuple(compared)


def line(report: LoadReport) -> str:
    """One line for a terminal."""
    scales = sorted(set(report.scale.values()))
    text = f"{report.name}: " + (f"{report.kind}, " if report.kind else "") + f"{len(report.matched)} modules"
    if not report.kind:
        text += f", scale {'..'.join(f'{s:.4g}' for s in _ends(scales))}"
    if isfinite(report.norm):
        text += f", norm {report.norm:.4g}"
        if report.median is not None:
            text += f" (pool's median {report.median:.4g})"
    if report.hash and not report.verified:
        kind, _, digits = report.hash.partition(":")
        text += f", {kind}:{digits[:12]} unverified"
    counts = ((report.unmatched, "targeted without weights"), (report.zero, "zero tensors"))
    return text + "".join(f", {len(some)} {what}" for some, what in counts if some)


def _ends(values: Sequence[float]) -> Sequence[float]:
    return values if len(values) < 3 else (values[0], values[-1])
