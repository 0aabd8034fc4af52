"""Model families as data: how a Hugging Face config and its tensor names map onto ours.

A family is a row of FAMILIES. NAMES maps a module's path to its Hugging Face name, `{}` for the layer.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

REQUIRED = object()

ENCODER_NAMES = {
    "embed": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "type": "embeddings.token_type_embeddings",
    "embed_norm": "embeddings.LayerNorm",
    "layers/attn/q": "encoder.layer.{}.attention.self.query",
    "layers/attn/k": "encoder.layer.{}.attention.self.key",
    "layers/attn/v": "encoder.layer.{}.attention.self.value",
    "layers/attn/o": "encoder.layer.{}.attention.output.dense",
    "layers/attn_join/norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layers/mlp/up": "encoder.layer.{}.intermediate.dense",
    "layers/mlp/down": "encoder.layer.{}.output.dense",
    "layers/mlp_join/norm": "encoder.layer.{}.output.LayerNorm",
}
DECODER_NAMES = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "lm_head": "lm_head",
    "layers/attn_norm": "model.layers.{}.input_layernorm",
    "layers/attn/q": "model.layers.{}.self_attn.q_proj",
    "layers/attn/k": "model.layers.{}.self_attn.k_proj",
    "layers/attn/v": "model.layers.{}.self_attn.v_proj",
    "layers/attn/o": "model.layers.{}.self_attn.o_proj",
    "layers/mlp_norm": "model.layers.{}.post_attention_layernorm",
    "layers/mlp/gate": "model.layers.{}.mlp.gate_proj",
    "layers/mlp/up": "model.layers.{}.mlp.up_proj",
    "layers/mlp/down": "model.layers.{}.mlp.down_proj",
}
HOMES = {  # AdapterHub's modules of bottleneck adapters, by sub-layer
    "encoder": {"layers/attn": "encoder.layer.{}.attention.output", "layers/mlp": "encoder.layer.{}.output"},
    "decoder": {"layers/attn": "layers.{}.attention_adapters", "layers/mlp": "layers.{}.output_adapters"},
}
NAMES = {"encoder": ENCODER_NAMES, "decoder": DECODER_NAMES}
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


@dataclass(frozen=True)
class Family:
    """fields: ours -> (theirs, default); fixed: ours -> value; only: theirs -> the one value known here."""

    kind: Literal["encoder", "decoder", "seq2seq"]
    fields: dict[str, tuple[str, Any]]
    fixed: dict[str, Any] = field(default_factory=dict)
    only: dict[str, Any] = field(default_factory=dict)


_BERT = {
    "vocab": ("vocab_size", REQUIRED),
    "width": ("hidden_size", REQUIRED),
    "layers": ("num_hidden_layers", REQUIRED),
    "heads": ("num_attention_heads", REQUIRED),
    "hidden": ("intermediate_size", REQUIRED),
    "positions": ("max_position_embeddings", 512),
    "types": ("type_vocab_size", 2),
    "activation": ("hidden_act", "gelu"),
    "eps": ("layer_norm_eps", 1e-12),
}
_LLAMA = {
    "vocab": ("vocab_size", REQUIRED),
    "width": ("hidden_size", REQUIRED),
    "layers": ("num_hidden_layers", REQUIRED),
    "heads": ("num_attention_heads", REQUIRED),
    "kv_heads": ("num_key_value_heads", None),
    "hidden": ("intermediate_size", REQUIRED),
    "head_dim": ("head_dim", None),
    "activation": ("hidden_act", "silu"),
    "eps": ("rms_norm_eps", 1e-6),
    "tied": ("tie_word_embeddings", False),
}
_LLAMA_BIAS = {
    "qkv_bias": ("attention_bias", False),
    "out_bias": ("attention_bias", False),
    "mlp_bias": ("mlp_bias", False),
}
_T5 = {
    "vocab": ("vocab_size", REQUIRED),
    "width": ("d_model", REQUIRED),
    "encoder_layers": ("num_layers", REQUIRED),
    "decoder_layers": ("num_decoder_layers", None),
    "heads": ("num_heads", REQUIRED),
    "head_dim": ("d_kv", REQUIRED),
    "hidden": ("d_ff", REQUIRED),
    "eps": ("layer_norm_epsilon", 1e-6),
    "buckets": ("relative_attention_num_buckets", 32),
    "most": ("relative_attention_max_distance", 128),
}
_MISTRAL = {"kv_heads": ("num_key_value_heads", 8), "window": ("sliding_window", 4096)}
FAMILIES = {
    "bert": Family(
        "encoder", _BERT,
        only={"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False},
    ),
    "llama": Family("decoder", _LLAMA | _LLAMA_BIAS),
    "mistral": Family("decoder", _LLAMA | _MISTRAL),
    "qwen2": Family("decoder", _LLAMA, fixed={"qkv_bias": True}, only={"use_sliding_window": False}),
    "t5": Family("seq2seq", _T5, only={"is_encoder_decoder": True}),
}  # fmt: skip
