"""The papers' recipes: their numbers are those of the papers, and each runs from end to end, shrunken."""

import json
from pathlib import Path

import pytest

import eval as eval_script
import train as train_script
from moejax.check_config import check
from moejax.cli import configure
from moejax.config import rows
from moejax.data.hub_sets import SETS
from moejax.evaluate.compare import score
from moejax.load_config import load_config
from moejax.models.published import BASES, shape, small
from moejax.stages.shrink import shrink
from moejax.types import UserError

FOLDER = Path(__file__).parents[1] / "configs" / "papers"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
MOLE = {"level": "block", "balance": 0.5, "steps": 800, "batch": 12, "rate": 1e-5}
GATES = {"steps": 15_000, "batch": 32, "rate": 5e-4, "warmup": 0.005, "identity": 50.0, "temperature": 1.0}
PAPER = {  # of the papers: experts, base, rank, alpha, batch, rate, warm-up, schedule, decay, steps, text, a row
    "phatgoose_p3": (
        36, "google/t5-xl-lm-adapt", 16, 1.0, 1024, 5e-3, 0.06, "constant", 0.0, 1000, 512,
        ("phatgoose", {"k": 2, "steps": 100, "batch": 1024, "rate": 5e-3, "warmup": 0.06}),
    ),
    "phatgoose_flan": (
        91, "google/t5-xl-lm-adapt", 16, 1.0, 1024, 5e-3, 0.06, "constant", 0.0, 1000, 512,
        ("phatgoose", {"k": 2, "steps": 100, "batch": 1024, "rate": 5e-3, "warmup": 0.06}),
    ),
    "arrow_phi2": (
        256, "microsoft/phi-2", 4, 16.0, 16, 1e-4, 0.06, "linear", 0.0, 500, 2048,
        ("arrow", {"aggregation": "factor", "k": 4, "temperature": 1.0}),
    ),
    "arrow_mistral": (
        256, "mistralai/Mistral-7B-v0.1", 4, 16.0, 16, 1e-4, 0.06, "linear", 0.0, 2500, 2048,
        ("arrow", {"aggregation": "factor", "k": 4, "temperature": 1.0}),
    ),
    "mole_flan_t5": (
        9, "google/flan-t5-large", 16, 32.0, 10, 2e-4, 0.0, "linear", 0.0, 16_000, 1024, ("mole", MOLE),
    ),
    "mole_mistral": (
        9, "mistralai/Mistral-7B-v0.1", 16, 32.0, 10, 2e-4, 0.0, "linear", 0.0, 16_000, 1024, ("mole", MOLE),
    ),
    "meteora_llama2": (
        28, "meta-llama/Llama-2-13b-hf", 8, None, None, None, None, None, None, None, 4096,
        ("meteora", {"k": 2, "train_loras": False, **GATES}),
    ),
}  # fmt: skip
LINEARS = {
    "phatgoose_p3": {"q", "k", "v", "o", "gate", "up", "down"}, "arrow_phi2": {"q", "k", "v", "o"},
    "arrow_mistral": {"q", "k", "v", "o"}, "meteora_llama2": {"q", "k", "v", "o", "gate", "up", "down"},
    "mole_flan_t5": {"q", "v"},
}  # fmt: skip
NOT_THERE = {"mole_flan_t5": {"mole"}}
"""Methods of a recipe whose row says that it is not applicable (MoLE by blocks and layers, on a T5)."""
every = pytest.mark.parametrize("name", NAMES)


def test_every_recipe_is_compared_with_its_paper():
    assert set(NAMES) == set(PAPER)


@every
def test_the_numbers_are_the_papers(name):
    config = load_config(FOLDER / f"{name}.py")
    experts, optimiser, (method, options) = config.experts, config.experts.optimiser, PAPER[name][-1]
    found = (
        len(config.data.held_in), config.base.source, experts.rank, experts.alpha, experts.batch, optimiser.rate,
        optimiser.warmup, optimiser.schedule, optimiser.decay, optimiser.steps, config.data.window,
    )  # fmt: skip
    for have, wanted in zip(found, PAPER[name], strict=False):
        assert wanted is None or have == wanted  # None: no paper says it
    row = next(row for row in rows(config) if row.name == method)
    assert {key: getattr(row.config, key) for key in options} == options
    if name in LINEARS:
        assert {path.split("/")[-1] for path in experts.targets} == LINEARS[name]


@every
def test_it_names_a_known_base_known_sets_and_each_task_once(name):
    config = load_config(FOLDER / f"{name}.py")
    assert config.base.source in BASES and config.run == f"runs/{name}"
    with pytest.raises(UserError, match="say --data-dir FOLDER"):
        check(config)
    given = configure(["--config", str(FOLDER / f"{name}.py"), "--data-dir", "papers"], "train.py", "")
    assert given.data.folder == "papers" and set(config.data.source[4:].split("+")) <= SETS.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "arrow_phi2" else pytest.mark.slow) for name in NAMES]
)
def test_it_runs_from_end_to_end_shrunken(name, tmp_path, monkeypatch):
    """The table has every row; a T5 is trained and scored as a decoder is."""
    monkeypatch.chdir(tmp_path)
    words = ["--config", str(FOLDER / f"{name}.py"), "--shrink"]
    config = configure(words, "train.py", "")
    train_script.train(config)
    eval_script.evaluate(configure(words, "eval.py", ""))
    results = json.loads((tmp_path / config.run / "results.json").read_text())
    assert [row["row"] for row in results["rows"]] == list(config.methods)
    missing = {row["row"].split("(")[0] for row in results["rows"] if "not_applicable" in row}
    assert missing == NOT_THERE.get(name, set())
    for row in results["rows"]:
        assert "not_applicable" in row or 0 <= score((row["held_out"] or row["held_in"])[""]) <= 1
    assert len(results["tasks"]["held_in"]) == 3
    assert (tmp_path / config.run / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", sorted(BASES))
def test_a_small_base_has_every_option_of_the_published_one(name):
    whole, less = shape(name), small(name, 50)
    same = {field for field in vars(whole) if getattr(whole, field) == getattr(less, field)}
    sizes = set("vocab width layers encoder_layers decoder_layers heads kv_heads hidden head_dim".split())
    assert set(vars(whole)) - same <= sizes and type(whole) is type(less)
    assert whole.block.heads // whole.block.kv_heads == less.block.heads // less.block.kv_heads


def test_only_recipes_can_be_shrunken():
    with pytest.raises(UserError, match="data.source is 'generated'"):
        shrink(load_config(FOLDER.parent / "quickstart.py"))
    with pytest.raises(UserError, match="base.source is 'minilm', whose shape is not known here"):
        configure(["--config", str(FOLDER / "arrow_phi2.py"), "--shrink", "--base", "minilm"], "train.py", "")
