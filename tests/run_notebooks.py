"""`python tests/run_notebooks.py WHEEL [NOTEBOOK …]`: each notebook (all unless named) on CPU, on that wheel.

The install cell is given the wheel, a folder of its own to install into, and no package index: whatever it took for
missing, jax above all, would fail. A notebook fails when a cell does, when it takes more than a minute from the start
of its kernel to the end of its last cell, when it shows no plot, or when it ran on anything but the wheel and this jax.
"""

import copy
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LIMIT = 60  # seconds
PLOT = ("<svg", 'class="heat')
LAST = "import jax, moejax; print('\\n', moejax.__file__, jax.__version__)"


def environment(wheel: Path, site: Path) -> dict[str, str]:
    """What the kernel is started with: nothing but the wheel can be installed, and nothing be downloaded."""
    own = {"MOEJAX_SOURCE": str(wheel), "PIP_TARGET": str(site), "PYTHONPATH": str(site), "PIP_NO_INDEX": "1"}
    return {**os.environ, **own, "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}


def run(notebook: Path, wheel: Path, folder: Path) -> float:
    """Seconds that it took in `folder`. Raises RuntimeError, or nbclient's errors, when it failed."""
    site = folder / "site"
    site.mkdir()
    made = copy.deepcopy(nbformat.read(notebook, as_version=4))
    made.cells.append(nbformat.v4.new_code_cell(LAST))
    begun = time.perf_counter()
    client = NotebookClient(
        made, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env=environment(wheel, site))
    seconds = time.perf_counter() - begun
    shown = [
        str(one.get("data", {}).get("text/html"))
        for cell in made.cells[:-1]
        for one in cell.get("outputs", ())
    ]
    plots = sum(any(mark in html for mark in PLOT) for html in shown)
    used = made.cells[-1].outputs[0]["text"].split()
    if used != [str(site / "moejax" / "__init__.py"), version("jax")]:
        raise RuntimeError(f"it ran on {' and jax '.join(used)}, not on the wheel and jax {version('jax')}")
    if not plots:
        raise RuntimeError("it shows no plot")
    if seconds > LIMIT:
        raise RuntimeError(f"it took {seconds:.0f} s, and may take {LIMIT}")
    print(f"{notebook.name}: {seconds:.0f} s, {plots} plots", flush=True)
    return seconds


def main(argv: list[str]) -> int:
    """Run them one after the other; 1 when any failed."""
    wheel, failed = Path(argv[0]).resolve(), 0
    for notebook in [Path(name) for name in argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                run(notebook, wheel, Path(folder).resolve())
            except Exception as error:  # of a cell, of the kernel, of what is asked above
                print(f"{notebook.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
