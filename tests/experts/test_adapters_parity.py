"""Every kind of LoRA of the real PEFT, on every family: the same logits, one adapter a row and all in one bank."""

import numpy as np
import peft_case
import pytest
from one_linear import NoGrants

from moejax.experts import compress, merge
from moejax.experts.extract import extract
from moejax.experts.files import read, write
from moejax.experts.pool import pool_of
from moejax.experts.write_whole import write_whole
from moejax.methods import arrow

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`"),
    pytest.mark.filterwarnings(
        "ignore:Adapter .biased.*have invalid shape"
    ),  # PEFT takes a bias for a factor
]


@pytest.fixture(scope="module", params=peft_case.FAMILIES)
def made(request, tmp_path_factory):
    """A base, PEFT's model with an adapter of every kind on it, and the folder of them as PEFT saved it."""
    root = tmp_path_factory.mktemp(request.param)
    case = peft_case.case(request.param, root / "base")
    model = peft_case.saved(case, root / "pool", peft_case.kinds(case.family), half="bf16")
    peft_case.retensor(root / "pool" / "bf16", lambda some: {k: v.bfloat16() for k, v in some.items()})
    peft_case.retensor(root / "pool" / "old", peft_case.old_layout)
    return case, model, root / "pool"


FEW = pytest.mark.parametrize("made", ["bert", "llama", "qwen2"], indirect=True)
"""For what is the same of all families: where a weight lies and what a linear is called has been seen by then."""


def test_every_kind_agrees_in_one_batch_of_a_mixed_pool(made):
    case, model, folder = made
    pool = case.pool(folder)
    assert set(pool.names) == set(peft_case.kinds(case.family))
    names = [*pool.names, "__base__"]
    tokens, mask = peft_case.texts(len(names))
    other = peft_case.theirs(case.base, model, tokens, mask, adapter_names=names)
    experts = [*range(len(pool.names)), -1]
    peft_case.agree(peft_case.worn(case.base, pool, tokens, mask, experts), other, mask)
    bare = peft_case.worn(case.base, pool, tokens, mask, [-1] * len(names))
    moved = np.abs(np.where(mask[..., None], other - bare, 0)).max(axis=(1, 2))
    assert moved[:-1].min() >= 0.1 and moved[-1] <= 1e-4 * np.abs(other).max()


@FEW
def test_what_the_bank_writes_peft_loads(made, tmp_path):
    """Each expert read, written again, and loaded by PEFT: among them those of biases and of mixed ranks."""
    from peft import PeftModel

    case, model, folder = made
    base, names = case.base, ("biased", "both", "old", "bf16")
    tokens, mask = peft_case.texts(len(names))
    other = peft_case.theirs(base, model, tokens, mask, adapter_names=list(names))
    for name in names:
        expert, _ = read(folder / name, base.sites, base.shapes, base.fingerprint)
        write(tmp_path / name, expert, base.sites, base_name=str(case.folder))
        assert read(tmp_path / name, base.sites, base.shapes, None)[0].info["hash"] == expert.info["hash"]
    again = PeftModel.from_pretrained(case.model(), tmp_path / names[0], adapter_name=names[0])
    for name in names[1:]:
        again.load_adapter(tmp_path / name, adapter_name=name)
    peft_case.agree(
        peft_case.theirs(base, again.eval(), tokens, mask, adapter_names=list(names)), other, mask
    )


@FEW
def test_a_merge_is_an_adapter_or_a_whole_model(made, tmp_path):
    """Exactly by concatenation, smaller with its error, and as shards that transformers loads."""
    from peft import PeftModel

    case, _, folder = made
    base, pool = case.base, case.pool(folder).take(["plain", "both", "some_layers"])
    weights = np.float32([0.5, -0.7, 1.2])
    merged = merge.merged(pool.bank, weights, "output", "one")
    tokens, mask = peft_case.texts(3)
    one = pool_of([merged], base.sites, base.shapes, base.layers)
    ours = peft_case.worn(base, one, tokens, mask, [0, 0, 0])
    write(tmp_path / "exact", merged, base.sites)
    loaded = PeftModel.from_pretrained(case.model(), tmp_path / "exact").eval()
    peft_case.agree(peft_case.theirs(base, loaded, tokens, mask), ours, mask)

    small = compress.compress(merged, rank=3)
    assert 0.01 < small.error < 1
    write(tmp_path / "small", small.expert, base.sites)
    loaded = PeftModel.from_pretrained(case.model(), tmp_path / "small").eval()
    fewer = peft_case.worn(
        base, pool_of([small.expert], base.sites, base.shapes, base.layers), tokens, mask, [0] * 3
    )
    peft_case.agree(peft_case.theirs(base, loaded, tokens, mask), fewer, mask)

    names = write_whole(tmp_path / "whole", merged, base.homes.whole, case.folder, 20_000)
    assert len(names) > 3
    whole = peft_case.Case(base, tmp_path / "whole", case.family).model()
    peft_case.agree(peft_case.theirs(base, whole, tokens, mask), ours, mask)


@FEW
def test_a_lora_out_of_a_full_fine_tune(made, tmp_path):
    """A model tuned with torch in its linears and their biases: PEFT computes it from base and extract."""
    import torch
    from peft import PeftModel

    case, *_ = made
    base, model = case.base, case.model()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name in base.sites:
                d, f = module.in_features, module.out_features
                module.weight += 0.1 * torch.randn(f, 5) @ torch.randn(5, d)
                if module.bias is not None:
                    module.bias += torch.randn(f)
    model.save_pretrained(tmp_path / "tuned")
    found = extract(tmp_path / "tuned", base.homes.whole, set(base.sites.values()), "one", energy=1 - 1e-9)
    assert (
        found.error < 1e-4 and found.others == () and {len(o.a) for o in found.expert.loras.values()} == {5}
    )
    write(tmp_path / "one", found.expert, base.sites)
    loaded = PeftModel.from_pretrained(case.model(), tmp_path / "one").eval()
    tokens, mask = peft_case.texts(3)
    other = peft_case.theirs(base, model, tokens, mask)
    peft_case.agree(peft_case.theirs(base, loaded, tokens, mask), other, mask)
    bare = peft_case.theirs(base, case.model(), tokens, mask)
    assert np.abs(bare - other)[mask].max() > 0.1


def arrow_parity(case, folder):
    """Largest difference to PEFT's Arrow, as share of the largest logit: as it is, and with exact prototypes."""
    import torch
    from peft import ArrowConfig, create_arrow_model

    two = {"r": 4, "target_modules": list(case.family.last)}
    some = {"ann": two, "bob": two | {"use_rslora": True}, "cy": two | {"lora_alpha": 32}}
    peft_case.saved(case, folder, some)
    base, pool = case.base, case.pool(folder)
    config = ArrowConfig(top_k=2, router_temperature=1.0, rng_seed=0)
    model = create_arrow_model(case.model(), [str(folder / name) for name in pool.names], config).eval()
    tokens, mask = peft_case.texts(6)
    settings = arrow.Config(k=2)
    fitted = arrow.fit(settings, base, pool, NoGrants(), None)
    ours = peft_case.ours(
        base, arrow.adapt(settings, base), arrow.arrays(settings, base, pool, fitted), tokens, mask
    )
    as_is = peft_case.theirs(base, model, tokens, mask)
    for module in model.modules():
        for router in getattr(module, "lora_arrow", {}).values():
            exact = [
                torch.linalg.svd(module.lora_B[n].weight @ module.lora_A[n].weight)[2][0]
                for n in router.task_adapter_names
            ]
            router.register_buffer("prototypes", torch.stack(exact).detach(), persistent=False)
    exact = peft_case.theirs(base, model, tokens, mask)
    return ours, as_is, exact, mask


@FEW
def test_arrow_of_peft_with_exact_prototypes_is_ours(made, tmp_path, capsys):
    case, *_ = made
    ours, as_is, exact, mask = arrow_parity(case, tmp_path)
    peft_case.agree(ours, exact, mask)
    apart = np.abs(as_is - ours)[mask].max() / np.abs(exact[mask]).max()
    with capsys.disabled():
        print(f"\n{case.family.model}: PEFT's 15 power iterations move logits by {apart:.2g} of the largest")
