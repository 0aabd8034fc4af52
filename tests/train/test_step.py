"""A training step is one program: its state is donated, its layers are scanned, and it never calls the host."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from moejax.adapted import Adapted
from moejax.models.weights import random_base
from moejax.places import LINEARS, Lora, own_expert
from moejax.train.experts import trainable
from moejax.train.optimiser import Optimiser
from moejax.train.step import begin, train_step

OPTIMISER = Optimiser(1e-2, 4)


def case(kind, layers=2):
    """What a step of two experts that train together is given."""
    base = replace(random_base(replace(tiny.CONFIGS[kind], layers=layers)), labels=tiny.base(kind).labels)
    base = replace(base, embedder=tiny.Embedder())
    bank = tiny.pool(base, "ann", "bob").bank
    arrays = {"params": base.params, "bank": bank, "router": {}, "labels": base.labels}
    batch = tiny.as_batch(tiny.rows(base, 6))._replace(expert=np.arange(6, dtype=np.int32) % 2)
    adapted = Adapted(base.model, ((LINEARS, Lora("output")),), route=own_expert)
    state = begin(jax.tree.map(jnp.array, trainable(bank)), OPTIMISER, True)
    return (state, arrays, batch, None), {"adapted": adapted, "optimiser": OPTIMISER, "together": True}


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_state_is_donated_and_all_of_it_used(kind):
    (state, arrays, *rest), options = case(kind)
    train_step.clear_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Some donated buffers were not usable"
        program = train_step.lower(state, arrays, *rest, **options).compile()
        after, _ = train_step(state, arrays, *rest, **options)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((arrays, after)))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(after))
    assert program.memory_analysis().alias_size_in_bytes == size
    with pytest.raises((RuntimeError, ValueError), match="deleted|donated"):
        train_step(state, arrays, *rest, **options)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_layers_are_scanned_and_the_host_is_never_called(kind):
    texts = []
    for layers in (3, 6):  # some of which nobody adapts
        given, options = case(kind, layers)
        texts.append(train_step.lower(*given, **options).as_text())
    assert "stablehlo.while" in texts[0]
    lines = [text.count("\n") for text in texts]
    assert lines[0] == lines[1]  # twice the layers, not a line more
    assert not any(word in text for text in texts for word in ("callback", "infeed", "outfeed", "send"))
