"""Model families as data: how a Hugging Face config and its tensor names map onto ours, a row of FAMILIES each."""

from dataclasses import dataclass, field
from typing import Any, Literal

from moejax.models import names

REQUIRED = object()


@dataclass(frozen=True)
class Family:
    """What is true of every model of a family.

    fields    ours -> (theirs, default)
    fixed     ours -> value
    only      theirs -> the one value known here, where it is given
    names     path -> Hugging Face module; homes: sub-layer -> AdapterHub's module
    wrapper   the class of transformers that `save` names
    said      what `save` writes beside, where transformers' own default does not fit every size
    turned    linears lie [out, in] in the files
    windows   which layers see a window: "none", "all", "listed" (those of `layer_types`, else all but each n-th),
              "upper" (likewise, else those from `max_window_layers`, and only if `use_sliding_window`)
    every     the key that says n, if there is one, and n where it does not
    thetas    rotary base where the config has none, and that of the layers with a window
    offset    positions begin behind the number of the padding token
    part      part of a head that is turned where the config does not say; None: always the whole
    """

    kind: Literal["encoder", "decoder", "seq2seq"]
    fields: dict[str, tuple[str, Any]]
    fixed: dict[str, Any] = field(default_factory=dict)
    only: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=lambda: names.LLAMA)
    homes: dict[str, str] = field(default_factory=dict)
    wrapper: str = "LlamaForCausalLM"
    said: dict[str, Any] = field(default_factory=dict)
    turned: bool = True
    windows: Literal["none", "all", "listed", "upper"] = "none"
    every: tuple[str, int] = ("", 2)
    offset: bool = False
    thetas: tuple[float, float | None] = (10000.0, None)
    part: float | None = None


_SIZES = {
    "vocab": ("vocab_size", REQUIRED),
    "width": ("hidden_size", REQUIRED),
    "layers": ("num_hidden_layers", REQUIRED),
    "heads": ("num_attention_heads", REQUIRED),
    "hidden": ("intermediate_size", REQUIRED),
}
_BERT = _SIZES | {
    "positions": ("max_position_embeddings", 512),
    "types": ("type_vocab_size", 2),
    "activation": ("hidden_act", "gelu"),
    "eps": ("layer_norm_eps", 1e-12),
}
_LLAMA = _SIZES | {
    "kv_heads": ("num_key_value_heads", None),
    "head_dim": ("head_dim", None),
    "activation": ("hidden_act", "silu"),
    "eps": ("rms_norm_eps", 1e-6),
    "tied": ("tie_word_embeddings", False),
}
_BIAS = {"qkv_bias": ("attention_bias", False), "out_bias": ("attention_bias", False)}
_QWEN3 = {"head_dim": ("head_dim", 128)}
_GEMMA = {
    "kv_heads": ("num_key_value_heads", 4),
    "head_dim": ("head_dim", 256),
    "activation": ("hidden_activation", "gelu_pytorch_tanh"),
    "tied": ("tie_word_embeddings", True),
    "query": ("query_pre_attn_scalar", 256),
    "cap": ("attn_logit_softcapping", None),
    "head_cap": ("final_logit_softcapping", None),
}
_GEMMA_CAPS = {"cap": ("attn_logit_softcapping", 50.0), "head_cap": ("final_logit_softcapping", 30.0)}
_GEMMA_FIXED = {"norm": "shifted", "sandwich": True, "scaled": True}
_PHI = _SIZES | {
    "kv_heads": ("num_key_value_heads", None),
    "activation": ("hidden_act", "gelu_new"),
    "eps": ("layer_norm_eps", 1e-5),
    "tied": ("tie_word_embeddings", False),
}
_BIASED = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
_PHI_FIXED = _BIASED | {"norm": "layer", "gated": False, "parallel": True, "head_bias": True}
_GPT2 = {
    "vocab": ("vocab_size", REQUIRED),
    "width": ("n_embd", REQUIRED),
    "layers": ("n_layer", REQUIRED),
    "heads": ("n_head", REQUIRED),
    "hidden": ("n_inner", None),
    "learned": ("n_positions", 1024),
    "activation": ("activation_function", "gelu_new"),
    "eps": ("layer_norm_epsilon", 1e-5),
    "tied": ("tie_word_embeddings", True),
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
_GPT2_FIXED = _BIASED | {"norm": "layer", "gated": False, "fused": True, "rotary": None, "kv_heads": None}
_ENCODER_ONLY = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
_GPT2_ONLY = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
_GEMMA_ONLY = {"use_bidirectional_attention": False}

_WINDOW = {"window": ("sliding_window", 4096)}
_CODERS: dict[str, Any] = {"names": names.ENCODER, "homes": names.ENCODER_HOMES}

FAMILIES = {
    "bert": Family("encoder", _BERT, {"offset": 0}, _ENCODER_ONLY, wrapper="BertModel", **_CODERS),
    "roberta": Family("encoder", _BERT, {}, _ENCODER_ONLY, wrapper="RobertaModel", offset=True, **_CODERS),
    "xlm-roberta": Family("encoder", _BERT, {}, _ENCODER_ONLY, wrapper="XLMRobertaModel", offset=True, **_CODERS),
    "llama": Family("decoder", _LLAMA | _BIAS | {"mlp_bias": ("mlp_bias", False)}, homes=names.DECODER_HOMES),
    "mistral": Family(
        "decoder", _LLAMA | _WINDOW | {"kv_heads": ("num_key_value_heads", 8)}, homes=names.DECODER_HOMES,
        wrapper="MistralForCausalLM", windows="all",
    ),
    "qwen2": Family(
        "decoder", _LLAMA | _WINDOW, {"qkv_bias": True}, wrapper="Qwen2ForCausalLM", windows="upper"
    ),
    "qwen3": Family(
        "decoder", _LLAMA | _BIAS | _WINDOW | _QWEN3, {"qk_norm": True}, wrapper="Qwen3ForCausalLM", windows="upper"
    ),
    "phi": Family(
        "decoder", _PHI, _PHI_FIXED, {"qk_layernorm": False}, names.PHI, wrapper="PhiForCausalLM", part=0.5
    ),
    "phi3": Family(
        "decoder", _LLAMA | {"eps": ("rms_norm_eps", 1e-5), "window": ("sliding_window", None)}, {"fused": True},
        wrapper="Phi3ForCausalLM", said={"pad_token_id": None}, windows="all", part=1.0,
    ),
    "gemma2": Family(
        "decoder", _LLAMA | _BIAS | _WINDOW | _GEMMA | _GEMMA_CAPS, _GEMMA_FIXED, _GEMMA_ONLY, names.GEMMA,
        wrapper="Gemma2ForCausalLM", windows="listed", every=("", 2),
    ),
    "gemma3_text": Family(
        "decoder", _LLAMA | _BIAS | _WINDOW | _GEMMA, _GEMMA_FIXED | {"qk_norm": True}, _GEMMA_ONLY, names.GEMMA,
        wrapper="Gemma3ForCausalLM", windows="listed", every=("sliding_window_pattern", 6), thetas=(1e6, 1e4),
    ),
    "gpt2": Family(
        "decoder", _GPT2, _GPT2_FIXED, _GPT2_ONLY, names.GPT2, names.GPT2_HOMES,
        wrapper="GPT2LMHeadModel", turned=False,
    ),
    "t5": Family("seq2seq", _T5, only={"is_encoder_decoder": True}, wrapper="T5ForConditionalGeneration"),
}  # fmt: skip
