"""The survey's taxonomy: nine axes, and the card that describes one method by them.

Source: A Survey on Model MoErging (arXiv 2408.07057), section 2 and Figure 1. Each axis holds a set of values:
what the survey calls "Multiple" is a set of several, "N/A" is the empty set, and "None" is a value of its own
for the routing dataset (no router is trained) and for the aggregation (one expert answers alone).
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

ExpertTraining = Literal["Standard", "Custom"]
ExpertData = Literal["Private", "Shared"]
RoutingDataset = Literal["None", "Target", "Expert", "General"]
InputGranularity = Literal["Task", "Example", "Step"]
DepthGranularity = Literal["Module", "Model"]
ExpertSelection = Literal["Dense", "Sparse"]
ExpertAggregation = Literal["None", "Output", "Parameter"]
Generalization = Literal["In-Distribution", "Out-of-Distribution"]
UserDataset = Literal["Zero-Shot", "Few-Shot", "Full"]

AXES: dict[str, tuple[str, ...]] = {
    "expert_training": get_args(ExpertTraining),
    "expert_data": get_args(ExpertData),
    "routing_dataset": get_args(RoutingDataset),
    "input_granularity": get_args(InputGranularity),
    "depth_granularity": get_args(DepthGranularity),
    "expert_selection": get_args(ExpertSelection),
    "expert_aggregation": get_args(ExpertAggregation),
    "generalization": get_args(Generalization),
    "user_dataset": get_args(UserDataset),
}

SHORT = {"ID": "In-Distribution", "OOD": "Out-of-Distribution"}

FAMILIES = {
    "embedding": "compare embeddings of the experts' training sets with one of the query",
    "classifier": "train the router as a classifier on the experts' data or on unseen data",
    "target": "learn a routing distribution for one target task, on that task's data",
    "untrained": "do not train a router",
}

GRANTS = {
    "own": "the contributor's own rows, seen by the contributor alone",
    "expert_inputs": "inputs of the experts' training sets",
    "expert_labels": "inputs and labels of the experts' training sets",
    "general": "public rows that belong to no expert and to no target task",
    "target_inputs": "unlabelled training inputs of the target task",
    "target_labels": "labelled training rows of the target task",
    "test_task": "leak: the name of the task that a test row comes from",
    "test_inputs": "leak: unlabelled test rows",
    "test_labels": "leak: labels of test rows",
}

EXTRAS = {
    "gate": "a trained gate vector per adapted linear",
    "mean": "the mean embedding of the expert's training set",
    "activation": "the mean input of each adapted linear over the training set",
    "vectors": "embeddings of single training inputs",
    "samples": "training inputs as text",
    "fisher": "the diagonal Fisher information of the expert's parameters",
    "gram": "the Gram matrix of the inputs of each adapted linear",
    "prompt": "a soft prompt trained with the expert",
}

HOLDS = {
    "simplex": "weights are not negative and sum to one at a site that every expert adapts",
    "single": "a pool of one expert gives that expert's own output",
    "silent": "experts whose deltas are all zero give the base model's output",
    "equivariant": "fitting on reordered experts reorders the weights and changes nothing else",
}


@dataclass(frozen=True)
class Axes:
    """The nine axes of one method, each a set of values; the empty set says that the axis does not apply."""

    expert_training: frozenset[ExpertTraining] = frozenset()
    expert_data: frozenset[ExpertData] = frozenset()
    routing_dataset: frozenset[RoutingDataset] = frozenset()
    input_granularity: frozenset[InputGranularity] = frozenset()
    depth_granularity: frozenset[DepthGranularity] = frozenset()
    expert_selection: frozenset[ExpertSelection] = frozenset()
    expert_aggregation: frozenset[ExpertAggregation] = frozenset()
    generalization: frozenset[Generalization] = frozenset()
    user_dataset: frozenset[UserDataset] = frozenset()


def infobox(*cells: str) -> Axes:
    """The nine axes as an infobox of the survey lists them, in its order, in one string or a string per cell.

    `infobox("Standard Private None Step Module Sparse Output OOD Zero-Shot")`; "Private/Shared" (or
    "Private | Shared") is a set of two, "N/A" the empty set; ID and OOD are short for In- and
    Out-of-Distribution, as in Figure 1. Raises ValueError for a wrong number of cells or an unknown value.
    """
    words = " ".join(cells).replace(" | ", "/").split()
    if len(words) != len(AXES):
        raise ValueError(
            f"an infobox has {len(AXES)} cells ({', '.join(AXES)}), here are {len(words)}: {words}"
        )
    sets: dict[str, Any] = {
        axis: frozenset() if word == "N/A" else frozenset(SHORT.get(part, part) for part in word.split("/"))
        for axis, word in zip(AXES, words, strict=True)
    }
    for axis, values in sets.items():
        _known(axis, values, AXES[axis])
    return Axes(**sets)


@dataclass(frozen=True)
class Paper:
    """Where a method was published: authors by surname, the year and place of publication, the arXiv number."""

    authors: str
    year: int
    arxiv: str | None = None
    venue: str = ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, [self.venue, self.arxiv and f"arXiv {self.arxiv}"]))
        return f"{self.authors} {self.year}" + (f" ({where})" if where else "")


@dataclass(frozen=True)
class Card:
    """One method: its place in the survey's taxonomy, and what it needs under the method contract.

    key       name of the method here, e.g. "phatgoose"; title: its name in the survey
    number    n of the survey's section 3.n; None: not in the survey (a baseline)
    families  of section 3.30; the survey leaves four methods out, and names one twice
    remarks   where the method's own paper or code disagrees with the survey, one sentence each
    grants    what it may read, see GRANTS, in its default configuration
    shots     rows of the target task that it is fitted on; None: all there are. Under a `target_labels` grant
              None stands for the whole training set
    extras    what each expert's folder must hold beside the weights, see EXTRAS
    recipe    how experts must be trained; empty: any expert serves
    open      an expert may join or leave without a new fit
    holds     properties that are tested for this method and do not hold for all, see HOLDS

    Raises ValueError for a grant, extra, family or property that does not exist.
    """

    key: str
    title: str
    number: int | None = None
    paper: Paper | None = None
    axes: Axes = field(default_factory=Axes)
    families: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()
    grants: frozenset[str] = frozenset()
    shots: int | None = None
    extras: frozenset[str] = frozenset()
    recipe: str = ""
    open: bool = False
    holds: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        _known("families", self.families, FAMILIES)
        _known("grants", self.grants, GRANTS)
        _known("extras", self.extras, EXTRAS)
        _known("holds", self.holds, HOLDS)
        if self.shots is not None and (
            self.shots < 1 or not self.grants & {"target_inputs", "target_labels"}
        ):
            raise ValueError(f"card {self.key}: shots counts rows of a target grant, from 1 up")


def _known(what: str, values: frozenset[str], known: Any) -> None:
    for value in sorted(values - set(known)):
        raise ValueError(f"{what}: there is no {value!r}, only {', '.join(known)}")
