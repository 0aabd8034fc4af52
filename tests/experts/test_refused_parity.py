"""Every kind of PEFT's folder that is refused, made by the real PEFT: read as a plain LoRA it would be wrong."""

import json
import re

import numpy as np
import peft_case
import pytest

from moejax.experts.files import read
from moejax.experts.folder import CONFIG
from moejax.experts.peft_fields import REFUSED
from moejax.experts.pool import pool_of
from moejax.types import UserError

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TWO = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"}


def kind(field):
    """Options that set one field of LoraConfig, as PEFT wants them."""
    from peft.tuners.lora import config as c

    return {
        "use_dora": {"use_dora": True},
        "bias": {"bias": "all"},
        "modules_to_save": {"modules_to_save": ["lm_head"]},
        "trainable_token_indices": {"trainable_token_indices": list(range(50))},
        "target_parameters": {"target_modules": [], "target_parameters": ["up_proj.weight"]},
        "layer_replication": {"layer_replication": [(0, 2), (0, 1)]},
        "alora_invocation_tokens": {"alora_invocation_tokens": [7]},
        "use_qalora": {"use_qalora": True, "qalora_group_size": 8},
        "use_bdlora": {
            "use_bdlora": c.BdLoraConfig(
                target_modules_bd_a=["q_proj"], target_modules_bd_b=["up_proj"], nblocks=2
            )
        },
        "kasa_config": {"kasa_config": c.KasaConfig()},
    }[field]


NO_LORA = {  # what is left of a folder without the field is no plain LoRA, and says so
    "target_parameters": "target_modules is missing",
    "use_bdlora": r"has shape \[48, 2\]: expected \[48, 4\]",
}
INITS = ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga")
APART = ("megatron_config", "arrow_config")  # needs Megatron's own linears; has a test of its own
FIELDS = tuple(field for field in REFUSED if field not in APART)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return peft_case.case("qwen2", tmp_path_factory.mktemp("qwen2"))


def prepared(case, options):
    """PEFT's model of these options; what an initialisation wants to see of data is run first."""
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import config as c

    init = options.get("init_lora_weights")
    more = {}
    if init == "corda":
        more = {"corda_config": c.CordaConfig(corda_method="kpm")}
    elif init == "loftq":
        more = {"loftq_config": c.LoftQConfig(loftq_bits=4)}
    elif init == "lora_ga":
        more = {"lora_ga_config": c.LoraGAConfig()}
    config, model = LoraConfig(**(TWO | options | more)), case.model()
    tokens = torch.tensor(peft_case.texts(6)[0]).long()
    if init == "corda":
        from peft.tuners.lora.corda import preprocess_corda

        preprocess_corda(model, config, run_model=lambda: [model(input_ids=row[None]) for row in tokens])
    elif init == "lora_ga":
        from peft.tuners.lora import preprocess_loraga

        preprocess_loraga(model, config, lambda: model(input_ids=tokens, labels=tokens).loss.backward())
    return get_peft_model(model, config)


def rounded(weight, num_bits, reduced_rank, num_iter):
    """What LoftQ gives for a weight, by plain rounding: its own quantiser wants bitsandbytes and a GPU."""
    import torch

    step = weight.abs().max() / 2 ** (num_bits - 1)
    coarse = torch.round(weight / step) * step
    u, s, v_t = torch.linalg.svd(weight - coarse, full_matrices=False)
    root = s[:reduced_rank].sqrt()
    return coarse, root[:, None] * v_t[:reduced_rank], u[:, :reduced_rank] * root


def trained(model, all_of_it):
    """The model after a pretended training: everything that is trainable moves."""
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                drawn = 0.3 * torch.randn(value.shape)
                value.copy_(drawn if all_of_it and ".lora_" in name else value + drawn)
    return model.eval()


def plain(folder, **blank):
    """The folder taken for a plain LoRA: the field emptied, tensors that no plain LoRA has dropped."""
    peft_case.reconfigure(folder, **blank)
    peft_case.retensor(
        folder,
        lambda some: {k: v for k, v in some.items() if re.search(r"\.lora_[AB]\.weight$", k)},
    )


