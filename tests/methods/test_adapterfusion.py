"""AdapterFusion: the checks and worked numbers of its card, on one place by hand and on small bases."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import world as worlds
from one_linear import PATH, base_of, lora, pool, random_loras
from stand_in import here, request

from moejax.adapted import Adapted, score
from moejax.contract import Fitted
from moejax.experts import bottleneck
from moejax.experts import lora as loras_
from moejax.experts.bottleneck import Bottleneck
from moejax.experts.expert import Expert
from moejax.experts.pool import pool_of
from moejax.joint import joined
from moejax.methods import adapterfusion
from moejax.methods.adapterfusion import METHOD, Attention, Config, Loss, Outputs, adapt, away, started
from moejax.models.base import Base
from moejax.models.layers import Join
from moejax.site import sown
from moejax.train.work import Work
from moejax.types import Batch, NotApplicable

EYE = np.eye(2, dtype=np.float32)
NOTHING = Batch(None, None, None)


def leaves(d, seed=0, size=0.5, **given):
    """Matrices of a place, not near their first values."""
    rng = np.random.default_rng(seed)
    made = {name: rng.normal(size=(d, d)) * size for name in ("q", "k", "v")}
    made |= {name: rng.normal(size=d) * size for name in ("q_bias", "k_bias")}
    return {name: jnp.asarray(leaf, jnp.float32) for name, leaf in (made | given).items()}


def plain(h, u, y, own):
    """Weights and y + f as the paper writes them, key by key and value by value: h, y [d], u [e, d]."""
    q = h @ own["q"] + own["q_bias"]
    raw = np.array([q @ (one @ own["k"] + own["k_bias"]) for one in u])
    a = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
    return a, y + sum(w * (one @ own.get("v", np.eye(len(h)))) for w, one in zip(a, u, strict=True))


def at(own, present, temperature=1.0):
    """A site with these matrices."""
    site = here(PATH, present, own, request())
    site.router["knobs"] = {"temperature": jnp.float32(temperature)}
    return site


def spelled(u):
    """Outputs that are written down, u [e, d]: half of each from its bottleneck, half from its bias."""
    u = jnp.asarray(u, jnp.float32) / 2
    return Outputs(jnp.ones((1, 1, len(u), 1)), u[:, None], u)


def attended(h, u, own, **options):
    """Weights [e] and f [d] for outputs that are written down, u [e, d]."""
    site = at(own, [True] * len(u), **options)
    f = Attention(0.1)(site, jnp.asarray(h, jnp.float32)[None, None], spelled(u))
    return np.asarray(site.found["weights"].values[0, 0]), np.asarray(f[0, 0])


def test_hand_example():
    own = leaves(2, q=EYE, k=EYE, v=EYE, q_bias=np.zeros(2), k_bias=np.zeros(2))
    u, y = [[np.log(3), 0], [0, 2]], np.ones(2)
    a, f = attended([1, 0], u, own)
    np.testing.assert_allclose(a, (0.75, 0.25), rtol=0, atol=1e-6)
    np.testing.assert_allclose(y + f, (1.823959, 1.5), rtol=0, atol=1e-6)
    raw = adapterfusion.scores(jnp.asarray([[[1.0, 0.0]]]), spelled(u), own)
    np.testing.assert_allclose(raw[0, 0], (1.098612, 0), rtol=0, atol=1e-6)
    a, _ = attended([1, 0], u, own, temperature=2.0)
    np.testing.assert_allclose(a, np.array([np.sqrt(3), 1]) / (1 + np.sqrt(3)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("values", ["learned", "static"])
def test_no_key_and_no_value_is_formed_and_yet_they_are_the_paper_s(values):
    rng, own = np.random.default_rng(1), leaves(4)
    h, u, y = rng.normal(size=4), rng.normal(size=(3, 4)), np.zeros(4)
    own = own if values == "learned" else {name: leaf for name, leaf in own.items() if name != "v"}
    a, f = attended(h, u, own)
    wanted = plain(h, u, y, {name: np.asarray(leaf, np.float64) for name, leaf in own.items()})
    np.testing.assert_allclose(a, wanted[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(f, wanted[1], rtol=0, atol=1e-5)
    assert a.min() > 0.02 and np.ptp(a) > 0.1


def test_without_queries_and_keys_all_experts_weigh_the_same():
    nothing = {"q": np.zeros((4, 4)), "k": np.zeros((4, 4)), "q_bias": np.zeros(4), "k_bias": np.zeros(4)}
    a, _ = attended(np.arange(4), np.random.default_rng(2).normal(size=(4, 4)), leaves(4, **nothing))
    np.testing.assert_array_equal(a, np.full(4, 0.25))


def test_the_bias_of_the_keys_says_nothing():
    rng, own = np.random.default_rng(3), leaves(4)
    h, u = rng.normal(size=4), rng.normal(size=(3, 4))
    a, _ = attended(h, u, own)
    b, _ = attended(h, u, own | {"k_bias": own["k_bias"] + 3.0})
    np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)
    c, _ = attended(h, u, own | {"q_bias": own["q_bias"] + 3.0})
    assert np.abs(c - a).max() > 0.1


def test_a_permutation_permutes():
    rng, own, turned = np.random.default_rng(4), leaves(4), [2, 0, 1]
    h, u = rng.normal(size=4), rng.normal(size=(3, 4))
    (a, f), (b, g) = attended(h, u, own), attended(h, u[turned], own)
    np.testing.assert_allclose(b, a[turned], rtol=0, atol=1e-6)
    np.testing.assert_allclose(g, f, rtol=0, atol=1e-6)


def test_the_pull_of_the_values():
    records = {"a": {"pull": (away({"v": 2 * jnp.eye(2)}),)}}
    assert float(Loss(0.01)(jnp.zeros(1), records, NOTHING)) == pytest.approx(0.02, abs=1e-9)
    some = pool([lora(np.ones((1, 4)), np.ones((768, 1)))], 4, 768)
    first = started(Config(form="lora", at="all"), some.bank, 0)[PATH]
    pull = 0.01 * float(away({"v": first["v"][0]}))
    assert pull == pytest.approx(5.89e-9, abs=2e-11)
    np.testing.assert_allclose(np.std(first["q"]), 0.02, rtol=0.01)
    assert not np.any(first["q_bias"]) and not np.any(first["k_bias"])
    assert "v" not in started(Config(form="lora", at="all", values="static"), some.bank, 0)[PATH]
    assert float(away({})) == 0.0


def linear(loras, own, x):
    """The fused linear's output and its weights for x [n, d]."""
    one = next(one for one in loras if one is not None)
    d, f = one.a.shape[1], one.b.shape[1]
    base, some = base_of(d, f), pool(loras, d, f)
    router = {
        "places": {PATH: {n: leaf[None] for n, leaf in own.items()}},
        "knobs": {"temperature": jnp.float32(1)},
    }
    arrays = METHOD.arrays(Config("lora"), base, some, Fitted(router, some.names))
    places = ((PATH, adapt(Config("lora"), base).places[0][1]),)
    with joined(places, arrays["bank"], router, request(1, len(x))):
        y, found = base.model.apply({"params": base.params}, jnp.asarray(x)[None], mutable=["routing"])
    return y[0], found["routing"][PATH]["weights"][0].values[0], x @ np.asarray(base.params[PATH]["kernel"])


