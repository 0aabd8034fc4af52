"""`python big_pool.py FOLDER EXPERTS SLOTS`: a retriever over a pool that stays on disk, each expert used twice.

Writes the experts into FOLDER, and prints one JSON object: bytes of the slots' bank and of
the whole one, of memory before the pool was opened and at its most (RssAnon plus live device arrays), programs that
were compiled after the first batch, experts that were read, and how far scores are from those of the whole bank.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from quick_programs import FLAGS

os.environ["XLA_FLAGS"] = FLAGS

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_compilation_cache_dir", os.environ["PROGRAMS"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

import tiny  # noqa: E402
import world as worlds  # noqa: E402

from moejax.adapted import score  # noqa: E402
from moejax.contract import Fitted  # noqa: E402
from moejax.experts.expert import Expert  # noqa: E402
from moejax.experts.files import write  # noqa: E402
from moejax.experts.lora import Lora  # noqa: E402
from moejax.experts.member import OnBase  # noqa: E402
from moejax.experts.open_pool import open_pool  # noqa: E402
from moejax.experts.pool import folders_of, read_pool  # noqa: E402
from moejax.methods.loraretriever import METHOD, Config  # noqa: E402
from moejax.models.encoder import EncoderConfig  # noqa: E402
from moejax.models.weights import random_base  # noqa: E402
from moejax.paged import for_batch, paged  # noqa: E402
from moejax.train.rows import batches  # noqa: E402

RANK, BATCH, QUERY = 32, 8, 32
SHAPE = EncoderConfig(vocab=64, width=128, layers=2, heads=2, hidden=256, positions=32, remat=False)


def experts(base, root, count):
    """So many experts of one linear in both layers."""
    d, f = base.shapes["layers/mlp/down"]
    for e in range(count):
        rng, name = np.random.default_rng(e), f"e{e:04}"
        factors = [(rng.normal(size=(RANK, d)), rng.normal(size=(RANK, f))) for _ in range(base.layers)]
        loras = {
            ("layers/mlp/down", layer): Lora(np.float32(a) * 0.1, np.float32(b) * 0.1, 4.0)
            for layer, (a, b) in enumerate(factors)
        }
        write(root / name, Expert(name, {}, loras), base.sites, fingerprint=base.fingerprint)


def memory():
    """Bytes that this process has to itself, and those of live device arrays (on the CPU these count twice)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
    return own + sum(array.nbytes for array in jax.live_arrays())


def size(bank):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(bank))


def arrays(base, pool, means):
    router = {"model": {"mean": jnp.asarray(means)}, "places": {}, "knobs": {}}
    config = Config(encoder="centroids", mode="selection")
    made = METHOD.arrays(config, base, pool, Fitted(router, pool.names))
    return paged(METHOD.adapt(config, base), made, pool)


def main(folder, count, slots):
    rng, root = np.random.default_rng(0), Path(folder)
    base = replace(random_base(SHAPE), labels=jnp.asarray(rng.normal(size=(8, SHAPE.width)), jnp.float32))
    experts(base, root, count)
    means = rng.normal(size=(count, QUERY)).astype(np.float32)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    order = np.concatenate([rng.permutation(count), rng.permutation(count)])
    rows = tiny.rows(base, 2 * count)
    rows.whole.choices[:] = rng.integers(0, 8, rows.whole.choices.shape)
    rows = replace(rows, whole=rows.whole._replace(query=means[order]))
    program = jax.jit(lambda arrays, batch, adapted: score(adapted, arrays, batch)[0], static_argnums=2)
    known = OnBase(base.sites, base.shapes, base.fingerprint)

    def answered(adapted, given, some, look=lambda: None):
        found = []
        for batch, real in some:
            found.append(np.asarray(program(for_batch(given, batch), batch, adapted))[:real])
            look()
        return np.concatenate(found)

    every = [(path.name, path) for path in folders_of(root)]
    warm, _ = open_pool(
        every[:slots], known, base.layers, slots
    )  # the programs, and what reading takes, once
    shifted = (
        (b._replace(query=means[np.arange(BATCH) % slots]), n) for b, n in [next(batches(rows, BATCH))]
    )
    answered(*arrays(base, warm, means[:slots]), shifted)
    del warm
    before = memory()
    pool, _ = open_pool(every, known, base.layers, slots)
    opened, most = memory(), [0]
    read, reader = [], pool.slots._read
    pool.slots._read = lambda name: read.append(name) or reader(name)
    adapted, given = arrays(base, pool, means)
    stream = batches(rows, BATCH)
    first = answered(adapted, given, [next(stream)])
    with worlds.compiles() as compiled:
        rest = answered(adapted, given, stream, lambda: most.append(memory()))
    found, small = np.concatenate([first, rest]), size(pool.slots.bank)
    full, _ = read_pool(root, base.sites, base.shapes, base.layers, base.fingerprint)
    expected = answered(*arrays(base, full, means), batches(rows, BATCH))
    print(
        json.dumps(
            {
                "slots": small, "whole": size(full.bank), "before": before, "opened": opened, "most": max(most),
                "compiled": compiled, "read": len(read), "distinct": len(set(read)), "used": len(order),
                "apart": float(np.abs(found - expected).max()), "spread": float(expected.std(axis=0).min()),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
