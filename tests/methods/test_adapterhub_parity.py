"""The real `adapters` on tiny random models: its folders read here, each adapter alone and fused, the same numbers.

`tests/peers/adapterhub.py` has computed them in an environment of its own; MOEJAX_ADAPTERHUB names its folder.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from moejax.adapted import Adapted, run
from moejax.contract import Fitted
from moejax.experts.files import read, write
from moejax.experts.folder import ADAPTERS_PICKLE, ADAPTERS_WEIGHTS, CONFIG
from moejax.experts.pool import pool_of, read_pool
from moejax.methods.adapterfusion import METHOD, Config, Loss, adapt
from moejax.models import weights
from moejax.places import Worn, bottlenecks, own_expert
from moejax.routing import select
from moejax.site import sown
from moejax.types import Batch, UserError

pytestmark = pytest.mark.parity

CASES = [
    f"{family}-{place}" for family in ("bert", "llama", "llama_lm") for place in ("seq_bn", "double_seq_bn")
]
NAMES = ("ann", "bob", "cy")
CLOSE = {"rtol": 0, "atol": 2e-5}
PATHS = {"seq_bn": {"output_adapter": "layers/mlp_join"},
         "double_seq_bn": {"output_adapter": "layers/mlp", "mh_adapter": "layers/attn"}}  # fmt: skip
HOME = {
    "output_adapter": ("output.", "output_adapters."),
    "mh_adapter": ("attention.output.", "attention_adapters."),
}


def peer() -> Path:
    """The folder that the peer has filled."""
    root = Path(os.environ.get("MOEJAX_ADAPTERHUB", ""))
    if not (root / "python").is_file():
        pytest.fail(
            "MOEJAX_ADAPTERHUB names no folder that tests/peers/adapterhub.py has filled: run make parity"
        )
    return root


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """The folder of one family and placement, our base, and the peer's outputs."""
    folder = peer() / request.param
    return folder, weights.load(folder / "base"), load_file(folder / "outputs.safetensors")


def pool(folder, base):
    experts = [
        read(folder / name, base.sites, base.shapes, base.fingerprint, homes=base.homes)[0] for name in NAMES
    ]
    return pool_of(experts, base.sites, base.shapes, base.layers)


def batch(found):
    mask = jnp.asarray(found["mask"], bool)
    return Batch(jnp.asarray(found["tokens"]), mask, mask)


@partial(jax.jit, static_argnames="adapted")
def looked(adapted, arrays, some):
    ran = run(adapted, arrays, some, record=True)
    return ran.hidden, sown(ran.records, "weights"), ran.records


def same(ours, theirs, found):
    """At real tokens."""
    real = found["mask"].astype(bool)
    np.testing.assert_allclose(np.asarray(ours)[real], theirs[real], **CLOSE)


def test_each_adapter_alone(case):
    folder, base, found = case
    own = Adapted(base.model, bottlenecks(Worn()), route=own_expert)
    arrays = {"params": base.params, "bank": pool(folder, base).bank, "router": {}}
    for e, name in enumerate((*NAMES, "bare")):
        worn = jnp.full(3, e if name in NAMES else -1, jnp.int32)
        same(looked(own, arrays, batch(found)._replace(expert=worn))[0], found[name], found)
        assert name == "bare" or np.abs(found[name] - found["bare"]).max() > 0.1


def places_of(folder, base, bank):
    """The peer's fusion as our leaves: its matrices are [out, in]."""
    tensors = load_file(folder / "fusion" / "model_adapter_fusion.safetensors")
    found = {}
    for place, path in PATHS[folder.name.partition("-")[2]].items():
        leaves = {}
        for ours, theirs in {"q": "query", "k": "key", "v": "value"}.items():
            for ending, name in (("weight", ours), ("bias", f"{ours}_bias")):
                each = [
                    leaf.T
                    for layer in range(base.layers)
                    for key, leaf in tensors.items()
                    if re.search(
                        rf"(^|\.){layer}\.({'|'.join(map(re.escape, HOME[place]))})adapter_fusion", key
                    )
                    and key.endswith(f"{theirs}.{ending}")
                ]
                if each:
                    leaves[name] = jnp.asarray(np.stack(each))
        found[path] = leaves
    return found


