"""Shapes of published bases, as their config.json has them: what can be planned before any weight is there."""

from typing import Any

from moejax.models.configs import configure
from moejax.models.decoder import DecoderConfig
from moejax.models.encoder import EncoderConfig
from moejax.models.seq2seq import Seq2SeqConfig
from moejax.types import UserError

_T5 = {
    "model_type": "t5", "d_kv": 64, "num_layers": 24, "num_decoder_layers": 24, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6, "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128, "tie_word_embeddings": False, "decoder_start_token_id": 0,
    "pad_token_id": 0, "is_encoder_decoder": True,
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    # the copy that names it, akoksal/LongForm-T5-XL at 4944c40
    "google/t5-xl-lm-adapt": _T5 | {"d_model": 2048, "d_ff": 5120, "num_heads": 32},
    # the copy that names it, navjordj/flan-t5-large_en-no at a2576dd
    "google/flan-t5-large": _T5 | {"d_model": 1024, "d_ff": 2816, "num_heads": 16},
    # Flamberg/phi-2 at main
    "microsoft/phi-2": {
        "model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 51200, "max_position_embeddings": 2048,
        "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.4, "rope_theta": 10000.0,
        "rope_scaling": None, "qk_layernorm": False, "tie_word_embeddings": False,
    },
    # the copy that names it, dmayboroda/42_mistral_0.1 at main
    "mistralai/Mistral-7B-v0.1": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 32768,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": False,
    },
    # the copy that names it, ybkim95-ai/torchtune-med-llama-2-13b-hf at 9a90c74
    "meta-llama/Llama-2-13b-hf": {
        "model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32000, "max_position_embeddings": 4096,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_scaling": None, "tie_word_embeddings": False,
    },
}  # fmt: skip
SMALL = {
    "d_model": 40, "d_kv": 10, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
    "hidden_size": 40, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
"""Sizes of a base that has every option of the published one and takes no time."""


def published(name: str) -> dict[str, Any]:
    """The config.json of a published base. Raises UserError where its shape is not known here."""
    if name not in BASES:
        raise UserError(
            f"base.source is {name!r}, whose shape is not known here: expected {', '.join(BASES)}"
        )
    return BASES[name]


def shape(name: str, dtype: str = "float32") -> EncoderConfig | DecoderConfig | Seq2SeqConfig:
    """Our config of a published base."""
    return configure(published(name), f"config.json of {name}", dtype)


def small(name: str, vocab: int) -> EncoderConfig | DecoderConfig | Seq2SeqConfig:
    """Our config of its like with `SMALL` sizes, and as many query heads for each key head."""
    hf = published(name)
    shrunk = hf | {key: size for key, size in SMALL.items() if key in hf} | {"vocab_size": vocab}
    if "num_key_value_heads" in hf:
        each = hf["num_attention_heads"] // hf["num_key_value_heads"]
        shrunk["num_key_value_heads"] = max(1, SMALL["num_attention_heads"] // each)
    return configure(shrunk, f"config.json of a small {name}")
