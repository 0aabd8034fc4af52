"""The real PEFT on tiny random models: our folders load there, its folders read here, the same deltas."""

import dataclasses
import json

import numpy as np
import pytest

from moejax.experts import lora
from moejax.experts.expert import Expert
from moejax.experts.files import read, write
from moejax.experts.folder import CONFIG
from moejax.experts.lora import Lora
from moejax.experts.peft_fields import REFUSED, USED, WITHOUT_MEANING
from moejax.types import UserError

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ENCODER = {
    "attention.self.query": "layers/attn/q",
    "attention.self.key": "layers/attn/k",
    "attention.self.value": "layers/attn/v",
    "attention.output.dense": "layers/attn/o",
    "intermediate.dense": "layers/mlp/up",
    "output.dense": "layers/mlp/down",
}
DECODER = {
    "self_attn.q_proj": "layers/attn/q",
    "self_attn.k_proj": "layers/attn/k",
    "self_attn.v_proj": "layers/attn/v",
    "self_attn.o_proj": "layers/attn/o",
    "mlp.gate_proj": "layers/mlp/gate",
    "mlp.up_proj": "layers/mlp/up",
    "mlp.down_proj": "layers/mlp/down",
}
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}


class Base:
    """A tiny random Hugging Face model, and our names for its linears."""

    def __init__(self, kind):
        self.kind = kind
        names, prefix = (ENCODER, "encoder.layer") if kind == "bert" else (DECODER, "model.layers")
        self.sites = {f"{prefix}.{i}.{name}": (path, i) for i in range(2) for name, path in names.items()}
        linears = dict(self.model().named_modules())
        self.shapes = {path: linears[name].weight.shape[::-1] for name, (path, _) in self.sites.items()}
        self.shapes = {path: tuple(shape) for path, shape in self.shapes.items()}

    def model(self):
        """A fresh copy, always with the same weights, large enough to show a fault."""
        import torch
        from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        if self.kind == "bert":
            config = BertConfig(
                **SIZES, num_attention_heads=4, max_position_embeddings=16, initializer_range=0.3
            )
            return BertModel(config).eval()
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaForCausalLM(LlamaConfig(**SIZES, **heads, initializer_range=0.3)).eval()

    def read(self, folder):
        return read(folder, self.sites, self.shapes, None)

    def outputs(self, model):
        import torch

        with torch.no_grad():
            return model(input_ids=torch.arange(10).reshape(2, 5))[0].numpy()

    def with_deltas(self, expert):
        """Outputs of the plain model with the expert's dense deltas added to its weights."""
        import torch

        model = self.model()
        linears = dict(model.named_modules())
        with torch.no_grad():
            for module, site in self.sites.items():
                if site in expert.loras:
                    linears[module].weight += torch.from_numpy(lora.delta(expert.loras[site]).T)
        return self.outputs(model)


@pytest.fixture(params=["bert", "llama"])
def base(request):
    return Base(request.param)


def drawn(base, sites, rslora):
    rng = np.random.default_rng(0)
    loras = {}
    for (path, layer), (r, alpha) in sites.items():
        d, f = base.shapes[path]
        a, b = rng.normal(size=(r, d)).astype(np.float32), rng.normal(size=(r, f)).astype(np.float32)
        loras[path, layer] = Lora(a, b, alpha, rslora)
    return Expert("mine", {}, loras)


def everywhere(base):
    return {site: (1 + i % 3, 2.0 + i % 2) for i, site in enumerate(base.sites.values())}


def one_layer(base):
    return {("layers/attn/v", 1): (2, 3.0), ("layers/mlp/down", 1): (2, 3.0)}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("where", [everywhere, one_layer])
def test_peft_loads_what_we_write(base, tmp_path, where, rslora):
    from peft import PeftModel

    expert = drawn(base, where(base), rslora)
    write(tmp_path / "mine", expert, base.sites)
    model = PeftModel.from_pretrained(base.model(), tmp_path / "mine")
    expected, plain = base.with_deltas(expert), base.outputs(base.model())
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(base.outputs(model), expected, rtol=1e-4, atol=1e-4)
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert len(adapted) == len(expert.loras)


