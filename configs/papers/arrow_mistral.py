"""Arrow on Mistral-7B: as on Phi-2, with five epochs for each expert. Never run at scale.

python train.py --config configs/papers/arrow_mistral.py --data-dir FOLDER
python eval.py --config configs/papers/arrow_mistral.py --data-dir FOLDER

Hyper-parameters as in microsoft/mttl at 3724abf, projects/modular_llm/configs/models/mistral_7b.json.
"""

from dataclasses import replace
from pathlib import Path

from moejax.config import Config
from moejax.load_config import load_config


def config() -> Config:
    """The recipe of Phi-2 on another base."""
    phi = load_config(Path(__file__).with_name("arrow_phi2.py"))
    base = replace(phi.base, source="mistralai/Mistral-7B-v0.1")
    optimiser = replace(phi.experts.optimiser, steps=5 * phi.experts.optimiser.steps)
    return replace(phi, run="", base=base, experts=replace(phi.experts, optimiser=optimiser))
