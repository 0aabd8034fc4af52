"""The joint and the scan: layer numbers, collections, the bank read whole, layers below left out."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from joint_case import CONFIGS, arrays_of, bank_of, base_of, batch_of, close, experts, forward, jit, same

from moejax.adapted import Adapted, prefix, run, start, step
from moejax.experts.bank import lowest
from moejax.joint import joined
from moejax.models.block import slice_layers
from moejax.places import LINEARS, Lora
from moejax.routing import select
from moejax.types import Weights


@dataclass(frozen=True)
class TopK:
    """Top-k of x . g_e."""

    k: int = 2

    def __call__(self, site, x):
        return select.top_k(jnp.einsum("btd,ed->bte", x, site.leaves["gate"]), site.present, self.k)


def upper(config, arrays, batch, lo):
    """Arrays and batch that leave out what lies below layer `lo`."""
    entering = jit(prefix, static_argnums=(0, 3))(base_of(config).model, arrays["params"], batch, lo)
    params = slice_layers(arrays["params"], lo, config.layers)
    return arrays | {"params": params}, batch._replace(prefix=entering)


def numbered(site, next, x):
    """Sows what the place knows of its layer."""
    site.sow("numbers", jnp.stack([site.layer, site.slot]))
    return next(x)


def test_places_know_their_layer_and_slot_in_the_whole_model_and_in_its_upper_part():
    config, batch = CONFIGS["decoder"], batch_of()
    arrays = arrays_of(config)  # k is adapted in layers 1 and 2 alone; v nowhere
    adapted = Adapted(base_of(config).model, (("layers/attn/k", numbered), ("layers/attn/v", numbered)))
    _, records = forward(adapted, arrays, batch)
    attention = records["layers"]["attn"]
    same(attention["k"]["numbers"][0], [[0, -1], [1, 0], [2, 1]])
    same(attention["v"]["numbers"][0], [[0, 0], [1, 1], [2, 2]])
    _, records = forward(adapted, *upper(config, arrays, batch, 1))
    same(records["layers"]["attn"]["k"]["numbers"][0], [[1, 0], [2, 1]])


def outside(site, next, tokens):
    site.sow("numbers", site.slot)
    return next(tokens)


def test_a_place_outside_the_layers_has_slot_zero_of_what_adapts_it_there():
    config = CONFIGS["decoder"]
    arrays = arrays_of(config)
    bank = arrays["bank"]._replace(
        sites=arrays["bank"].sites | {"embed": arrays["bank"].sites["layers/attn/q"]}
    )
    for given in (arrays, arrays | {"bank": bank}):
        _, records = forward(Adapted(base_of(config).model, (("embed", outside),)), given, batch_of())
        assert int(records["embed"]["numbers"][0]) == 0


def own_collection(site, next, x):
    """Reads a collection that the base never heard of: each layer its own row."""
    return next(x) + site.module.get_variable("shift", "by")[None, None]


def test_collections_that_the_base_never_heard_of_ride_the_layer_axis():
    config, batch, arrays = CONFIGS["encoder"], batch_of(left=False), arrays_of(CONFIGS["encoder"])
    model, kernel = base_of(config).model, arrays["params"]["layers"]["attn"]["q"]["kernel"]
    shift = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)), jnp.float32)

    @jit
    def shifted(arrays, shift, batch):
        variables = {"params": arrays["params"], "shift": {"layers": {"attn": {"q": {"by": shift}}}}}
        with joined((("layers/attn/q", own_collection),), arrays["bank"], {}, batch):
            return model.apply(variables, batch.tokens, batch.mask)[0]

    by_bias = jax.tree.map(jnp.copy, arrays["params"])
    by_bias["layers"]["attn"]["q"]["bias"] += shift
    assert kernel.shape == (3, 16, 16)
    found = shifted(arrays, shift, batch)
    expected, _ = forward(Adapted(model), arrays | {"params": by_bias}, batch)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)


def two_of_many(arrays, batch):
    return Weights(jnp.ones((batch.tokens.shape[0], 2)), jnp.array([[3, 90]]))


@pytest.mark.parametrize(("mode", "score"), [("output", TopK()), ("factor", TopK()), ("output", None)])
def test_a_decoded_token_never_copies_a_layers_whole_bank(mode, score):
    config = CONFIGS["decoder"]
    many = [one._replace(name=f"{one.name}-{i}") for i in range(32) for one in experts(config)]
    bank = bank_of(config, many, rank=16)
    arrays, batch = arrays_of(config, bank), batch_of(b=1)
    adapted = Adapted(base_of(config).model, ((LINEARS, Lora(mode, score)),), None if score else two_of_many)
    _, state = jax.eval_shape(partial(start, adapted, room=2), arrays, batch)
    compiled = (
        jax.jit(step, static_argnums=0).lower(adapted, arrays, jnp.zeros(1, jnp.int32), state).compile()
    )
    one_layer = bank.sites["layers/attn/q"].a[0].nbytes
    assert one_layer == 128 * 16 * 16 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < one_layer / 3


AIM = np.random.default_rng(2).normal(size=(2, 6, 16)).astype(np.float32)


@partial(jit, static_argnames="adapted")
def slopes(adapted, arrays, batch):
    """States, and the gradient of <AIM, states> in the gates."""

    def loss(places):
        hidden = run(adapted, arrays | {"router": {"places": places}}, batch).hidden
        return jnp.sum(hidden * AIM), hidden

    return jax.grad(loss, has_aux=True)(arrays["router"]["places"])


@pytest.mark.parametrize(("kind", "found"), [("encoder", slopes), ("decoder", forward)])
def test_what_lies_below_the_lowest_adapted_layer_can_be_computed_once_bit_equal(kind, found):
    config = replace(CONFIGS[kind], layers=4)  # two and two: of one layer alone XLA makes no loop
    bank = bank_of(config, [above(one, 2) for one in experts(config, ("layers/attn/q",))])
    assert lowest(bank) == 2
    arrays, batch = arrays_of(config, bank), batch_of(left=False)
    adapted = Adapted(base_of(config).model, ((LINEARS, Lora("output", TopK())),))
    whole, cut = found(adapted, arrays, batch)[0], found(adapted, *upper(config, arrays, batch, 2))[0]
    jax.tree.map(same, cut, whole)


def above(expert, lo):
    """The expert without its layers below `lo`."""
    return expert._replace(loras={site: one for site, one in expert.loras.items() if site[1] >= lo})


@pytest.mark.parametrize("lo", [1, 2, 4])
def test_a_bare_base_is_cut_at_any_layer(lo):
    config = replace(CONFIGS["encoder"], layers=4)
    arrays, batch = arrays_of(config, bank_of(config, [])), batch_of(left=False)
    bare = Adapted(base_of(config).model)
    found, _ = forward(bare, *upper(config, arrays, batch, lo))
    whole, _ = forward(bare, arrays, batch)
    if lo == 2:
        same(found, whole)
    close(found, whole)


def test_a_prefix_without_a_cut_and_a_cut_without_a_prefix_are_refused():
    config = CONFIGS["encoder"]
    arrays, batch = arrays_of(config), batch_of(left=False)
    cut, with_prefix = upper(config, arrays, batch, 1)
    for given in ((arrays, with_prefix), (cut, batch)):
        with pytest.raises(ValueError, match="needs a prefix then, and only then"):
            run(Adapted(base_of(config).model), *given)
