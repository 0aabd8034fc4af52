"""The memory that loading a base takes, in a process of its own: `python load_memory.py FOLDER DTYPE DEVICES`.

Prints JSON: bytes of the parameters, of the largest stacked leaf, and the peak of resident memory above the start.
"""

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path


def make(folder, layers=8, width=1024, hidden=6144, vocab=40000):
    """A random base of 1 GB in eight shards, written without being held: bytes of its tensors."""
    import numpy as np
    from safetensors.numpy import save_file

    from moejax.models import weights
    from moejax.models.configs import hf_config
    from moejax.models.decoder import DecoderConfig

    config = DecoderConfig(vocab, width, layers, heads=8, kv_heads=4, hidden=hidden)
    (folder / "config.json").write_text(json.dumps(hf_config(config)))
    model, rng, where, total = weights.make_model(config), np.random.default_rng(0), {}, 0
    shards = {}
    for entry in weights._entries(model, weights._abstract(config)):
        shards.setdefault(f"model-{entry.layer}.safetensors", []).append(entry)
    for file, entries in shards.items():
        tensors = {e.name: rng.random(e.shape, np.float32) for e in entries}
        total += sum(t.nbytes for t in tensors.values())
        save_file(tensors, folder / file)
        where |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return total


def resident():
    """Bytes of this process that lie in memory, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def measure(folder, dtype, devices):
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from moejax.models.decoder import DecoderConfig
    from moejax.models.weights import load, random_base, save

    mesh = Mesh(jax.devices(), ("model",))

    def sharding(path, shape):
        return (
            NamedSharding(mesh, PartitionSpec(*[None] * (len(shape) - 1), "model")) if devices > 1 else None
        )

    with tempfile.TemporaryDirectory() as small:  # what is loaded and compiled once
        save(random_base(DecoderConfig(64, 16, 2, heads=2, kv_heads=2, hidden=32)), small)
        load(small, dtype, sharding)
    before, peak, done = resident(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    base = load(folder, dtype, sharding)
    done.set()
    watcher.join()
    leaves = jax.tree.leaves(base.params)
    spread = {len(leaf.sharding.device_set) for leaf in leaves}
    sizes = [leaf.nbytes for leaf in leaves]
    return {"result": sum(sizes), "leaf": max(sizes), "peak": peak - before, "devices": max(spread)}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
