"""What a run is: frozen records, whose field docstrings are the help of the command line."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from tyro.conf import arg

from moejax.aggregation.rule import Formulation
from moejax.data.generated import SuiteConfig
from moejax.data.rules import RulesConfig
from moejax.data.tfds_sets import Fields
from moejax.method_row import MethodRow, parse_row
from moejax.models.quantised import Bits
from moejax.models.remat import Remat
from moejax.parallel.mesh import MeshConfig
from moejax.train.bottlenecks import BottleneckRecipe
from moejax.train.experts import Recipe
from moejax.train.fulls import FullRecipe
from moejax.train.scratch import ScratchRecipe
from moejax.types import UserError

TRAINED = "trained"  # a base that the run makes itself
MADE = ("generated", "rules")  # sources whose tasks are made on the spot
FREE = (
    "run",
    "seeds",
    "methods",
    "pool_slots",
    "accept_code",
    "settled_on",
    "checkpoint",
    "base.formulation",
    "mesh.data",
    "mesh.expert",
    "mesh.model",
    "evaluation.batch",
    "evaluation.samples",
)
"""Fields that may change from one command to the next in one run folder; a router is keyed by its own row."""


@dataclass(frozen=True)
class BaseConfig:
    """The base model."""

    source: Annotated[str, arg(aliases=["--base"])] = "minilm"
    """An encoder or a decoder: a folder as Hugging Face lays it out, a name on its hub, `minilm`, the installed
    MiniLM-L6, or `trained`: a decoder that the run trains from nothing on its public tasks."""
    beside: Annotated[str, arg(aliases=["--beside"])] = ""
    """A second whole model over the same token ids, of any shape, for methods that work with two; empty: none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Numbers in which the model computes; routing, losses, and all that is trained stay float32."""
    quantise: Bits | None = None
    """Hold the kernels of a frozen base as integers of so many bits, with a scale a column (needs qwix)."""
    remat: Remat = False
    """What a block computes again in the backward pass: `full` (True) all of it, for a third more time, `dots` all but
    its products with weights, `none` (False) nothing."""
    formulation: Annotated[Formulation | None, arg(aliases=["--formulation"])] = None
    """How the experts of each token are reached, for study; None: the quickest way. The numbers are the same."""
    allow_mismatch: Annotated[bool, arg(aliases=["--allow-base-mismatch"])] = False
    """Take experts although they say that they were trained on another base."""
    recipe: ScratchRecipe = ScratchRecipe()
    """The base that the run trains, for `trained`."""
    ignore_saved_modules: Annotated[bool, arg(aliases=["--ignore-saved-modules"])] = False
    """Take the LoRAs of experts that hold whole trained modules too (`modules_to_save`), without those modules."""


@dataclass(frozen=True)
class DataConfig:
    """Tasks: held-in ones, an expert for each, and held-out ones, which have none."""

    source: Annotated[str, arg(aliases=["--data"])] = "generated"
    """`generated`: the suite; `rules`: lookup rules; `folder`: the tasks in data.folder (--data-dir implies it);
    `tfds:NAME`: a prepared TFDS set; `hub:NAME+…`: published sets in data.folder, by their own columns."""
    folder: Annotated[str | None, arg(aliases=["--data-dir"])] = None
    """Folder of tasks in JSONL, of prepared TFDS sets, or of published sets, each in a folder of its name."""
    held_in: tuple[str, ...] = ()
    """Names of the held-in tasks; none: the suite's own, or those that have an expert in `pool`."""
    held_out: tuple[str, ...] = ()
    """Names of the held-out tasks; none: the suite's own, or with `pool` all others of the folder."""
    general: tuple[str, ...] = ()
    """Names of public tasks, whose rows belong to no expert and to no held-out task; for `generated` see
    data.suite.public, for `rules` data.rules.public."""
    window: int = 64
    """Tokens of a text and its instruction; what is longer is cut, the instruction never."""
    train_rows: int | None = None
    """At most so many training rows of a task; None: all."""
    validation_rows: int | None = None
    """At most so many validation rows of a task; None: all."""
    test_rows: int | None = None
    """At most so many test rows of a task; None: all."""
    suite: SuiteConfig = SuiteConfig()
    """The generated suite, for `generated`."""
    rules: RulesConfig = RulesConfig()
    """The lookup rules, for `rules`."""
    fields: Fields = Fields()
    """How a TFDS set that is not moejax's own becomes a task, for `tfds:NAME`."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How methods are compared."""

    split: Literal["test", "validation"] = "test"
    """Rows that are scored: `validation` to settle a configuration without a look at the test rows."""
    shots: int = 16
    """Labelled rows of a target task that a few-shot method gets."""
    samples: int = 1000
    """Resamplings of the paired bootstrap."""
    batch: int = 64
    """Rows of a batch in evaluation; of a decoder that chooses, texts with one of their options each."""
    max_new: int = 32
    """Tokens that a decoder may write as an answer of free text."""
    stop: tuple[str, ...] = ()
    """Texts at which such an answer is cut off, beside its end token."""


