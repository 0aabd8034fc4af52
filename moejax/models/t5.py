"""T5 on disk: what of its config.json is no plain field, and the names of its tensors."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from moejax.models.seq2seq import Seq2SeqConfig
from moejax.types import UserError

NAMES = {
    "embed": "shared",
    "lm_head": "lm_head",
    "encoder_distance": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "encoder_norm": "encoder.final_layer_norm",
    "encoder_layers/attn_norm": "encoder.block.{}.layer.0.layer_norm",
    "encoder_layers/attn/q": "encoder.block.{}.layer.0.SelfAttention.q",
    "encoder_layers/attn/k": "encoder.block.{}.layer.0.SelfAttention.k",
    "encoder_layers/attn/v": "encoder.block.{}.layer.0.SelfAttention.v",
    "encoder_layers/attn/o": "encoder.block.{}.layer.0.SelfAttention.o",
    "encoder_layers/mlp_norm": "encoder.block.{}.layer.1.layer_norm",
    "encoder_layers/mlp/gate": "encoder.block.{}.layer.1.DenseReluDense.wi_0",
    "encoder_layers/mlp/up": "encoder.block.{}.layer.1.DenseReluDense.wi_1",
    "encoder_layers/mlp/down": "encoder.block.{}.layer.1.DenseReluDense.wo",
    "cross_layers/cross/k": "decoder.block.{}.layer.1.EncDecAttention.k",
    "cross_layers/cross/v": "decoder.block.{}.layer.1.EncDecAttention.v",
    "distance": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "norm": "decoder.final_layer_norm",
    "layers/attn_norm": "decoder.block.{}.layer.0.layer_norm",
    "layers/attn/q": "decoder.block.{}.layer.0.SelfAttention.q",
    "layers/attn/k": "decoder.block.{}.layer.0.SelfAttention.k",
    "layers/attn/v": "decoder.block.{}.layer.0.SelfAttention.v",
    "layers/attn/o": "decoder.block.{}.layer.0.SelfAttention.o",
    "layers/cross_norm": "decoder.block.{}.layer.1.layer_norm",
    "layers/cross/q": "decoder.block.{}.layer.1.EncDecAttention.q",
    "layers/cross/o": "decoder.block.{}.layer.1.EncDecAttention.o",
    "layers/mlp_norm": "decoder.block.{}.layer.2.layer_norm",
    "layers/mlp/gate": "decoder.block.{}.layer.2.DenseReluDense.wi_0",
    "layers/mlp/up": "decoder.block.{}.layer.2.DenseReluDense.wi_1",
    "layers/mlp/down": "decoder.block.{}.layer.2.DenseReluDense.wo",
}
PLAIN_NAMES = NAMES | {
    path: NAMES[path][:-2] for path in NAMES if path.endswith("mlp/up")
}  # wi, without a gate
HEAD = "lm_head.weight"
FORMS = {  # feed_forward_proj -> gated, activation
    "relu": (False, "relu"), "gated-gelu": (True, "gelu_tanh"), "gated-silu": (True, "silu"),
    "gated-relu": (True, "relu"), "gelu": (False, "gelu"), "silu": (False, "silu"),
}  # fmt: skip


def names_of(config: Seq2SeqConfig) -> dict[str, str]:
    """Path of a module -> its Hugging Face name."""
    return NAMES if config.gated else PLAIN_NAMES


def configured(values: dict[str, Any], hf: dict[str, Any], source: str, dtype: str) -> Seq2SeqConfig:
    """The config from its plain fields and from those of T5's that say several things at once.

    `tie_word_embeddings` false means an own head and states that are not shrunk before it, as in v1.1; transformers 5
    writes the latter as `scale_decoder_outputs`, and always says tied (see `with_head`).
    Raises UserError for a form of MLP that is not known, a start token outside the vocabulary, buckets that are
    too few.
    """
    form = hf.get("feed_forward_proj", "relu")
    if not isinstance(form, str) or form not in FORMS:
        raise UserError(f"{source}: feed_forward_proj is {form!r}; expected one of {', '.join(FORMS)}")
    tied = hf.get("tie_word_embeddings", True)
    shrunk = hf.get("scale_decoder_outputs", tied is not False)
    for key, value in (("tie_word_embeddings", tied), ("scale_decoder_outputs", shrunk)):
        if type(value) is not bool:
            raise UserError(f"{source}: {key} is {value!r}; expected true or false")
    begin = hf.get("decoder_start_token_id")
    begin = hf.get("pad_token_id", 0) if begin is None else begin
    if type(begin) is not int or not 0 <= begin < values["vocab"]:
        raise UserError(
            f"{source}: the decoder starts from token {begin!r}; expected decoder_start_token_id, or pad_token_id, "
            f"from 0 to {values['vocab'] - 1}"
        )
    if values["buckets"] % 2 or values["buckets"] < 4 or values["most"] <= values["buckets"] // 2:
        raise UserError(
            f"{source}: {values['buckets']} relative_attention_num_buckets for distances up to {values['most']}: "
            "expected an even number of at least 4, less than twice relative_attention_max_distance"
        )
    gated, activation = FORMS[form]
    values = values | {"decoder_layers": values["decoder_layers"] or values["encoder_layers"]}
    more = {"gated": gated, "activation": activation, "tied": tied, "shrunk": shrunk, "begin": begin}
    return Seq2SeqConfig(**values, **more, dtype=dtype)


def with_head(config: Seq2SeqConfig, tensors: Collection[str]) -> Seq2SeqConfig:
    """The config with a head of its own where the files hold one, as transformers reads them."""
    return replace(config, tied=config.tied and HEAD not in tensors)


def described(config: Seq2SeqConfig) -> dict[str, Any]:
    """What of config.json is no plain field."""
    form = next(form for form, made in FORMS.items() if made == (config.gated, config.activation))
    return {
        "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True, "feed_forward_proj": form,
        "tie_word_embeddings": config.tied, "scale_decoder_outputs": config.shrunk,
        "decoder_start_token_id": config.begin, "pad_token_id": config.begin,
    }  # fmt: skip
