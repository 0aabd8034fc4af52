"""PHATGOOSE on T5-XL, pool "T0 Held-In": 36 experts of P3 datasets, scored on T0's held-out sets. Never run at scale.

    python train.py --config configs/papers/phatgoose_p3.py --data-dir FOLDER      # FOLDER/p3 holds bigscience/P3
    python eval.py --config configs/papers/phatgoose_p3.py --data-dir FOLDER
    python train.py --config configs/papers/phatgoose_p3.py --shrink               # what was run: docs/recipes.md

Muqeeth, Liu, Liu, Raffel 2024 (2402.05859); hyper-parameters as in r-three/phatgoose at 4fd5790. A name here is what
the names of P3's folders begin with (a dataset; each of its folders is one template).
"""

from moejax.config import BaseConfig, Config, DataConfig, EvaluationConfig
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser

LINEARS = tuple(
    f"{stack}/{site}"
    for stack, sites in {
        "encoder_layers": ("attn/q", "attn/k", "attn/v", "attn/o", "mlp/gate", "mlp/up", "mlp/down"),
        "cross_layers": ("cross/k", "cross/v"),
        "layers": (
            "attn/q", "attn/k", "attn/v", "attn/o", "cross/q", "cross/o", "mlp/gate", "mlp/up", "mlp/down",
        ),
    }.items()
    for site in sites
)  # fmt: skip
HELD_IN = (
    "ag_news", "amazon_polarity", "cosmos_qa", "samsum", "quartz", "ropes", "wiki_bio", "paws_labeled_final",
    "wiki_qa", "social_i_qa", "qasc", "quail", "dream", "wiqa", "quarel", "sciq", "quoref", "duorc_ParaphraseRC",
    "rotten_tomatoes", "yelp_review_full", "common_gen", "gigaword", "xsum", "glue_mrpc", "glue_qqp",
    "commonsense_qa", "cos_e_v1.11", "wiki_hop_original", "kilt_tasks_hotpotqa", "app_reviews", "trec", "multi_news",
    "imdb", "adversarial_qa", "cnn_dailymail_3.0.0", "dbpedia_14",
)  # fmt: skip
HELD_OUT = (
    "super_glue_rte", "hellaswag", "super_glue_copa", "super_glue_wic", "winogrande_winogrande_xl", "super_glue_cb",
    "anli", "super_glue_wsc.fixed",
)  # fmt: skip


def config() -> Config:
    """36 experts, and the routers of the paper's table that are built here."""
    return Config(
        seed=42, settled_on="the papers' own hyper-parameters",
        base=BaseConfig(source="google/t5-xl-lm-adapt", dtype="bfloat16", remat=True),
        data=DataConfig(
            source="hub:p3", held_in=HELD_IN, held_out=HELD_OUT, window=512, train_rows=500_000,
            validation_rows=10_000, test_rows=10_000,
        ),
        experts=Recipe(
            rank=16, alpha=1.0, targets=LINEARS, batch=1024,
            optimiser=Optimiser(5e-3, 1000, 0.06, "constant", decay=0.0, clip=1.0),
        ),
        methods=(
            "base", "uniform", "phatgoose(k=2, steps=100, batch=1024, rate=5e-3, warmup=0.06)",
            "average_activation(rows=1000)", "arrow(k=2)", "own_expert",
        ),
        evaluation=EvaluationConfig(batch=32, max_new=64),
    )  # fmt: skip
