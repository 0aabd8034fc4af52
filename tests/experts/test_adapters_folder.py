"""A folder in AdapterHub's layout: round trips, and every refusal with its field or tensor."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from moejax.experts.bottleneck import Bottleneck
from moejax.experts.content_hash import content_hash
from moejax.experts.expert import Expert
from moejax.experts.files import read, write
from moejax.experts.folder import ADAPTERS_PICKLE, ADAPTERS_WEIGHTS, CONFIG, INFO
from moejax.experts.homes import Homes
from moejax.experts.member import OnBase, examine
from moejax.experts.pool import read_pool
from moejax.experts.pool_folder import add
from moejax.experts.read import read_modules
from moejax.types import UserError

D, LAYERS = 8, 3
HOMES = Homes(
    {f"encoder.layer.{i}.{home}": (path, i) for i in range(LAYERS)
     for home, path in (("attention.output", "layers/attn"), ("output", "layers/mlp"))}, D,
)  # fmt: skip
UP = "encoder.layer.1.output.adapters.mine.adapter_up.weight"


def adapter(rank=2, act="relu", scale=1.0, seed=0) -> Bottleneck:
    rng = np.random.default_rng(seed)
    leaves = (rng.normal(size=size).astype(np.float32) for size in ((rank, D), rank, (rank, D), D))
    return Bottleneck(*leaves, act, scale)


def expert(sites=(("layers/mlp_join", 1), ("layers/mlp_join", 2)), ranks=(2, 2), **options):
    made = {site: adapter(r, seed=i, **options) for i, (site, r) in enumerate(zip(sites, ranks, strict=True))}
    return Expert("mine", {"task": "mine"}, {}, made)


HOULSBY = tuple((path, layer) for path in ("layers/attn", "layers/mlp") for layer in range(LAYERS))


@pytest.fixture
def folder(tiny, tmp_path):
    write(tmp_path / "mine", expert(), tiny.sites, homes=HOMES, fingerprint=tiny.fingerprint)
    return tmp_path / "mine"


def loaded(tiny, folder, **options):
    return read(folder, tiny.sites, tiny.shapes, tiny.fingerprint, homes=HOMES, **options)


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def retensor(folder, change):
    tensors = load_file(folder / ADAPTERS_WEIGHTS)
    save_file(change(dict(tensors)) or tensors, folder / ADAPTERS_WEIGHTS)
    edit(folder / INFO, lambda info: info.pop("hash"))


@pytest.mark.parametrize(
    "one",
    [
        expert(),
        expert(ranks=(3, 5)),  # another width in each layer, none a divisor of d
        expert(HOULSBY, (2,) * 6, act="swish", scale=0.5),
        expert((("layers/attn", 0),), (1,), act="gelu"),
        expert((("layers/attn_join", 0), ("layers/mlp_join", 0)), (8, 8), act="gelu_new"),
    ],
)
def test_an_expert_comes_back_from_its_folder(tiny, tmp_path, one):
    write(tmp_path / "mine", one, tiny.sites, homes=HOMES)
    back, report = loaded(tiny, tmp_path / "mine")
    assert content_hash(back.parts) == content_hash(one.parts) == back.info["hash"]
    assert not back.loras and back.info["kind"] == "bottleneck"
    assert len(report.matched) == len(one.parts) and report.unmatched == ()
    assert set(report.scale.values()) == {next(iter(one.bottlenecks.values())).scale}


def test_a_stranger_s_folder_says_nothing_of_us_and_a_wrapped_model_has_a_prefix(tiny, folder):
    (folder / INFO).unlink()
    tensors = load_file(folder / ADAPTERS_WEIGHTS)
    save_file({f"bert.{key}": leaf for key, leaf in tensors.items()}, folder / ADAPTERS_WEIGHTS)
    back, report = loaded(tiny, folder)
    assert content_hash(back.parts) == content_hash(expert().parts)
    assert "no base fingerprint is recorded" in report.warnings[0]


def test_without_a_base_any_module_will_do(folder):
    info, parts, report, sites, _ = read_modules(folder)
    assert set(parts) == {"encoder.layer.1.output", "encoder.layer.2.output"} and not sites
    assert info["kind"] == "bottleneck" and report.unmatched == ()


def test_what_is_left_out_by_the_file_alone_is_told(tiny, folder):
    edit(folder / CONFIG, lambda raw: raw["config"].update(leave_out=[]))
    assert loaded(tiny, folder)[1].unmatched == ("encoder.layer.0.output",)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"original_ln_after": False}, "original_ln_after is False: the layer's own norm is left out"),
        ({"original_ln_after": None}, "original_ln_after is None"),
        ({"ln_before": True}, "ln_before is True: a norm within the adapter"),
        ({"ln_after": True}, "ln_after"),
        ({"is_parallel": True}, "is_parallel is True: an adapter beside the sub-layer"),
        ({"use_gating": True}, "use_gating"),
        ({"inv_adapter": "nice"}, "inv_adapter is 'nice'"),
        ({"cross_adapter": True}, "cross_adapter"),
        ({"phm_layer": True}, "phm_layer"),
        ({"architecture": "lora"}, "architecture is 'lora': another kind of adapter"),
        ({"residual_before_ln": "post_add"}, "residual_before_ln is 'post_add'"),
        ({"residual_before_ln": False}, "residual_before_ln is False"),
        ({"non_linearity": "mish"}, "non_linearity is 'mish': expected one of relu, gelu,"),
        ({"non_linearity": None}, "non_linearity is None"),
        ({"scaling": "learned"}, "scaling is 'learned': expected a number"),
        ({"scaling": 0.0}, "scaling is 0.0"),
        ({"reduction_factor": "x"}, "reduction_factor is 'x' at default"),
        ({"reduction_factor": 0}, "reduction_factor is 0"),
        ({"reduction_factor": {"2": 4}}, "reduction_factor has no value for layer 1 and no default"),
        ({"leave_out": "all"}, "leave_out must be a list of layers"),
        ({"mh_adapter": 1}, "mh_adapter is 1: expected true or false"),
        ({"output_adapter": False}, "neither mh_adapter nor output_adapter is true"),
        ({"new_thing": 3}, "the field 'new_thing' is not known here"),
    ],
)
def test_a_config_that_means_something_else_is_refused_by_field(tiny, folder, fields, says):
    edit(folder / CONFIG, lambda raw: raw["config"].update(fields))
    with pytest.raises(UserError, match=says) as refused:
        loaded(tiny, folder)
    assert str(folder / CONFIG) in str(refused.value)


@pytest.mark.parametrize(
    "fields", [{"dropout": 0.3, "init_weights": "houlsby"}, {"new_thing": None}, {"phm_dim": 9}]
)
def test_what_means_nothing_is_passed_over(tiny, folder, fields):
    edit(folder / CONFIG, lambda raw: raw["config"].update(fields))
    loaded(tiny, folder)


def test_names_of_non_linearities_are_read_as_their_time_meant_them(tiny, folder):
    def act(name, old):
        edit(folder / CONFIG, lambda raw: raw["config"].update(non_linearity=name))
        edit(
            folder / CONFIG,
            lambda raw: raw.pop("version", None) if old else raw.update(version="adapters.1.0"),
        )
        edit(folder / INFO, lambda info: info.pop("hash", None))
        return next(iter(loaded(tiny, folder)[0].bottlenecks.values())).act

    assert [act(name, True) for name in ("gelu", "gelu_orig", "relu")] == ["gelu_new", "gelu", "relu"]
    assert [act(name, False) for name in ("gelu", "GELU_NEW", "silu", "swish")] == [
        "gelu",
        "gelu_new",
        "swish",
        "swish",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(UP), f"tensor {UP!r} is missing, others of its adapter are there"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "unknown tensor 'extra'"),
        (lambda t: t.update({UP.replace("mine", "other"): t[UP]}), "is of adapter 'other', but"),
        (lambda t: t.update({UP.replace("layer.1", "layer.7"): t[UP]}), "layer.7.* does not have"),
        (lambda t: t.update({UP.replace(".output", ".attention.output"): t[UP]}), "for a module where"),
        (lambda t: t.update({UP.replace("layer.1", "layer.0"): t[UP]}), "is for a module where"),  # left out
        (lambda t: t.update({f"bert.{UP}": t[UP]}), "is there twice, under another prefix"),
        (lambda t: t.update({UP: t[UP][:, :1]}), r"has shape \[8, 1\]: expected \[8, 2\]"),
        (lambda t: t.update({UP: t[UP].T.copy()}), r"has shape \[2, 8\]: expected \[8, 2\]"),
        (lambda t: t.update({UP: t[UP] * np.float32(np.nan)}), "holds NaN or infinity"),
        (lambda t: t.update({UP: t[UP].astype(np.int32)}), "is I32: expected one of"),
        (lambda t: {k: v * 0 for k, v in t.items()}, "every adapter_up is zero"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_tensor(tiny, folder, change, says):
    retensor(folder, lambda t: out if isinstance(out := change(t), dict) else t)
    with pytest.raises(UserError, match=says):
        loaded(tiny, folder)


def test_a_pickle_alone_is_refused_with_the_command_that_converts_it(tiny, folder):
    (folder / ADAPTERS_WEIGHTS).rename(folder / ADAPTERS_PICKLE)
    with pytest.raises(
        UserError, match=r"only a pickle.*say python -c .*weights_only=True.*adapter\.safetensors"
    ):
        loaded(tiny, folder)


def test_a_changed_folder_and_another_kind_are_refused(tiny, folder):
    tensors = load_file(folder / ADAPTERS_WEIGHTS)
    save_file(tensors | {UP: tensors[UP] + 1}, folder / ADAPTERS_WEIGHTS)
    with pytest.raises(
        UserError, match=r"adapter\.safetensors: its content is not what moejax\.json recorded"
    ):
        loaded(tiny, folder)
    edit(folder / INFO, lambda info: info.update(kind="lora"))
    with pytest.raises(
        UserError, match="kind is 'lora': only 'bottleneck' can be read as a bottleneck expert"
    ):
        loaded(tiny, folder)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (
            Expert("mine", {}, {}, {("layers/mlp", 0): adapter(), ("layers/attn_join", 1): adapter()}),
            "mixes places",
        ),
        (
            Expert("mine", {}, {}, {("layers/mlp", 0): adapter(), ("layers/mlp", 1): adapter(act="tanh")}),
            "mixes",
        ),
        (expert((("layers/attn", 0), ("layers/mlp", 1)), (2, 2)), "differs from sub-layer to sub-layer"),
        (expert((("layers/attn", 0), ("layers/mlp", 0)), (2, 3)), "differs from sub-layer to sub-layer"),
        (expert((("layers/mlp", 9),), (2,)), "'layers/mlp', layer 9: the base has no such site"),
        (expert(scale=float("inf")), "must be finite"),
        (Expert("mine", {}, {}), "adapts no site"),
    ],
)
def test_what_cannot_be_written_is_said(tiny, tmp_path, one, says):
    with pytest.raises(UserError, match=says):
        write(tmp_path / "mine", one, tiny.sites, homes=HOMES)
    assert not (tmp_path / "mine").exists()


def test_an_expert_of_both_kinds_is_two(tiny, tmp_path):
    both = tiny.expert("mine")._replace(bottlenecks=expert().bottlenecks)
    with pytest.raises(UserError, match="has LoRAs and bottleneck adapters: write an expert of each"):
        write(tmp_path / "mine", both, tiny.sites, homes=HOMES)


def test_a_name_with_dots_is_still_one_part_of_a_tensor_s(tiny, tmp_path):
    write(tmp_path / "a.b", expert()._replace(name="a.b"), tiny.sites, homes=HOMES)
    assert json.loads((tmp_path / "a.b" / CONFIG).read_text())["name"] == "a_b"
    assert loaded(tiny, tmp_path / "a.b")[0].name == "a.b"


def test_both_kinds_go_through_one_door(tiny, folder, tmp_path):
    write(tmp_path / "pool" / "lora", tiny.expert("lora"), tiny.sites)
    base = OnBase(tiny.sites, tiny.shapes, tiny.fingerprint, homes=HOMES)
    member = add(tmp_path / "pool", folder, "mine", base)
    assert member.ranks == (2,) and member.content == examine(folder, "mine").content
    pool, _ = read_pool(tmp_path / "pool", tiny.sites, tiny.shapes, LAYERS, tiny.fingerprint, homes=HOMES)
    assert pool.names == ("lora", "mine") and pool.kinds == {"lora", "bottleneck"}
    with pytest.raises(UserError, match="is for a module that the base does not have"):
        read(folder, tiny.sites, tiny.shapes, tiny.fingerprint)  # a base of which no home is known
