"""The peers that are said to compute the same function give the same numbers as ours, at small shapes."""

import bench_case
import numpy as np
import pytest
from jax import numpy as jnp

from benchmarks import layer, merging, model, tables, training
from benchmarks.cases import Case, Size, draw
from benchmarks.layer import OUTPUT
from moejax.experts import lora

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NAMES = ("mixed", "arrow", "xlora", "outputs", "parameters")


def close(ours, theirs):
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=2e-5 * max(1.0, np.abs(ours).max()))


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_layer(name, back):
    from benchmarks import peers_layer, peers_torch

    make = getattr(peers_torch, name)
    kind = next(kind for kind in peers_layer.KINDS if kind.make is make)
    case = draw(Size(24, 16, 6, 1 if name == "mixed" else 2, 3))
    for ours, theirs in zip(
        layer.output(case, kind.same or OUTPUT, back), peers_layer.output(make, case, back), strict=False
    ):
        close(ours.reshape(theirs.shape), theirs)
    bare = case.x @ case.w
    assert np.abs(peers_layer.output(make, case)[0] - bare).max() > 0.1


def test_gradients_of_weights_and_factors_of_the_first_order():
    from benchmarks import peers_layer, peers_torch

    case = draw(Size(24, 16, 6, 2, 3))
    _, _, a, b, values = layer.output(case, OUTPUT, True)
    _, _, theirs_a, theirs_b, dense = (
        tensor.detach().numpy() for tensor in peers_layer.call(peers_torch.outputs, case, True)()
    )
    close(a[0], theirs_a.swapaxes(1, 2))
    close(b[0], theirs_b)
    close(values[0], np.take_along_axis(dense, case.index, axis=1))


@pytest.mark.parametrize("setting", bench_case.SETTINGS[:2], ids=str)
@pytest.mark.parametrize("e", [0, 1, 3])
def test_a_whole_model(setting, e):
    import torch

    from benchmarks import peers_model
    from moejax.models.weights import random_base

    base = random_base(setting.config, scale=1.0)
    theirs = peers_model.make(base, setting, e)
    with torch.inference_mode():
        found = theirs(torch.tensor(model.texts(setting)).long())[0].numpy()
    ours = np.asarray(model.call(base, setting, e)()) if base.kind == "encoder" else None
    if base.kind == "decoder":
        found, ours = found[:, -1], np.asarray(model.call(base, setting, e)()[0])
    close(ours, found)


def test_tokens_that_are_written_one_by_one():
    from benchmarks import peers_model
    from moejax.models.weights import random_base

    setting = bench_case.SETTINGS[2]
    base = random_base(setting.config, scale=1.0)
    ours = np.asarray(model.call(base, setting, 3)())
    written = peers_model.call(base, setting, 3)
    first = written().numpy()[:, 0]
    assert first.tolist() == ours[peers_model.FEWER - 1].tolist()
    assert written().numpy()[:, 0].tolist() == first.tolist()  # the cache was cut back


def test_training_takes_the_same_steps(tmp_path):
    from benchmarks import peers_training
    from moejax.train.experts import train_together
    from moejax.train.work import Work

    lesson, name, losses = training.tiny(), "e03", []
    work = Work(tmp_path, log=lambda record: losses.append(record["loss"]))
    train_together(lesson.base, {name: lesson.rows[name]}, lesson.recipe, work)
    theirs = peers_training.train(lesson, name)
    assert len(theirs) == lesson.recipe.optimiser.steps
    np.testing.assert_allclose(theirs, losses, rtol=2e-3, atol=2e-3)
    assert losses[-1] < losses[0] - 0.1


def test_a_merge_made_small():
    from benchmarks import peers_merging

    case = draw(Size(1, 24, 5, 1, 3))
    a, b = (tensor.numpy() for tensor in peers_merging.svd(case)())
    ours = merging.merged(case)
    close(lora.delta(ours), (b @ a).T)


def test_power_iterations_come_near_where_one_direction_leads():
    from benchmarks import peers_merging

    case = draw(Size(1, 24, 4, 1, 3))
    led: Case = case._replace(a=case.a * np.array([9, 1, 1], np.float32)[:, None])
    median, least = merging.agreement(led, peers_merging.prototypes(led)().numpy())
    assert 0.999 < least <= median <= 1 + 1e-5
    assert jnp.isfinite(median)


def test_all_parts_with_peers_beside():
    results = bench_case.results(bench_case.parts(peers=True))
    shown = {table.key: table for table in tables.tables(results)}
    assert {"peers", "layer", "decode", "model", "merging"} <= shown.keys()
    assert len(shown["peers"].rows) == 2 * 6
    assert all("–" not in line[4] for line in shown["peers"].rows)
