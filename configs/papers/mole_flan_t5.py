"""MoLE on Flan-T5: gates over LoRAs of NLI tasks, fitted for each task of BIG-bench Hard. Never run at scale.

    python train.py --config configs/papers/mole_flan_t5.py --data-dir FOLDER
    python eval.py --config configs/papers/mole_flan_t5.py --data-dir FOLDER
    python train.py --config configs/papers/mole_flan_t5.py --shrink          # what was run: docs/recipes.md

FOLDER/lorahub holds what sail-sg/lorahub's download_flan.py writes, FOLDER/lorahub_bbh its data_bbh.zip. Wu, Huang, Wei
2024 (2404.13628), section 4; the experts as sail-sg/lorahub at 2c99a1e trains them (run.sh, train_model.py).
`mole` by blocks, as published, is not built on a T5: its row says so, `matrix` runs; by blocks: mole_mistral.py.
"""

from moejax.config import BaseConfig, Config, DataConfig, EvaluationConfig
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser

NLI = (
    "anli_r1",
    "anli_r2",
    "anli_r3",
    "glue_mnli",
    "glue_qnli",
    "glue_wnli",
    "snli",
    "super_glue_cb",
    "super_glue_rte",
)
HARD = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
    "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
    "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies",
    "word_sorting",
)  # fmt: skip
TARGETS = (  # q and v of every attention: PEFT's own choice for a T5
    "encoder_layers/attn/q", "encoder_layers/attn/v", "cross_layers/cross/v", "layers/attn/q", "layers/attn/v",
    "layers/cross/q",
)  # fmt: skip
PAPER = "balance=0.5, steps=800, batch=12, rate=1e-5"
METHODS = (
    "base", "uniform", "lorahub", f"mole(block, {PAPER})", f"mole(layer, {PAPER})", f"mole(matrix, {PAPER})",
    "mole(matrix, balance=0.5, steps=800, batch=12)",
)  # fmt: skip


def config() -> Config:
    """Nine experts; MoLE at the paper's rate, and at that of the pooled gate, beside LoraHub."""
    return Config(
        settled_on="the papers' own hyper-parameters",
        base=BaseConfig(source="google/flan-t5-large", remat=True),
        data=DataConfig(
            source="hub:lorahub+lorahub_bbh", held_in=NLI, held_out=HARD, window=1024, train_rows=10_000,
            validation_rows=1000, test_rows=1000,
        ),
        experts=Recipe(
            rank=16, alpha=32.0, targets=TARGETS, batch=10,
            optimiser=Optimiser(2e-4, 16_000, 0.0, "linear", decay=0.0, clip=1.0),
        ),
        methods=METHODS, evaluation=EvaluationConfig(batch=48, max_new=64),
    )  # fmt: skip
