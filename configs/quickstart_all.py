"""Every method that is built, on the quickstart's experts and texts; 32 minutes of processor time on 2 CPU cores.

python train.py --config configs/quickstart_all.py
python eval.py --config configs/quickstart_all.py
"""

from dataclasses import replace
from pathlib import Path

from moejax.config import Config
from moejax.load_config import load_config
from moejax.train.bottlenecks import BottleneckRecipe
from moejax.train.fulls import FullRecipe
from moejax.train.optimiser import Optimiser

MORE = (
    "loraretriever", "loraretriever(selection)", "loraretriever(fusion)", "loraretriever(shelf)",
    "loraretriever(centroids)", "lorahub", "lorahub(output)", "we_moe(steps=60, rate=3e-4)",
    "we_moe(delta, steps=30, rate=1e-3)", "task_arithmetic(delta, batch=16)", "best_single(delta)",
    "meteora(steps=40)", "meteora(k=1, steps=40)",
    "mole(steps=40, rate=3e-4)", "mole(token, steps=40)", "mole(layer, steps=40)", "mole(matrix, steps=60)",
    "adapterfusion(steps=40, rate=3e-4)", "adapterfusion(static, steps=40, rate=3e-4)",
    "adapterfusion(lora, all, static, steps=40, rate=3e-4)", "own_expert(bottleneck)", "own_expert(delta)",
    "calm(connections=1, steps=20, rate=3e-4)",
    'routellm(strong="uniform")', 'routellm(sw, strong="uniform")',
    'routellm(bert, strong="uniform", steps=200, rate=1e-4)',
)  # fmt: skip
BOTTLENECKS = BottleneckRecipe(batch=16, optimiser=Optimiser(1e-2, 20))
FULLS = FullRecipe(batch=16, optimiser=Optimiser(2e-4, 30))


def config() -> Config:
    """The quickstart with more rows in its table, public texts, and beside its experts as many of two other kinds."""
    quickstart = load_config(Path(__file__).with_name("quickstart.py"))
    data = replace(quickstart.data, suite=replace(quickstart.data.suite, public=32))
    return replace(
        quickstart, run="", data=data, methods=quickstart.methods + MORE, bottlenecks=BOTTLENECKS, fulls=FULLS
    )
