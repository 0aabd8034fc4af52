"""What granularity, selection and mixing change by themselves: the quickstart's experts and one score in all 18 ways.

python train.py --config configs/ablation.py
python eval.py --config configs/ablation.py

About 4 minutes on 2 CPU cores.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

from moejax.config import Config
from moejax.load_config import load_config

WAYS = product(("task", "example", "step"), ("dense", "topk", "top1"), ("output", "factor"))


def config() -> Config:
    """The rows `granularity(grain, selection, mixing)` beside the base and the uniform merge."""
    quickstart = load_config(Path(__file__).with_name("quickstart.py"))
    rows = tuple(f"granularity({', '.join(way)}, rows=64, batch=16)" for way in WAYS)
    return replace(quickstart, run="", methods=("base", "uniform", "uniform(factor)", *rows))