class OneJoin(nn.Module):
    """The join that closes a sub-layer."""

    post: bool

    def setup(self):
        self.join = Join(replace(tiny.CONFIGS["encoder"].block, width=4, post=self.post))

    def __call__(self, x, h):
        return self.join(x, h)


def joins(adapters, own, post=True):
    """A join's output under fusion, its weights, and its plain function, for adapters on it and x, h of [5, 4]."""
    model, (x, h) = (
        OneJoin(post),
        jnp.asarray(np.random.default_rng(8).normal(size=(2, 1, 5, 4)), jnp.float32),
    )
    norm = {"scale": jnp.asarray([1.0, 2.0, 0.5, -1.0]), "bias": jnp.asarray([0.1, 0.0, -0.3, 0.2])}
    variables = {"params": {"join": {"norm": norm}} if post else {}}
    experts = [Expert(f"e{i}", {}, {}, {("join", 0): one}) for i, one in enumerate(adapters)]
    some = pool_of(experts, {}, {}, 1)
    router = {
        "places": {"join": {n: leaf[None] for n, leaf in own.items()}},
        "knobs": {"temperature": jnp.float32(1)},
    }
    base = Base(model, {}, "", {}, {})
    place = adapt(Config(), base).places[-1][1]
    with joined((("join", place),), some.bank, router, request(1, 5)):
        y, found = model.apply(variables, x, h, mutable=["routing"])

    def plain_join(x, h):
        return np.asarray(model.apply(variables, jnp.asarray(x)[None], jnp.asarray(h)[None])[0])

    return (
        y[0],
        found["routing"]["join"]["weights"][0].values[0],
        plain_join,
        np.asarray(x[0]),
        np.asarray(h[0]),
    )


