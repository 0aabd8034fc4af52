"""Arrow on Phi-2: 256 private experts of FLAN tasks, routed by nothing but their weights. Never run at scale.

    python train.py --config configs/papers/arrow_phi2.py --data-dir FOLDER   # FOLDER/flan_flat: sordonia/flan-10k-flat
    python eval.py --config configs/papers/arrow_phi2.py --data-dir FOLDER
    python train.py --config configs/papers/arrow_phi2.py --shrink            # what was run: docs/recipes.md

Ostapenko et al. 2024 (2405.11157); hyper-parameters as in microsoft/mttl at 3724abf, projects/modular_llm
(configs/models/phi-2_hf.json; top-4: its readme). The tasks are `flan256` of its task_sets/flan_tasks.json.
"""

from pathlib import Path

from moejax.config import BaseConfig, Config, DataConfig, EvaluationConfig
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser

TASKS = tuple(Path(__file__).with_name("flan256.txt").read_text().split())
ATTENTION = ("layers/attn/q", "layers/attn/k", "layers/attn/v", "layers/attn/o")
EPOCH = 500  # 8,000 of a task's 10,000 rows are for training; 16 a step


def config() -> Config:
    """256 experts of one epoch; the paper's mixing of factors beside that of outputs."""
    return Config(
        settled_on="the papers' own hyper-parameters",
        base=BaseConfig(source="microsoft/phi-2", dtype="bfloat16", remat=True),
        data=DataConfig(
            source="hub:flan_flat", held_in=TASKS, window=2048, train_rows=8000, validation_rows=1000, test_rows=1000
        ),
        experts=Recipe(
            rank=4, alpha=16.0, targets=ATTENTION, batch=16,
            optimiser=Optimiser(1e-4, EPOCH, 0.06, "linear", decay=0.0, clip=1.0),
        ),
        methods=("base", "uniform", "uniform(factor)", "arrow(factor, k=4)", "arrow(output, k=4)", "own_expert"),
        evaluation=EvaluationConfig(batch=8, max_new=64),
    )  # fmt: skip
