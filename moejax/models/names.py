"""Names: a module's path in our parameters -> its name in Hugging Face's model, `{}` for the layer."""

ENCODER = {
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
LLAMA = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "lm_head": "lm_head",
    "layers/attn_norm": "model.layers.{}.input_layernorm",
    "layers/attn/q": "model.layers.{}.self_attn.q_proj",
    "layers/attn/k": "model.layers.{}.self_attn.k_proj",
    "layers/attn/v": "model.layers.{}.self_attn.v_proj",
    "layers/attn/qkv": "model.layers.{}.self_attn.qkv_proj",
    "layers/attn/o": "model.layers.{}.self_attn.o_proj",
    "layers/attn/q_norm": "model.layers.{}.self_attn.q_norm",
    "layers/attn/k_norm": "model.layers.{}.self_attn.k_norm",
    "layers/mlp_norm": "model.layers.{}.post_attention_layernorm",
    "layers/mlp/gate": "model.layers.{}.mlp.gate_proj",
    "layers/mlp/up": "model.layers.{}.mlp.up_proj",
    "layers/mlp/gate_up": "model.layers.{}.mlp.gate_up_proj",
    "layers/mlp/down": "model.layers.{}.mlp.down_proj",
}
GEMMA = LLAMA | {
    "layers/attn_join/norm": "model.layers.{}.post_attention_layernorm",
    "layers/mlp_norm": "model.layers.{}.pre_feedforward_layernorm",
    "layers/mlp_join/norm": "model.layers.{}.post_feedforward_layernorm",
}
PHI = LLAMA | {
    "norm": "model.final_layernorm",
    "layers/attn/o": "model.layers.{}.self_attn.dense",
    "layers/mlp/up": "model.layers.{}.mlp.fc1",
    "layers/mlp/down": "model.layers.{}.mlp.fc2",
}
GPT2 = {
    "embed": "transformer.wte",
    "position": "transformer.wpe",
    "norm": "transformer.ln_f",
    "lm_head": "lm_head",
    "layers/attn_norm": "transformer.h.{}.ln_1",
    "layers/attn/qkv": "transformer.h.{}.attn.c_attn",
    "layers/attn/o": "transformer.h.{}.attn.c_proj",
    "layers/mlp_norm": "transformer.h.{}.ln_2",
    "layers/mlp/up": "transformer.h.{}.mlp.c_fc",
    "layers/mlp/down": "transformer.h.{}.mlp.c_proj",
}
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}

# AdapterHub's modules of bottleneck adapters, by sub-layer
ENCODER_HOMES = {"layers/attn": "encoder.layer.{}.attention.output", "layers/mlp": "encoder.layer.{}.output"}
DECODER_HOMES = {"layers/attn": "layers.{}.attention_adapters", "layers/mlp": "layers.{}.output_adapters"}
GPT2_HOMES = {"layers/attn": "h.{}.attention_adapters", "layers/mlp": "h.{}.output_adapters"}