def random_adapters(count, silent=False):
    """Of width 4 and ranks 1 to 3, each with another non-linearity and scale."""
    rng, made = np.random.default_rng(9), []
    for i in range(count):
        leaves = [rng.normal(size=size).astype(np.float32) for size in ((i + 1, 4), i + 1, (i + 1, 4), 4)]
        leaves = [leaf * (0 if silent and k > 1 else 1) for k, leaf in enumerate(leaves)]
        made.append(Bottleneck(*leaves, list(bottleneck.ACTS)[i], 1.0 + i / 2))
    return made


@pytest.mark.parametrize("post", [True, False])
def test_at_a_join_the_norm_is_applied_twice_and_the_residual_counted_once(post):
    adapters, own = random_adapters(3), leaves(4, size=0.3)
    y, a, join, x, h = joins(adapters, own, post)
    z = join(x, h)  # what the adapters see, and the query
    for i in range(5):
        u = np.stack([bottleneck.apply(one, z[i]) for one in adapters])
        weights, f = plain(z[i], u, h[i], {name: np.asarray(leaf) for name, leaf in own.items()})
        np.testing.assert_allclose(a[i], weights, rtol=0, atol=2e-5)
        np.testing.assert_allclose(y[i], join(x[i : i + 1], f[None])[0], rtol=0, atol=2e-5)
    assert np.abs(y - z).max() > 0.1


@pytest.mark.parametrize("post", [True, False])
def test_one_adapter_whose_values_are_its_outputs_is_the_plain_adapter(post):
    (one,) = random_adapters(1)
    y, a, join, x, h = joins([one], leaves(4, v=np.eye(4)), post)
    np.testing.assert_array_equal(a, np.ones((5, 1)))
    np.testing.assert_allclose(y, join(x, h + bottleneck.apply(one, join(x, h))), rtol=0, atol=5e-6)


@pytest.mark.parametrize("post", [True, False])
def test_silent_adapters_leave_the_join_as_it_is(post):
    y, _, join, x, h = joins(random_adapters(2, silent=True), leaves(4), post)
    np.testing.assert_allclose(y, join(x, h), rtol=0, atol=1e-6)


X = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)


def test_one_expert_whose_values_are_its_outputs_is_that_expert():
    one = random_loras(1)
    y, a, bare = linear(one, leaves(3, v=np.eye(3)), X)
    np.testing.assert_array_equal(a, np.ones((5, 1)))
    np.testing.assert_allclose(y, bare + X @ loras_.delta(one[0]), rtol=0, atol=2e-6)
    own = leaves(3)
    y, _, bare = linear(one, own, X)
    np.testing.assert_allclose(y, bare + X @ loras_.delta(one[0]) @ np.asarray(own["v"]), rtol=0, atol=5e-6)


def test_at_a_linear_the_query_is_what_it_gives_alone():
    some, own = random_loras(3), leaves(3)
    y, a, bare = linear(some, own, X)
    for i in range(5):
        u = np.stack([X[i] @ loras_.delta(one) for one in some])
        wanted = plain(bare[i], u, bare[i], {name: np.asarray(leaf) for name, leaf in own.items()})
        np.testing.assert_allclose(a[i], wanted[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(y[i], wanted[1], rtol=0, atol=1e-5)


def test_an_expert_that_is_absent_is_as_good_as_not_there():
    some, own = random_loras(2), leaves(3)
    (y, a, _), (z, b, _) = linear(some, own, X), linear([some[0], None, some[1]], own, X)
    np.testing.assert_allclose(z, y, rtol=0, atol=1e-6)
    np.testing.assert_allclose(b[:, [0, 2]], a, rtol=0, atol=1e-6)
    assert not np.any(b[:, 1])


def random_places(bank, config, size=0.5):
    """Matrices at every place of a bank."""
    rng = np.random.default_rng(6)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * size, jnp.float32), started(config, bank, 0)
    )


