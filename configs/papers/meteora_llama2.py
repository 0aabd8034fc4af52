"""MeteoRA on Llama-2-13B: gates over 28 experts, trained on their pooled, named data. Never run at scale.

    python train.py --config configs/papers/meteora_llama2.py --data-dir FOLDER   # FOLDER/meteora/TASK/train.jsonl, …
    python eval.py --config configs/papers/meteora_llama2.py --data-dir FOLDER
    python train.py --config configs/papers/meteora_llama2.py --shrink            # what was run: docs/recipes.md

Xu, Lai, Huang 2024 (2405.13053); hyper-parameters as in NJUDeepEngine/meteora (run_meteora_train_fsdp.sh at 43f294e,
meteora_train.py at 6227ac3), the tasks those of its data/dataset_presets.py. How the experts were trained is not stated
beyond their rank and linears: the rest of `experts` is ours.
"""

from moejax.config import BaseConfig, Config, DataConfig, EvaluationConfig
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser

LINEARS = tuple(
    f"layers/{site}" for site in ("attn/q", "attn/k", "attn/v", "attn/o", "mlp/gate", "mlp/up", "mlp/down")
)
TASKS = (
    "formal_fallacies_syllogisms_negation", "language_identification", "linguistics_puzzles", "logical_deduction",
    "play_dialog_same_or_different", "strategyqa", "vitaminc_fact_verification", "winowhy", "gsm8k",
    "object_counting", "abstract_narrative_understanding", "contextual_parametric_knowledge_conflicts",
    "cs_algorithms", "elementary_math_qa", "question_selection", "topical_chat", "cnn_dailymail",
    "news_commentary_es", "news_commentary_it", "news_commentary_de", "tracking_shuffled_objects",
    "goal_step_wikihow", "disfl_qa", "unit_conversion", "paragraph_segmentation", "reasoning_about_colored_objects",
    "epistemic_reasoning", "alpaca",
)  # fmt: skip
GATES = "steps=15000, batch=32, rate=5e-4, warmup=0.005, identity=50.0, temperature=1.0"


def config() -> Config:
    """28 experts; gates of two chosen experts and of one, experts frozen, and trained with them as in the release."""
    return Config(
        settled_on="the papers' own hyper-parameters",
        base=BaseConfig(source="meta-llama/Llama-2-13b-hf", dtype="bfloat16", remat=True),
        data=DataConfig(
            source="hub:meteora", held_in=TASKS, window=4096, train_rows=100_000, validation_rows=10_000,
            test_rows=50_000,
        ),
        experts=Recipe(rank=8, alpha=16.0, targets=LINEARS, batch=32, optimiser=Optimiser(5e-4, 1000, 0.05)),
        methods=(
            "base", "uniform", f"meteora(k=2, {GATES})", f"meteora(k=1, {GATES})",
            f"meteora(k=2, train_loras=True, {GATES})", "own_expert",
        ),
        evaluation=EvaluationConfig(batch=8, max_new=128),
    )  # fmt: skip
