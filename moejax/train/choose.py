"""The choice between a strong and a weak member for each request, by one of three predictors of who is better."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax.adapted import Adapted
from moejax.places import evenly
from moejax.routing import preference, select
from moejax.train import judge
from moejax.types import Batch, PyTree, Weights


@dataclass(frozen=True)
class Choose:
    """The route: all weight on the strong or the weak member of each request; none of an expert's on the base."""

    predictor: str
    merged: bool
    model: Any

    def __call__(self, arrays: PyTree, batch: Batch) -> Weights:
        """Example weights [b, 1], or [b, e] where a member is the uniform merge."""
        chosen = self.chosen(arrays, batch)
        if not self.merged:
            return select.one_hot(chosen)
        own = select.dense(select.one_hot(chosen), arrays["bank"].alive.size)
        return Weights(jnp.where(chosen[:, None] == -2, evenly(arrays, batch).values[None], own))

    def chosen(self, arrays: PyTree, batch: Batch) -> Int[Array, "b"]:
        """The number of each request's member."""
        model, alpha = arrays["router"]["model"], arrays["router"]["knobs"]["threshold"]
        return jnp.where(self.wants(arrays, batch) >= alpha, model["strong"], model["weak"])

    def wants(self, arrays: PyTree, batch: Batch) -> Float[Array, "b"]:
        """P(strong beats weak)."""
        model = arrays["router"]["model"]
        if self.predictor == "bert":
            return preference.folded(judge.classified(Adapted(self.model), arrays, batch))
        rate = preference.factorised if self.predictor == "mf" else preference.ranked
        return rate(model, 1 + model["strong"], 1 + model["weak"], batch.query)


@dataclass(frozen=True)
class Beside:
    """Which requests the model beside the base answers."""

    choose: Choose

    def __call__(self, arrays: PyTree, batch: Batch) -> Bool[Array, "b"]:
        """Where member -3 is chosen."""
        return self.choose.chosen(arrays, batch) == -3
