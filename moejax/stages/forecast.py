"""What a run will take on devices, here or not: shapes alone, nothing is allocated.

Parameters, experts and routers are counted leaf by leaf, where the sharding rules put them. Activations are estimated:
what is kept of every layer, one block at work, attention's weights, and the logits in float32.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType

from moejax.config import Config, rows
from moejax.experts.bank import Bank
from moejax.experts.stacks import Stack
from moejax.method_row import MethodRow, short
from moejax.methods import load
from moejax.models import minilm
from moejax.models.base import Base
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.published import BASES, shape
from moejax.models.quantised import Bits, quantised
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.models.settings import settings
from moejax.models.weights import make_model
from moejax.parallel.mesh import AXES, split
from moejax.parallel.rules import Line, plan
from moejax.types import NotApplicable, PyTree, UserError

Shape = EncoderConfig | DecoderConfig | Seq2SeqConfig
FLOAT = 4  # bytes of float32: factors, gradients, moments, logits


class Stage(NamedTuple):
    """A stage of a run: rows in one of its steps, and bytes on one device."""

    name: str
    rows: int
    base: int
    bank: int
    router: int
    state: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.base + self.bank + self.router + self.state + self.activations


def mesh_of(data: int, expert: int, model: int) -> AbstractMesh:
    """A mesh of these sizes, without devices."""
    return AbstractMesh((data, expert, model), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def arrays_of(config: Config, experts: int) -> dict[str, PyTree]:
    """Shapes of the base's parameters, of a bank of so many experts, and of one vector an expert at every linear."""
    settings = base_of(config)
    params, sites, places = _params(settings, config.base.quantise), {}, {}
    for path in config.experts.targets:
        layers, d, f = _at(params, path)["kernel"].shape
        s = layers if config.experts.layers is None else len(config.experts.layers)
        r, lead = config.experts.rank, (s, experts)
        sites[path] = Stack(
            _leaf(*lead, r, d), _leaf(*lead, r, f), _leaf(*lead), _leaf(*lead, dtype=bool),
            _leaf(settings.layers, dtype=np.int32),
        )  # fmt: skip
        places[path] = {"gate": _leaf(*lead, d)}
    return {
        "params": params,
        "bank": Bank(sites, _leaf(experts, dtype=bool)),
        "router": {"places": places},
    }


@lru_cache(maxsize=8)
def _params(settings: Shape, bits: Bits | None) -> PyTree:
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    model = make_model(settings)
    found = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, x == 0)["params"], tokens)

    def held(path: Any, leaf: Any) -> Any:
        linear = path[0].key.endswith("layers") and path[-1].key == "kernel"
        return jax.eval_shape(partial(quantised, bits=bits), leaf) if bits and linear else leaf

    return jax.tree.map_with_path(held, found)


def base_of(config: Config) -> Shape:
    """The settings of the run's base. Raises UserError where its shape is not known before it is there."""
    source, dtype = config.base.source, config.base.dtype
    if source == "minilm" or Path(source).is_dir():
        found = settings(minilm.installed() if source == "minilm" else source, dtype)
    elif source in BASES:
        found = shape(source, dtype)
    else:
        raise UserError(
            f"base.source is {source!r}, whose shape is not known here: expected minilm, a folder, {', '.join(BASES)}"
        )
    return replace(found, remat=config.base.remat)


def experts_of(config: Config) -> int:
    """How many experts the run trains. Raises UserError for a pool, whose shapes are those of its files."""
    if config.pool is not None:
        raise UserError("a plan is of experts that the run trains: leave --experts out")
    if config.data.source == "generated":
        return len(config.data.suite.kinds)
    return config.data.rules.rules if config.data.source == "rules" else len(config.data.held_in)


def _leaf(*size: int, dtype: Any = np.float32) -> Any:
    return jax.ShapeDtypeStruct(size, dtype)


def _at(tree: PyTree, path: str) -> Any:
    for name in path.split("/"):
        tree = tree[name]
    return tree


def lines(config: Config, mesh: AbstractMesh) -> list[Line]:
    """Where the leaves of each group lie: base, experts, router."""
    return _plan(config, experts_of(config), mesh)


