"""The embedded default: MiniLM-L6 over a suite of generated texts where the right expert is known.

python train.py --config configs/quickstart.py
python eval.py --config configs/quickstart.py

Measured on 2 CPU cores of two machines: 1 min 41 s and 4 min 32 s from an empty run folder to the table, 2 min 4 s and
5 min 31 s the very first time, when all programs have to be compiled. To expect with seed 1 (balanced accuracy):

                         held-in seen   unseen   pairs seen   unseen
    base                         .653     .622         .397     .443
    uniform                      .753     .723         .479     .549
    arrow                        .825     .727         .539     .563
    phatgoose                    .895     .770         .750     .632
    average_activation           .902     .810         .696     .656
    token_gate                   .927     .823         .754     .684
    multitask                    .895     .777         .747     .659
    own_expert                   .985     .868
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
