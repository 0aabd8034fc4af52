"""The real PEFT loads what we write, with the same deltas, and knows no field that our table lacks."""

import dataclasses
import json

import numpy as np
import pytest

from moejax.experts import lora
from moejax.experts.expert import Expert
from moejax.experts.files import write
from moejax.experts.folder import CONFIG
from moejax.experts.lora import Lora
from moejax.experts.peft_fields import REFUSED, USED, WITHOUT_MEANING

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
