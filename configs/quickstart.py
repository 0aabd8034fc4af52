"""The embedded default: MiniLM-L6 over a suite of generated texts where the right expert is known.

python train.py --config configs/quickstart.py
python eval.py --config configs/quickstart.py
"""

from moejax.config import Config, DataConfig, EvaluationConfig
from moejax.data.generated import SuiteConfig
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser


def config() -> Config:
    """Ten skills, six pairs of skills, one seed."""
    return Config(
        seed=1, settled_on="validation rows of seed 0",
        data=DataConfig(
            window=40,
            suite=SuiteConfig(
                train=192, validation=16, test=40, pair_train=32, clauses=(3, 4),
                pairs=(
                    ("animal", "place"), ("topic", "place"), ("music", "feeling"),
                    ("food", "weather"), ("transport", "request"), ("person", "music"),
                ),
            ),
        ),
        experts=Recipe(rank=8, alpha=16.0, layers=(4, 5), batch=16, optimiser=Optimiser(5e-3, 20)),
        methods=(
            "base", "uniform", "uniform(factor)", "arrow", "arrow(factor)",
            "phatgoose(steps=15, batch=16)", "average_activation(rows=64, batch=16)",
            "task_arithmetic(batch=16)", "token_gate(steps=30)", "multitask(steps=60)",
            "best_single", "own_expert", "best_single(test, batch=80)",
        ),
        evaluation=EvaluationConfig(batch=80),
    )  # fmt: skip
