"""Part 3: peak memory of a call beyond what is there before it, each framework and size in a process of its own.

The peak of the resident set, which Linux keeps and lets one reset; of ours also the temporary memory that XLA says a
program needs, which is exact. Results and gradients count; weights and experts do not.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import layer, model
from benchmarks.cases import Size, draw
from benchmarks.machine import cores
from benchmarks.measure import Call, Effort, Entry
from moejax.models.weights import random_base

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FRAMEWORKS = ("jax", "torch")
SIZES = tuple(Size(512, 1024, e) for e in (8, 32, 256))
# every buffer is mapped and given back by itself, in pages of the usual size
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "GLIBC_TUNABLES": ""}


def available() -> bool:
    """Whether this system says how much a process held at most."""
    return STATUS.exists() and RESET.exists()


def peak(call: Call) -> int:
    """Bytes that a call holds at most beyond those held before it."""
    call()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    RESET.write_text("5")
    before = _status("VmRSS")
    call()
    return max(_status("VmHWM") - before, 0)


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def of_layer(size: Size, back: bool, framework: str) -> list[dict[str, Any]]:
    """Rows of one size: the bare projection, and all ways or all peers."""
    case = draw(size)
    if framework == "torch":
        from benchmarks import peers_layer

        return [_row(entry) for entry in peers_layer.entries(case, back)]
    some, program = layer.given(case), layer.both if back else layer.forward
    found = []
    for entry, way in zip(layer.entries(case, back=back), (None, *layer.ways(size)), strict=True):
        compiled = program.lower(some, way=way, k=size.k).compile().memory_analysis()
        found.append(_row(entry) | {"temporary": compiled and compiled.temp_size_in_bytes})
    return found


def of_model(setting: model.Setting, framework: str) -> list[dict[str, Any]]:
    """Rows of a whole model: bare, one LoRA, pools."""
    base = random_base(setting.config, scale=1.0)
    if framework == "jax":
        return [_row(entry) for entry in model.entries(base, setting)]
    from benchmarks import peers_model

    return [_row(entry) for entry in peers_model.entries(base, setting)]


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"name": entry.name, "kind": entry.kind}
    if entry.need > Effort.memory:
        return row | {"note": f"does not fit: {entry.need / 1e9:.1f} GB"}
    return row | {"bytes": peak(entry.make())}


def _child(given: dict[str, Any]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(given)]
    root = Path(__file__).parents[1]
    found = subprocess.run(
        command, cwd=root, env=os.environ | ALLOCATOR, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{found.stderr}")
    return json.loads(found.stdout.splitlines()[-1])


def _work(given: dict[str, Any]) -> list[dict[str, Any]]:
    """What a child does."""
    if "size" in given:
        return of_layer(Size(**given["size"]), given["back"], given["framework"])
    setting = replace(model.SETTINGS[given["setting"]], pools=tuple(given["pools"]))
    return of_model(setting, given["framework"])


def part(
    peers: bool = True,
    sizes: Sequence[Size] = SIZES,
    settings: Sequence[int] = (0, 1),
    pools: Sequence[int] = model.Setting.pools,
) -> Iterator[dict[str, Any]]:
    """All sizes, forward and with gradients, and whole models (by their place in `model.SETTINGS`)."""
    if not available():
        yield {"title": "peak memory", "note": "not measured: this system does not say it", "rows": []}
        return
    about: list[dict[str, Any]] = []
    for back in (False, True):
        words = "forward + backward" if back else "forward"
        about += [{"title": f"{s}, {words}", "size": asdict(s), "back": back} for s in sizes]
    for number in settings:
        title = str(model.SETTINGS[number])
        about.append({"title": title, "setting": number, "pools": list(pools)})
    frameworks = FRAMEWORKS if peers else FRAMEWORKS[:1]
    with ThreadPoolExecutor(cores()) as workers:
        given = [one | {"framework": name} for one in about for name in frameworks]
        rows = workers.map(_child, given)
        for one in about:
            yield one | {"rows": [row for _ in frameworks for row in next(rows)]}


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))
