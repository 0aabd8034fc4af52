"""What lies where: an ordered list of (pattern over the path, PartitionSpec); the first that matches wins."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moejax.parallel.mesh import ROWS, split
from moejax.types import PyTree

Rules = Sequence[tuple[str, P]]

_BASE: Rules = (  # kernels are [l, d, f]
    (r"layers/(.*/)?(o|down)/kernel(/\w+)?$", P(None, "model", "data")),
    (r"layers/(.*/)?\w+/kernel(/\w+)?$", P(None, "data", "model")),
    (r"layers/(.*/)?(q|k|v|qkv|up|gate|gate_up)/bias$", P(None, "model")),
    (r"embed/embedding$", P(("model", "data"))),  # [v, d]: rows are looked up, so they stay whole
    (r"lm_head/kernel(/\w+)?$", P("data", "model")),
)
RULES: Rules = (
    *((rf"(^|/)params/(.*/)?(\w+_)?{pattern}", spec) for pattern, spec in _BASE),
    (r"(^|/)bank/.*/(a|b|w|bias|a_bias|b_bias)$", P(None, "expert")),  # leaves of a stack, [s, e, …]
)
"""Of all families, whose layers have the same names, and of an optimiser's moments, whose paths end as theirs do.

Heads and hidden units lie over `model`; what is large over `data` too, as FSDP does, and is gathered where it is
used; experts over `expert`; all else on every device.
"""
APART: Rules = ((r"(^|/)bank/", P("expert")), *RULES)
"""Of moments of experts that are trained together, [e, s, …]."""


class Line(NamedTuple):
    """Where the leaves of one group lie, and what they take."""

    group: str
    spec: str
    bytes: int
    each: int


def spec_of(path: str, shape: tuple[int, ...], rules: Rules, mesh: Mesh | AbstractMesh) -> P:
    """The first rule's, without axes that have one device or do not divide the dimension."""
    spec = next((spec for pattern, spec in rules if re.search(pattern, path)), P())
    kept = []
    for size, axes in zip(shape, spec, strict=False):
        some = (axes,) if isinstance(axes, str) else axes or ()
        many = [axis for axis in some if mesh.shape[axis] > 1]
        fits = many and size % devices(many, mesh) == 0
        kept.append((tuple(many) if len(many) > 1 else many[0]) if fits else None)
    while kept and kept[-1] is None:
        kept.pop()
    return P(*kept)


def devices(axes: Sequence[str], mesh: Mesh | AbstractMesh) -> int:
    """How many devices these axes have together."""
    return math.prod(mesh.shape[axis] for axis in axes)


def named(path: Sequence[Any]) -> str:
    """A key path in words: params/layers/attn/q/kernel."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def shardings(tree: PyTree, rules: Rules, mesh: Mesh | AbstractMesh, at: str = "") -> PyTree:
    """A NamedSharding for every leaf; `at` stands before its path. Leaves may be shapes."""
    return jax.tree.map_with_path(
        lambda path, leaf: NamedSharding(mesh, spec_of(at + named(path), leaf.shape, rules, mesh)), tree
    )


def where(path: str, shape: tuple[int, ...]) -> NamedSharding | None:
    """Where a leaf of this path lies on the mesh that is set; None where none is."""
    mesh = _there()
    return None if mesh is None else NamedSharding(mesh, spec_of(path, shape, RULES, mesh))


def of_base(path: str, shape: tuple[int, ...]) -> NamedSharding | None:
    """`where` of a parameter of the base, by its own path."""
    return where(f"params/{path}", shape)


def placed(tree: PyTree, at: str = "", rules: Rules = RULES) -> PyTree:
    """The tree on the mesh that is set, every leaf where its rule says; where none is set, as it is."""
    mesh = _there()
    return tree if mesh is None else jax.tree.map(jax.device_put, tree, shardings(tree, rules, mesh, at))


def _there() -> Mesh | None:
    """The mesh that is set, if one is; within a transformation it may not be asked for its devices."""
    return None if jax.sharding.get_abstract_mesh().empty else jax.sharding.get_mesh()


def kept(tree: PyTree, at: str = "", rules: Rules = RULES) -> PyTree:
    """Within a program: what `placed` does, so that results lie where arguments did and nothing compiles twice."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings(tree, rules, mesh, at))


def by_rows(tree: PyTree) -> PyTree:
    """Within a program: leaves [b, …] split by their rows over the mesh that is set, where these divide evenly."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    return jax.tree.map(
        lambda leaf: (
            jax.lax.with_sharding_constraint(leaf, P(ROWS)) if leaf.shape[0] % split(mesh) == 0 else leaf
        ),
        tree,
    )


def plan(tree: PyTree, mesh: Mesh | AbstractMesh, rules: Rules = RULES) -> list[Line]:
    """Of each group of leaves its sharding, bytes in all, and bytes on each device; leaves may be shapes."""
    found: dict[tuple[str, str], list[int]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = named(path)
        spec = spec_of(name, leaf.shape, rules, mesh)
        bits = 4 if leaf.dtype == "int4" else 8 * leaf.dtype.itemsize  # two of int4 lie in a byte
        size = math.prod(leaf.shape) * bits // 8
        parts = math.prod(devices((axes,) if isinstance(axes, str) else axes or (), mesh) for axes in spec)
        group = re.sub(r"/[^/]+$", "", name)
        entry = found.setdefault((group, str(tuple(spec))), [0, 0])
        entry[0], entry[1] = entry[0] + size, entry[1] + size // parts
    return [Line(group, spec, whole, each) for (group, spec), (whole, each) in found.items()]
