"""Tiny configs of every family, and what to change in each so that a feature of the family is off on our side."""

from dataclasses import dataclass, field, replace
from typing import Any

from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.rotary import Rotary

LLAMA = DecoderConfig(vocab=50, width=32, layers=2, heads=4, kv_heads=2, hidden=48)
QWEN3 = replace(LLAMA, qk_norm=True, head_dim=16)
PHI = replace(
    LLAMA, kv_heads=4, norm="layer", gated=False, parallel=True, head_bias=True, activation="gelu_tanh",
    qkv_bias=True, out_bias=True, mlp_bias=True, rotary=Rotary(part=0.5), eps=1e-5,
)  # fmt: skip
PHI3 = replace(LLAMA, fused=True, eps=1e-5)
GEMMA2 = replace(
    LLAMA, layers=3, norm="shifted", sandwich=True, scaled=True, activation="gelu_tanh", head_dim=8, query=12,
    tied=True, cap=4.0, head_cap=20.0, window=4, local=(True, False, True),
)  # fmt: skip
GEMMA3 = replace(
    GEMMA2, qk_norm=True, cap=None, head_cap=None, local=(True, True, False), rotary=Rotary(1e3), query=4,
    local_rotary=Rotary(20.0),
)  # fmt: skip
GPT2 = replace(
    LLAMA, kv_heads=4, norm="layer", gated=False, fused=True, rotary=None, learned=40, activation="gelu_tanh",
    qkv_bias=True, out_bias=True, mlp_bias=True, tied=True, eps=1e-5,
)  # fmt: skip
LLAMA3 = Rotary(500.0, "llama3", 8.0, 1.0, 4.0, 64)
BERT = EncoderConfig(vocab=50, width=32, layers=2, heads=4, hidden=64, positions=40)
ROBERTA = replace(BERT, positions=38, offset=2, types=1, eps=1e-5)


@dataclass(frozen=True)
class Case:
    """A config, the family it belongs to, and changes to it, each of which must be seen in the logits."""

    family: str
    config: Any
    off: dict[str, dict[str, Any]] = field(default_factory=dict)


CASES = {
    "llama": Case("llama", LLAMA, {"rotary base": {"rotary": Rotary(900.0)}, "GQA": {"kv_heads": 4}}),
    "llama tied": Case(
        "llama", replace(LLAMA, tied=True, kv_heads=4, head_dim=16), {"tied": {"tied": False}}
    ),
    "llama biased": Case("llama", replace(LLAMA, qkv_bias=True, out_bias=True, mlp_bias=True, kv_heads=1)),
    "llama scaled": Case("llama", replace(LLAMA, rotary=LLAMA3), {"scaling": {"rotary": Rotary(500.0)}}),
    "mistral": Case("mistral", replace(LLAMA, window=4), {"window": {"window": None}}),
    "mistral tied": Case("mistral", replace(LLAMA, window=3, tied=True, kv_heads=4)),
    "qwen2": Case("qwen2", replace(LLAMA, qkv_bias=True, rotary=Rotary(1e6))),
    "qwen2 window": Case(
        "qwen2",
        replace(LLAMA, qkv_bias=True, tied=True, kv_heads=4, window=4, local=(False, True)),
        {"some layers": {"local": None}, "other layers": {"local": (True, False)}},
    ),
    "qwen3": Case("qwen3", QWEN3, {"qk-norm": {"qk_norm": False}, "eps": {"eps": 0.1}}),
    "qwen3 tied": Case("qwen3", replace(QWEN3, tied=True, kv_heads=4, qkv_bias=True, out_bias=True)),
    "phi": Case("phi", PHI, {"part": {"rotary": Rotary()}, "parallel": {"parallel": False}}),
    "phi gqa": Case("phi", replace(PHI, kv_heads=2, rotary=Rotary(500.0, part=0.75), hidden=64)),
    "phi3": Case("phi3", replace(PHI3, window=4), {"window": {"window": None}}),
    "phi3 mha": Case(
        "phi3", replace(PHI3, kv_heads=4, tied=True, rotary=Rotary(part=0.5)), {"part": {"rotary": Rotary()}}
    ),
    "gemma2": Case(
        "gemma2",
        GEMMA2,
        {
            "1 + w": {"norm": "rms"},
            "post-norms": {"sandwich": False},
            "cap": {"cap": None},
            "cap of logits": {"head_cap": None},
            "query": {"query": None},
            "some layers": {"local": None},
            "window": {"window": None, "local": None},
        },
    ),
    "gemma2 plain": Case(
        "gemma2",
        replace(
            GEMMA2,
            kv_heads=4,
            cap=None,
            head_cap=None,
            layers=2,
            local=(True, False),
            qkv_bias=True,
            out_bias=True,
        ),
    ),
    "gemma3": Case(
        "gemma3_text",
        GEMMA3,
        {
            "local base": {"local_rotary": None},
            "global base": {"rotary": Rotary(20.0)},
            "qk-norm": {"qk_norm": False},
            "scaled": {"scaled": False},
            "window": {"window": None, "local": None, "local_rotary": None},
        },
    ),
    "gemma3 linear": Case(
        "gemma3_text", replace(GEMMA3, kv_heads=4, rotary=Rotary(1e3, "linear", 8.0), tied=False)
    ),
    "gpt2": Case("gpt2", GPT2, {"positions": {"learned": None}, "activation": {"activation": "relu"}}),
    "gpt2 untied": Case("gpt2", replace(GPT2, tied=False, hidden=128, activation="relu")),
    "bert": Case("bert", BERT, {"activation": {"activation": "relu"}}),
    "roberta": Case("roberta", ROBERTA, {"offset": {"offset": 0, "positions": 40}}),
    "roberta types": Case("roberta", replace(ROBERTA, types=2, offset=1, positions=39)),
}
DECODERS = {name: case for name, case in CASES.items() if isinstance(case.config, DecoderConfig)}
ENCODERS = {name: case for name, case in CASES.items() if name not in DECODERS}