@dataclass(frozen=True)
class CheckpointConfig:
    """How much work a killed run may lose."""

    every: float = 60.0
    """Seconds between saves within a stage."""


@dataclass(frozen=True)
class Config:
    """One run: from text to a table of compared methods."""

    run: str = ""
    """The run's folder; empty: runs/ and the name of the configuration file."""
    seed: int = 0
    """Everything random follows from it and from names."""
    seeds: tuple[int, ...] = ()
    """Several runs, one a seed, in run/seed-N, and their mean in one table; none: the one seed."""
    base: BaseConfig = BaseConfig()
    embedder: str = ""
    """Encoder of the sentence vectors that some routers compare: a folder, a name on the hub, or `minilm`; empty: the
    base itself."""
    data: DataConfig = DataConfig()
    experts: Recipe = Recipe()
    bottlenecks: BottleneckRecipe = BottleneckRecipe()
    fulls: FullRecipe = FullRecipe()
    pool: Annotated[str | None, arg(aliases=["--experts"])] = None
    """Folder of experts to compare methods on, instead of training some; it is read and never written to."""
    pool_slots: int | None = None
    """Experts of `pool` that are in memory at once, the others stay on disk: for pools larger than memory, and methods
    that choose a few experts for each request or task. None: all."""
    methods: tuple[str, ...] = ("base", "uniform")
    """Rows of the table: `phatgoose`, `arrow(factor)`, `arrow(factor, k=2)`; options are the method's own."""
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()
    settled_on: str = ""
    """Rows on which the settings of this configuration were chosen; a note for results.json."""
    accept_code: bool = False
    """Go on in a folder that other code made."""


def rows(config: Config) -> tuple[MethodRow, ...]:
    """The rows of the table, parsed. Raises UserError for a wrong one, none, or one that is named twice."""
    if not config.methods:
        raise UserError("methods is empty: name at least one, as in --methods uniform phatgoose")
    if twice := first_twice(config.methods):
        raise UserError(f"method {twice!r} is in methods twice: name it once")
    return tuple(parse_row(text) for text in config.methods)


def by_seed(config: Config) -> tuple[Config, ...]:
    """One config for each of `seeds`, in a run folder of its own; the config itself when there are none."""
    if not config.seeds:
        return (config,)
    return tuple(
        replace(config, seed=seed, seeds=(), run=f"{config.run}/seed-{seed}") for seed in config.seeds
    )


def plain(config: Config) -> dict[str, Any]:
    """The config as nested dicts of plain values, as config.json holds it; without a `pool`, no word of it."""
    found = asdict(config)
    return found if config.pool is not None else {name: found[name] for name in found if name != "pool"}


def first_twice(values: tuple[Any, ...]) -> Any:
    """The first value that is there twice; None: there is none."""
    return next((value for place, value in enumerate(values) if value in values[:place]), None)
