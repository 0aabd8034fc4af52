"""The embedded default: MiniLM-L6 over a suite of generated texts where the right expert is known.

    python train.py --config configs/quickstart.py
    python eval.py --config configs/quickstart.py
"""

from moejax.config import Config, DataConfig
from moejax.data.generated import SuiteConfig
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser


def config() -> Config:
    """Ten skills, six pairs of skills, one seed."""
    return Config(
        data=DataConfig(window=72, suite=SuiteConfig(train=256, validation=20, test=75, pair_train=32)),
        experts=Recipe(rank=8, alpha=16.0, layers=(4, 5), batch=32, optimiser=Optimiser(5e-3, 15)),
        methods=(
            "base", "uniform", "uniform(factor)", "arrow", "arrow(factor)",
            "phatgoose(steps=15)", "average_activation",
            "task_arithmetic", "token_gate", "multitask",
            "best_single", "own_expert", "best_single(test)",
        ),
    )  # fmt: skip
