"""MoLE by blocks on a decoder: the paper's gate and its hyper-parameters, on a base that is not the paper's.

python train.py --config configs/papers/mole_mistral.py --data-dir FOLDER
python eval.py --config configs/papers/mole_mistral.py --data-dir FOLDER

Experts, data and optimiser are those of mole_flan_t5.py. No paper's set-up, and never run at scale.
"""

from dataclasses import replace
from pathlib import Path

from moejax.config import Config
from moejax.load_config import load_config


def config() -> Config:
    """The recipe of Flan-T5 on a base of one stack of layers."""
    t5 = load_config(Path(__file__).with_name("mole_flan_t5.py"))
    base = replace(t5.base, source="mistralai/Mistral-7B-v0.1", dtype="bfloat16")
    experts = replace(t5.experts, targets=("layers/attn/q", "layers/attn/v"))
    return replace(t5, run="", base=base, experts=experts)
