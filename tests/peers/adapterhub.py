"""What `adapters` computes on tiny random models: run by the Python of an environment of its own (make parity).

    python tests/peers/adapterhub.py FOLDER

writes for each family and placement FOLDER/FAMILY-CONFIG with `base`, the adapters `ann`, `bob`, `cy` as saved with
`use_safetensors=True` (`pickle`: the first one as saved without), `fusion`, and `outputs.safetensors`; and
FOLDER/python, the interpreter that can do it.

    python tests/peers/adapterhub.py FOLDER OURS

loads the adapters in OURS/FAMILY-CONFIG, and prints how far they are from what it computed before.
"""

import shutil
import sys
from pathlib import Path

import adapters
import torch
from adapters import BnConfig, Fuse
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32,
         "num_attention_heads": 4, "initializer_range": 0.3}  # fmt: skip
NAMES = ("ann", "bob", "cy")
PLACES = {
    "seq_bn": {"mh_adapter": False, "output_adapter": True, "original_ln_before": True},
    "double_seq_bn": {"mh_adapter": True, "output_adapter": True, "original_ln_before": False},
}
EACH = {
    "ann": {"reduction_factor": 4, "non_linearity": "relu"},
    "bob": {"reduction_factor": {"0": 8, "default": 2}, "non_linearity": "gelu", "scaling": 2.0},
    "cy": {"reduction_factor": 16, "non_linearity": "swish"},
}


def bare(family):
    """A tiny base as it is saved, large enough weights to show a fault, and the model that gets adapters."""
    torch.manual_seed(0)
    if family == "bert":
        whole = BertModel(BertConfig(**SIZES, max_position_embeddings=16)).eval()
    else:
        whole = LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)).eval()
    return whole, whole.model if family == "llama" else whole


def hidden(model, tokens, mask, setup, **options):
    """The last hidden states under these adapters, and what else was asked for."""
    model.set_active_adapters(setup)
    inner = getattr(model, "model", model)
    with torch.no_grad():
        return inner(input_ids=tokens, attention_mask=mask, **options)


def write(folder, family, config):
    whole, model = bare(family)
    whole.save_pretrained(folder / "base")
    adapters.init(model)
    for name in NAMES:
        model.add_adapter(name, config=BnConfig(**PLACES[config], **EACH[name]))
    model.add_adapter_fusion(list(NAMES))
    torch.manual_seed(1)
    for name, leaf in model.named_parameters():
        if ".adapters." in name or ".adapter_fusion_layer." in name:
            leaf.data = torch.randn_like(leaf) * (0.1 if ".query." in name or ".key." in name else 0.4)
    for name in NAMES:
        model.save_adapter(str(folder / name), name, use_safetensors=True, with_head=False)
    model.save_adapter(str(folder / "pickle"), NAMES[0], with_head=False)
    model.save_adapter_fusion(str(folder / "fusion"), list(NAMES), use_safetensors=True)
    tokens, mask = torch.arange(18).reshape(3, 6) + 3, torch.ones(3, 6, dtype=torch.long)
    mask[1, 4:] = 0
    found = {"tokens": tokens.int(), "mask": mask.int()}
    found["pull"] = model.get_fusion_regularization_loss().detach().reshape(1)
    found["bare"] = hidden(model, tokens, mask, None)[0]
    for name in NAMES:
        found[name] = hidden(model, tokens, mask, name)[0]
    fused = hidden(model, tokens, mask, Fuse(*NAMES), output_adapter_fusion_attentions=True)
    found["fused"] = fused.last_hidden_state
    ((_, layers),) = fused.adapter_fusion_attentions.items()
    for layer, places in layers.items():
        for place, weights in places.items():
            found[f"attention:{layer}:{place}"] = torch.as_tensor(weights)
    save_file({name: leaf.contiguous() for name, leaf in found.items()}, folder / "outputs.safetensors")


def load(folder, ours, family):
    """How far the same adapters, loaded from our folders, are from those computed before."""
    _, model = bare(family)
    adapters.init(model)
    found, far = load_file(folder / "outputs.safetensors"), 0.0
    for name in NAMES:
        loaded = model.load_adapter(str(ours / name), use_safetensors=True)
        again = hidden(model, found["tokens"].long(), found["mask"].long(), loaded)[0]
        far = max(far, float((again - found[name]).abs().max()))
    return far


if __name__ == "__main__":
    root, ours = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    if ours is None:
        shutil.rmtree(root, ignore_errors=True)
    for family in ("bert", "llama", "llama_lm"):
        for config in PLACES:
            case = f"{family}-{config}"
            if ours is None:
                write(root / case, family, config)
            else:
                print(case, load(root / case, ours / case, family))
    if ours is None:
        (root / "python").write_text(sys.executable)