@partial(jax.jit, static_argnames="adapted")
def looked(adapted: Adapted, arrays, batch):
    found, records = score(adapted, arrays, batch, record=True)
    return found, sown(records, "weights")


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("line", ["adapterfusion", "adapterfusion(lora)", "adapterfusion(all)"])
def test_silent_experts_are_the_base_whatever_the_matrices(kind, line):
    world, config = worlds.standard(kind, line), worlds.config(line)
    some, batch = worlds.silent(world.pool), worlds.batch(world)
    router = {"places": random_places(some.bank, config), "knobs": {"temperature": jnp.float32(1)}}
    arrays = METHOD.arrays(config, world.base, some, Fitted(router, some.names))
    found, _ = looked(adapt(config, world.base), arrays, batch)
    np.testing.assert_allclose(found, worlds.scores(worlds.fitted(kind, "base"), batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("line", "path"), [("adapterfusion", "layers/mlp_join"), ("adapterfusion(all)", tiny.EVERYWHERE)]
)
def test_a_token_moves_no_weight_before_it(line, path):
    world, config = worlds.standard("decoder", line), worlds.config(line)
    batch = worlds.batch(world)
    router = {"places": random_places(world.pool.bank, config), "knobs": {"temperature": jnp.float32(1)}}
    arrays = METHOD.arrays(config, world.base, world.pool, Fitted(router, world.pool.names))
    other = batch._replace(tokens=batch.tokens.at[:, 2].set((batch.tokens[:, 2] + 9) % tiny.VOCAB))
    before, after = (looked(adapt(config, world.base), arrays, some)[1] for some in (batch, other))
    for where, was in before.items():
        np.testing.assert_array_equal(was.values[:, :, :2], after[where].values[:, :, :2])
    top = before[path].values[1] - after[path].values[1]
    assert np.abs(top[:, 3:]).max() > 1e-3


def fit(folder, world, seed=0, **options):
    """Fitted for a few steps."""
    config = Config(**{"form": "lora", "steps": 3, "batch": 6, "rate": 0.01} | options)
    return METHOD.fit(
        config, world.base, world.pool, worlds.grants(world, METHOD.card.grants), Work(folder, seed)
    )


def test_only_the_attention_learns(tmp_path):
    world = worlds.standard("encoder")
    fitted = fit(tmp_path, world)
    assert fitted.bank is None and not fitted.patch
    ((path, found),) = fitted.router["places"].items()
    first = started(Config("lora"), world.pool.bank, 0)[path]
    assert path == adapterfusion.DOWN and found.keys() == first.keys()
    for name in ("q", "k", "v", "q_bias"):
        assert np.abs(found[name] - first[name]).max() > 1e-3
    assert fitted.trained == 3 * 16 * 16 + 2 * 16
    assert fitted.router.keys() == {"places", "knobs"}


def test_adapters_stay_as_they_are(tmp_path):
    world = worlds.standard("decoder", "adapterfusion")
    fitted = fit(tmp_path, world, form="bottleneck")
    assert fitted.bank is None and not fitted.patch
    assert {path: len(leaf["q"]) for path, leaf in fitted.router["places"].items()} == {
        "layers/attn": 2, "layers/mlp_join": 1,
    }  # fmt: skip
    assert fitted.trained == 3 * (3 * 16 * 16 + 2 * 16)


@pytest.mark.slow
def test_dropout_follows_experts_and_the_pull_holds_the_values(tmp_path):
    world = worlds.standard("encoder")
    found = {
        name: fit(tmp_path / name, world, **options).router["places"][adapterfusion.DOWN]
        for name, options in {
            "kept": {"dropout": 0.0}, "some": {"dropout": 0.5}, "again": {"dropout": 0.5},
            "free": {"dropout": 0.0, "pull": 0.0, "steps": 20}, "held": {"dropout": 0.0, "pull": 1e3, "steps": 20},
        }.items()
    }  # fmt: skip
    assert np.abs(found["some"]["q"] - found["kept"]["q"]).max() > 1e-4
    jax.tree.map(np.testing.assert_array_equal, found["some"], found["again"])
    distance = {name: float(away({"v": leaf["v"][0]})) for name, leaf in found.items()}
    assert distance["held"] < 0.2 * distance["free"]


def test_a_pool_that_adapts_no_such_linear_is_told(tmp_path):
    world = worlds.standard("encoder")
    some = [tiny.expert(world.base, name, everywhere=False) for name in worlds.NAMES]
    given = pool_of(some, world.base.sites, world.base.shapes, world.base.layers, rank=2)
    with pytest.raises(NotApplicable, match="no expert adapts layers/mlp/down.*at=all"):
        fit(tmp_path, world._replace(pool=given))
    with pytest.raises(NotApplicable, match="no expert is a bottleneck adapter"):
        fit(tmp_path, world._replace(pool=given), form="bottleneck")
    assert list(fit(tmp_path, world._replace(pool=given), at="all").router["places"]) == [tiny.EVERYWHERE]
