"""A decoder of 48 words, trained in the run, over lookup rules; answers of two words are written, token by token.

python train.py --config configs/tiny_decoder.py
python eval.py --config configs/tiny_decoder.py

The base learns four public rules. Six experts learn one rule each, of the same keys and values. Held-in tasks ask one
rule of both keys, held-out tasks ask one rule of the first key and another of the second: which rules, the prompt says.

Measured: 2 min 25 s on 2 CPU cores. To expect (exact match):

                         held-in    pairs
    base                    .009     .008
    uniform                 .068     .036
    arrow                   .080     .034
    phatgoose               .130     .039
    token_gate              .778     .203
    multitask               .993     .380
    own_expert              .997
"""

from moejax.config import BaseConfig, Config, DataConfig, EvaluationConfig
from moejax.data.rules import RulesConfig
from moejax.train.bottlenecks import BottleneckRecipe
from moejax.train.experts import Recipe
from moejax.train.optimiser import Optimiser
from moejax.train.scratch import ScratchRecipe


def config() -> Config:
    """Six rules, four pairs of rules, one seed."""
    return Config(
        seed=1, settled_on="validation rows of seed 0", embedder="minilm",
        base=BaseConfig(source="trained", recipe=ScratchRecipe(optimiser=Optimiser(3e-3, 600, decay=0.1))),
        data=DataConfig(source="rules", window=16, rules=RulesConfig(test=96)),
        experts=Recipe(rank=8, alpha=16.0, batch=16, optimiser=Optimiser(5e-3, 40)),
        bottlenecks=BottleneckRecipe(batch=16, optimiser=Optimiser(1e-2, 40)),
        methods=(
            "base", "uniform", "uniform(factor)", "arrow", "arrow(factor)",
            "phatgoose(steps=40, batch=16)", "average_activation(rows=64, batch=16)", "loraretriever",
            "task_arithmetic", "token_gate(steps=300)", "meteora(steps=200)", "multitask(steps=200)",
            "best_single", "lorahub", "we_moe(steps=60)", "mole(steps=60)", "adapterfusion(steps=60)",
            "calm(connections=1, steps=60)", "own_expert", "best_single(test)",
        ),
        evaluation=EvaluationConfig(max_new=4),
    )  # fmt: skip
