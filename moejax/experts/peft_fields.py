"""Every field of PEFT's LoraConfig: read, without meaning for the weights, or refused unless empty."""

USED = frozenset(
    "peft_type r lora_alpha use_rslora rank_pattern alpha_pattern target_modules exclude_modules "
    "layers_to_transform layers_pattern init_lora_weights base_model_name_or_path lora_bias".split()
)
# About training, saving or memory (MonteCLoRA samples around A in training alone). The *_config of an initialisation
# matter only with that initialisation.
WITHOUT_MEANING = frozenset(
    "task_type auto_mapping peft_version revision inference_mode lora_dropout fan_in_fan_out megatron_core "
    "loftq_config eva_config corda_config lora_ga_config qalora_group_size runtime_config velora_config "
    "ensure_weight_tying monteclora_config".split()
)
# Field -> what the folder then holds that (path, layer, A, B, scale) cannot say. Empty values are harmless.
REFUSED = {
    "use_dora": "DoRA (weights split into magnitude and direction)",
    "bias": "trained biases",
    "modules_to_save": "whole trained modules",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "LoRA on bare parameters",
    "layer_replication": "a base with layers repeated",
    "alora_invocation_tokens": "activated LoRA (on from an invocation on)",
    "use_qalora": "QALoRA (inputs pooled in groups)",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing state",
    "kasa_config": "KaSA (a base with singular values removed)",
    "megatron_config": "Megatron's sharded linears",
}
EMPTY = (None, False, "none", "", [], {})
# Initialisations that leave the base alone; the others rewrite it: the folder is not the whole expert.
PLAIN_INIT = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
