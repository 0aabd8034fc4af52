"""The methods: one file each, under the contract of `contract.py`.

`TABLE` says which there are: the name of a method and the module that holds it as `METHOD`. Modules are
imported on demand, so that listing the methods stays quick. To add a method, add its file and its line here.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from moejax.survey import CARDS
from moejax.types import UserError

TABLE: dict[str, str] = {
    "adapterfusion": "moejax.methods.adapterfusion",
    "arrow": "moejax.methods.arrow",
    "average_activation": "moejax.methods.average_activation",
    "base": "moejax.methods.bare",
    "best_single": "moejax.methods.best_single",
    "calm": "moejax.methods.calm",
    "granularity": "moejax.methods.granularity",
    "lorahub": "moejax.methods.lorahub",
    "loraretriever": "moejax.methods.loraretriever",
    "meteora": "moejax.methods.meteora",
    "mole": "moejax.methods.mole",
    "multitask": "moejax.methods.multitask",
    "own_expert": "moejax.methods.own_expert",
    "phatgoose": "moejax.methods.phatgoose",
    "routellm": "moejax.methods.routellm",
    "task_arithmetic": "moejax.methods.task_arithmetic",
    "token_gate": "moejax.methods.token_gate",
    "uniform": "moejax.methods.uniform",
    "we_moe": "moejax.methods.we_moe",
}


def load(name: str) -> Any:
    """The `Method` of this name. Raises UserError for a name that the table lacks, with the nearest one."""
    if name not in TABLE:
        near = get_close_matches(name, TABLE, 1)
        if name in CARDS:
            why = f"method {name!r} is in the survey (section 3.{CARDS[name].number}) but not built here"
        else:
            why = f"there is no method {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
        raise UserError(f"{why}; the methods here are: {', '.join(sorted(TABLE)) or 'none yet'}")
    return import_module(TABLE[name]).METHOD
