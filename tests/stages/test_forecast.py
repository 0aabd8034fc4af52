"""The forecast: bytes are those of real leaves, and activations are near what XLA asks for."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_folder

from moejax.adapted import Adapted
from moejax.config import BaseConfig, Config, DataConfig, EvaluationConfig
from moejax.experts.bank import stack
from moejax.models import published, weights
from moejax.models.weights import random_base
from moejax.parallel.mesh import AXES
from moejax.places import LINEARS, Lora, own_expert
from moejax.stages import forecast
from moejax.stages.forecast import activations, arrays_of, lines, mesh_of, stages
from moejax.train.experts import Recipe, fresh, sites_of, trainable
from moejax.train.optimiser import Optimiser
from moejax.train.step import begin, train_step
from moejax.types import Batch

LLAMA, T5 = "meta-llama/Llama-2-13b-hf", "google/t5-xl-lm-adapt"
TARGETS = ("layers/attn/q", "layers/mlp/down")


def config(base=LLAMA, **changes):
    """Three experts of two linears."""
    made = Config(
        base=BaseConfig(source=base, dtype="bfloat16", remat=True),
        data=DataConfig(source="hub:meteora", held_in=("a", "b", "c"), window=64),
        experts=Recipe(rank=4, targets=TARGETS, batch=2, optimiser=Optimiser(1e-3, 4)),
        methods=("base", "phatgoose(steps=2, batch=4)", "meteora(steps=2, batch=6)"),
        evaluation=EvaluationConfig(batch=8),
    )
    return replace(made, **changes)


@pytest.fixture
def small(monkeypatch):
    """The published base, small, as the forecast and as arrays."""
    made = published.small(LLAMA, 48)
    monkeypatch.setattr(forecast, "shape", lambda name, dtype: replace(made, dtype=dtype))
    return random_base(replace(made, dtype="bfloat16"))


def test_bytes_are_those_of_the_real_arrays(small):
    experts = [
        fresh(small.shapes, name, sites_of(config().experts, 2), config().experts, 0) for name in "abc"
    ]
    real = {"params": small.params, "bank": stack(experts, small.shapes, small.layers)}
    told = arrays_of(config(), 3)
    for part, tree in real.items():
        assert {(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)} == {
            (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(told[part])
        }
        assert sum(x.nbytes for x in jax.tree.leaves(tree)) == sum(
            line.bytes for line in lines(config(), mesh_of(1, 1, 1)) if line.group.startswith(part)
        )


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_bytes_of_a_quantised_base_are_those_of_its_integers(bits, tmp_path):
    folder = tiny_folder.encoder(tmp_path)
    made = config(str(folder), experts=Recipe(targets=TARGETS))
    made = replace(made, base=BaseConfig(source=str(folder), quantise=bits))
    real, told = weights.load(folder, bits=bits).params, arrays_of(made, 3)["params"]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), real) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), told
    )
    q = next(line for line in lines(made, mesh_of(1, 1, 1)) if line.group == "params/layers/attn/q/kernel")
    kernel = real["layers"]["attn"]["q"]["kernel"]
    assert q.bytes == kernel.qvalue.size * (int(bits[3:]) / 8) + kernel.scale.nbytes


def test_state_is_that_of_training_with_its_gradients(small):
    experts = [
        fresh(small.shapes, name, sites_of(config().experts, 2), config().experts, 0) for name in "abc"
    ]
    free = trainable(stack(experts, small.shapes, small.layers))
    real = begin(free, config().experts.optimiser, together=True)
    size = sum(x.nbytes for x in jax.tree.leaves(real)) + sum(x.nbytes for x in jax.tree.leaves(free))
    assert stages(config(), mesh_of(1, 1, 1))[0].state == pytest.approx(size, rel=0.05)


def test_a_device_holds_its_part_and_no_more(small):
    one, parts = (stages(config(), mesh_of(*sizes))[0] for sizes in ((1, 1, 1), (2, 4, 1)))
    assert parts.bank < one.bank / 2 and parts.base < one.base and parts.rows == one.rows == 6
    whole, split = (lines(config(), mesh_of(*sizes)) for sizes in ((1, 1, 1), (2, 1, 2)))
    q = [next(line for line in some if line.group == "params/layers/attn/q") for some in (whole, split)]
    assert q[0].bytes == q[1].bytes == q[0].each == 4 * q[1].each


def test_stages_are_those_of_the_recipe(small):
    found = {stage.name: stage for stage in stages(config(), mesh_of(1, 1, 1))}
    assert {name: stage.rows for name, stage in found.items()} == {
        "experts, all at once": 6, "one expert alone": 2, "phatgoose": 12, "meteora": 6, "evaluation": 8,
    }  # fmt: skip
    assert found["evaluation"].state == 0 and found["meteora"].state > 0
    assert found["one expert alone"].bank * 3 == pytest.approx(found["evaluation"].bank, rel=0.01)


def test_a_method_that_copies_rows_counts_them_and_one_that_does_not_fit_is_left_out(small):
    mole = config(methods=("mole(steps=2, batch=6)", "mole(matrix, steps=2, batch=6)"))
    found = {stage.name: stage for stage in stages(mole, mesh_of(1, 1, 1))}
    assert found["mole"].activations == 3 * found["mole(matrix)"].activations
    none = config(
        T5, methods=mole.methods, experts=replace(config().experts, targets=("encoder_layers/attn/q",))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "shape", lambda name, dtype: published.shape(name, dtype))
        assert [stage.name for stage in stages(none, mesh_of(1, 1, 1))][2:] == ["mole(matrix)", "evaluation"]


def batch_of(rows, window):
    """Rows of words whose last half is the answer."""
    tokens = np.arange(rows * window).reshape(rows, window) % 48
    real, late = np.ones_like(tokens, bool), np.arange(window) >= window // 2
    answer = np.broadcast_to(late, tokens.shape)
    return Batch(tokens, real, ~answer, targets=tokens, answer=answer, expert=np.zeros(rows, np.int32))


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "window", "remat"), [(8, 64, True), (4, 128, True), (8, 64, False)])
def test_activations_are_within_a_factor_of_two_of_what_is_allocated(rows, window, remat):
    """Temporary memory of the step that trains one expert, as XLA plans it here for a processor."""
    settings = replace(
        published.small(LLAMA, 512), width=64, heads=4, kv_heads=4, hidden=128, layers=6, remat=remat
    )
    base = random_base(settings)
    recipe = Recipe(rank=2, targets=TARGETS)
    bank = stack([fresh(base.shapes, "a", sites_of(recipe, 6), recipe, 0)], base.shapes, base.layers)
    arrays = {"params": base.params, "bank": bank, "router": {}, "labels": None}
    adapted = Adapted(base.model, ((LINEARS, Lora("output")),), route=own_expert)
    free, optimiser = trainable(bank), Optimiser(1e-3, 4)
    lowered = train_step.lower(
        begin(free, optimiser), arrays, jax.tree.map(jnp.asarray, batch_of(rows, window)), None,
        adapted=adapted, optimiser=optimiser,
    )  # fmt: skip
    asked = lowered.compile().memory_analysis().temp_size_in_bytes
    told = activations(settings, rows, window, 0, training=True)
    assert asked / 2 <= told <= 2 * asked


def test_a_mesh_without_devices_has_the_axes_of_a_real_one():
    assert tuple(mesh_of(2, 4, 1).shape.items()) == tuple(zip(AXES, (2, 4, 1), strict=True))