def patterns(base):
    """Configurations of PEFT that change rank, alpha, scale or targets."""
    query, up = ("query", "intermediate.dense") if base.kind == "bert" else ("q_proj", "up_proj")
    prefix = "encoder.layer" if base.kind == "bert" else "model.layers"
    two = {"r": 4, "lora_alpha": 6, "target_modules": [query, up]}
    escaped = prefix.replace(".", r"\.")
    return {
        "plain": two,
        "rslora": two | {"use_rslora": True},
        "rank pattern": two | {"rank_pattern": {query: 2, f"^{escaped}.0.*{up.split('.')[0]}.*": 3}},
        "alpha pattern": two | {"alpha_pattern": {f"1.*{query}": 1, rf"\d+.*{query}": 32}},
        "both, rslora": two | {"rank_pattern": {query: 2}, "alpha_pattern": {up: 32}, "use_rslora": True},
        "regex": two | {"target_modules": rf"{escaped}\.(0\..*{query}|1\..*{up})"},
        "layers": two | {"layers_to_transform": [1]},
        "layers by name": two | {"layers_to_transform": 0, "layers_pattern": prefix.split(".")[1]},
        "excluded": two | {"exclude_modules": [f"0.mlp.{up}", f"1.{up}"]},
        "orthogonal": two | {"init_lora_weights": "orthogonal"},
    }


NAMES = [
    "plain", "rslora", "rank pattern", "alpha pattern", "both, rslora", "regex", "layers", "layers by name",
    "excluded", "orthogonal",
]  # fmt: skip


def saved(base, folder, options, dtype="float32"):
    """A folder saved by PEFT with random factors of the given dtype; returns the model and its own deltas."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(base.model(), LoraConfig(**options)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_" in name:
                value.copy_(torch.randn(value.shape).to(getattr(torch, dtype)))
    narrow = {
        name: value.to(getattr(torch, dtype)) for name, value in model.state_dict().items() if "lora_" in name
    }
    state = model.state_dict() | narrow
    model.save_pretrained(folder, state_dict=state)
    layers = {
        name: module for name, module in model.base_model.model.named_modules() if hasattr(module, "lora_A")
    }
    return model, {
        name: module.get_delta_weight("default").detach().numpy() for name, module in layers.items()
    }


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, "float32") for n in NAMES] + [("plain", "bfloat16"), ("plain", "float16")]
)
def test_we_read_what_peft_saves(base, tmp_path, name, dtype):
    model, deltas = saved(base, tmp_path / "theirs", patterns(base)[name], dtype)
    expert, report = base.read(tmp_path / "theirs")
    assert {base.sites[module] for module in deltas} == expert.loras.keys()
    assert set(report.matched) == deltas.keys() and report.unmatched == report.zero == ()
    for module, delta in deltas.items():
        ours = lora.delta(expert.loras[base.sites[module]])
        np.testing.assert_allclose(ours, delta.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(base.outputs(model), base.with_deltas(expert), rtol=1e-4, atol=1e-4)
    write(tmp_path / "again", expert, base.sites)
    again, _ = base.read(tmp_path / "again")
    assert again.info["hash"] == expert.info["hash"]


def test_all_linear_reads_every_site(tmp_path):
    base = Base("llama")
    _, deltas = saved(base, tmp_path / "theirs", {"r": 2, "target_modules": "all-linear"})
    expert, report = base.read(tmp_path / "theirs")
    assert expert.loras.keys() == set(base.sites.values()) and len(deltas) == 14 and report.unmatched == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"use_dora": True}, "use_dora is set"),
        ({"bias": "lora_only"}, "bias is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"lora_bias": True}, "lora_bias is set"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices is set"),
        ({"layer_replication": [(0, 2), (1, 2)]}, "layer_replication is set"),
    ],
)
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
def test_what_peft_saves_beyond_plain_lora_is_refused(tmp_path, options, says):
    base = Base("llama")
    saved(base, tmp_path / "theirs", {"r": 2, "target_modules": ["q_proj"]} | options)
    with pytest.raises(UserError, match=says):
        base.read(tmp_path / "theirs")


def test_every_field_of_the_config_is_in_a_table():
    from peft import LoraConfig

    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields == USED | WITHOUT_MEANING | set(REFUSED)


def test_our_config_holds_only_fields_that_peft_knows(tmp_path):
    from peft import LoraConfig

    base = Base("bert")
    write(tmp_path / "mine", drawn(base, one_layer(base), False), base.sites)
    assert json.loads((tmp_path / "mine" / CONFIG).read_text()).keys() <= {
        field.name for field in dataclasses.fields(LoraConfig)
    }