def _plan(config: Config, experts: int, mesh: AbstractMesh) -> list[Line]:
    held = -(-experts // mesh.shape["expert"]) * mesh.shape["expert"]  # slots that divide among the devices
    return plan(arrays_of(config, held), mesh)


def stages(config: Config, mesh: AbstractMesh) -> list[Stage]:
    """The stages of a run, on one device each.

    State: what is trained, its gradients and both of AdamW's moments, which lie as the experts do; of gates, the router
    four times.
    """
    count = experts_of(config)
    whole, alone = (_sizes(_plan(config, experts, mesh)) for experts in (count, 1))
    shared = {"base": whole["params"], "bank": whole["bank"], "router": whole["router"]}
    lone = {"base": alone["params"], "bank": alone["bank"], "router": 0}
    working = partial(_working, config, mesh)
    each = config.experts.batch
    made = [
        Stage(
            "experts, all at once",
            count * each,
            **shared,
            state=4 * whole["bank"],
            activations=working(count * each),
        ),
        Stage("one expert alone", each, **lone, state=4 * alone["bank"], activations=working(each)),
    ]
    most = 1
    for row in rows(config):
        method, name = load(row.name), short(row.label, config.methods)
        copies, batch = _copies(config, row, count), getattr(row.config, "batch", None)
        most = max(most, copies)
        if not copies or batch is None or not getattr(row.config, "steps", None):
            continue
        number = batch * (count if method.contribute is not None else 1)
        state = 4 * (whole["router"] + whole["bank"] * getattr(row.config, "train_loras", False))
        made.append(Stage(name, number, **shared, state=state, activations=working(number * copies)))
    number = config.evaluation.batch
    return [
        *made,
        Stage("evaluation", number, **shared, state=0, activations=working(number * most, training=False)),
    ]


def _copies(config: Config, row: MethodRow, experts: int) -> int:
    """Rows that run through the base for each row of a batch; 0 where the method does not fit the base."""
    base = Base(make_model(base_of(config)), {}, "", {}, {})
    try:
        adapted = load(row.name).adapt(row.config, base)
    except NotApplicable:
        return 0
    return adapted.copies + adapted.each * experts


def _working(config: Config, mesh: AbstractMesh, number: int, training: bool = True) -> int:
    each = -(-number // split(mesh))
    return activations(base_of(config), each, config.data.window, config.evaluation.max_new, training)


def _sizes(found: Sequence[Line]) -> dict[str, int]:
    """Bytes on a device of base, bank and router."""
    names = ("params", "bank", "router")
    return {name: sum(line.each for line in found if line.group.split("/")[0] == name) for name in names}


def activations(base: Shape, rows: int, window: int, answer: int, training: bool) -> int:
    """Bytes that a step of so many rows on one device takes beside its arguments, estimated.

    window: tokens of a text; answer: tokens that the decoder of a seq2seq is fed.
    """
    block, c = base.block, jnp.dtype(base.dtype).itemsize
    heads = block.heads * block.head_dim
    inner = (
        3 * block.width + 2 * heads + 2 * block.kv_heads * block.head_dim + (2 + block.gated) * block.hidden
    )
    sides = [(base.layers, window, window)]
    if isinstance(base, Seq2SeqConfig):
        sides = [(base.encoder_layers, window, window), (base.decoder_layers, answer, answer + window)]
    kept, work = 0, []
    for layers, new, seen in sides:
        one = rows * (new * inner * c + 2 * block.heads * new * seen * FLOAT)
        work.append(one)
        if training:
            kept += layers * (rows * new * base.width * c if base.remat else one)
    head = 0 if isinstance(base, EncoderConfig) else rows * sides[-1][1] * base.vocab * FLOAT
    return kept + max(max(work) * (2 if training else 1), (2 if training else 1) * head)


def host(config: Config) -> int | None:
    """Bytes of all rows as one array in the memory of each host, at most; None where the config does not limit them."""
    data = config.data
    if None in (limits := (data.train_rows, data.validation_rows, data.test_rows)):
        return None
    rows = sum(limit or 0 for limit in limits) * (experts_of(config) + len(data.held_out))
    return rows * data.window * 11  # tokens and targets of 4 bytes, three masks