def test_fusion(case):
    folder, base, found = case
    some, config = pool(folder, base), Config()
    places = places_of(folder, base, some.bank)
    assert places.keys() == some.bank.sites.keys()
    assert all(leaf.shape[0] == base.layers for leaves in places.values() for leaf in leaves.values())
    router = {"places": places, "knobs": {"temperature": jnp.float32(1)}}
    arrays = METHOD.arrays(config, base, some, Fitted(router, some.names))
    hidden, given, records = looked(adapt(config, base), arrays, batch(found))
    same(hidden, found["fused"], found)
    spread = []
    for place, path in PATHS[folder.name.partition("-")[2]].items():
        for layer in range(base.layers):
            theirs = found[f"attention:{layer}:{place}"]
            same(select.dense(given[path], 3)[layer], theirs, found)
            spread.append(np.median(theirs.max(axis=-1)))
    assert 0.4 < np.median(spread) < 0.95  # neither uniform nor one expert
    pull = float(Loss(0.01)(jnp.zeros(1), records, batch(found)))
    np.testing.assert_allclose(pull, found["pull"][0], rtol=1e-5)


def test_our_folder_holds_what_theirs_holds(case, tmp_path):
    folder, base, _ = case
    for name in NAMES:
        one, report = read(folder / name, base.sites, base.shapes, None, homes=base.homes)
        assert report.unmatched == () and report.zero == ()
        write(tmp_path / name, one, base.sites, homes=base.homes, fingerprint=base.fingerprint)
        ours, theirs = (json.loads((where / name / CONFIG).read_text()) for where in (tmp_path, folder))
        assert all(ours[field] == theirs[field] for field in ("name", "hidden_size", "version"))
        for field, value in ours["config"].items():
            assert field == "reduction_factor" or theirs["config"][field] == value, field
        mine, other = (load_file(where / name / ADAPTERS_WEIGHTS) for where in (tmp_path, folder))
        other = {key.removeprefix("model."): leaf for key, leaf in other.items()}
        assert mine.keys() == other.keys()
        for key, leaf in other.items():
            np.testing.assert_array_equal(mine[key], leaf)
    read_back, _ = read_pool(
        tmp_path, base.sites, base.shapes, base.layers, base.fingerprint, homes=base.homes
    )
    assert read_back.names == NAMES


def test_our_folders_load_there(tmp_path):
    root = peer()
    for case in CASES:
        base = weights.load(root / case / "base")
        for name in NAMES:
            one, _ = read(root / case / name, base.sites, base.shapes, None, homes=base.homes)
            write(tmp_path / case / name, one, base.sites, homes=base.homes)
    script, python = Path(__file__).parents[1] / "peers" / "adapterhub.py", (root / "python").read_text()
    ran = subprocess.run(
        [python, script, root, tmp_path],
        check=True,
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1"},
    )
    assert [line.split() for line in ran.stdout.splitlines()] == [[case, "0.0"] for case in CASES]


def test_a_pickle_is_refused_with_the_command_that_converts_it(case, tmp_path):
    folder, base, _ = case
    copy = tmp_path / "ann"
    copy.mkdir()
    for name in (CONFIG, ADAPTERS_PICKLE):
        (copy / name).write_bytes((folder / "pickle" / name).read_bytes())
    with pytest.raises(UserError, match="only a pickle") as refused:
        read(copy, base.sites, base.shapes, None, homes=base.homes)
    command = shlex.split(re.search("say (python -c .*), which", str(refused.value))[1])
    subprocess.run([sys.executable, *command[1:]], check=True)
    one, other = (
        read(where, base.sites, base.shapes, None, homes=base.homes)[0] for where in (copy, folder / "ann")
    )
    assert one.info["hash"] == other.info["hash"]