def apart(case, folder, model):
    """How far the logits of a folder, read, lie from those of the model that it was saved of."""
    base = case.base
    expert, _ = read(folder, base.sites, base.shapes, None)
    pool = pool_of([expert], base.sites, base.shapes, base.layers)
    tokens, mask = peft_case.texts(3)
    other = peft_case.theirs(base, model, tokens, mask)
    ours = peft_case.worn(base, pool, tokens, mask, [0] * 3)
    return np.abs(ours - other)[mask].max() / np.abs(other[mask]).max()


@pytest.mark.parametrize("init", INITS)
def test_an_initialisation_that_rewrote_the_base_is_refused_and_would_be_wrong(
    case, tmp_path, init, monkeypatch
):
    monkeypatch.setattr("peft.tuners.lora.layer.loftq_init", rounded)
    model = trained(prepared(case, {"init_lora_weights": init}), all_of_it=False)
    model.save_pretrained(tmp_path / "mine")
    with pytest.raises(
        UserError, match=f"{CONFIG}: init_lora_weights is '{init}', which changes the base's own"
    ):
        read(tmp_path / "mine", case.base.sites, case.base.shapes, None)
    plain(tmp_path / "mine", init_lora_weights=True)
    assert apart(case, tmp_path / "mine", model) > 0.05


@pytest.mark.parametrize("field", FIELDS)
def test_a_refused_field_is_refused_and_would_be_wrong(case, tmp_path, field):
    model = trained(prepared(case, kind(field)), all_of_it=True)
    model.save_pretrained(tmp_path / "mine")
    assert json.loads((tmp_path / "mine" / CONFIG).read_text())[field]
    with pytest.raises(UserError, match=f"{CONFIG}: .*{field} is set"):
        read(tmp_path / "mine", case.base.sites, case.base.shapes, None)
    plain(tmp_path / "mine", **{field: None})
    if field in NO_LORA:
        with pytest.raises(UserError, match=NO_LORA[field]):
            apart(case, tmp_path / "mine", model)
    elif field == "use_qalora":  # without meaning on a whole base; those that it is for are quantised ones
        assert apart(case, tmp_path / "mine", model) < 1e-4
    else:
        assert apart(case, tmp_path / "mine", model) > 0.01


def test_a_router_of_arrow_is_no_lora(case, tmp_path):
    """What PEFT saves of a routed model is the router's own, unused LoRA."""
    from peft import ArrowConfig, create_arrow_model

    two = {name: options for name, options in TWO.items() if name != "task_type"}
    peft_case.saved(case, tmp_path, {"ann": two, "bob": two | {"lora_alpha": 20}})
    folders = [str(tmp_path / name) for name in ("ann", "bob")]
    model = trained(create_arrow_model(case.model(), folders, ArrowConfig(top_k=1)), all_of_it=True)
    model.save_pretrained(tmp_path, selected_adapters=["arrow_router"])
    with pytest.raises(UserError, match=f"{CONFIG}: arrow_config is set"):
        read(tmp_path / "arrow_router", case.base.sites, case.base.shapes, None)
    plain(tmp_path / "arrow_router", arrow_config=None)
    assert apart(case, tmp_path / "arrow_router", model) > 0.1


def test_modules_saved_whole_are_left_aside_on_request(case, tmp_path):
    """The LoRAs of such a folder, without its head: what PEFT gives with the base's own head."""
    model = trained(prepared(case, kind("modules_to_save")), all_of_it=True)
    model.save_pretrained(tmp_path / "mine")
    base = case.base
    expert, report = read(tmp_path / "mine", base.sites, base.shapes, None, ignore_saved=True)
    assert any("1 tensors of modules saved whole are left aside" in said for said in report.warnings)
    head = model.base_model.model.lm_head
    head.modules_to_save["default"].load_state_dict(head.original_module.state_dict())
    tokens, mask = peft_case.texts(3)
    pool = pool_of([expert], base.sites, base.shapes, base.layers)
    ours = peft_case.worn(base, pool, tokens, mask, [0] * 3)
    peft_case.agree(ours, peft_case.theirs(base, model, tokens, mask), mask)
