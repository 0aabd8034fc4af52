"""`adapter_config.json`: what is read, what is refused by name."""

import re
from pathlib import Path

import numpy as np
import pytest

from moejax.experts import peft_config
from moejax.experts.lora import Lora
from moejax.experts.peft_fields import REFUSED, USED, WITHOUT_MEANING
from moejax.types import UserError

PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query", "dense"]}


def parsed(**changed):
    return peft_config.parse(PLAIN | changed, "FILE")


def targets(module, **changed):
    return peft_config.targeted(parsed(**changed), module, "FILE")


def test_the_tables_do_not_overlap():
    assert len(USED | WITHOUT_MEANING | set(REFUSED)) == len(USED) + len(WITHOUT_MEANING) + len(REFUSED)


def test_the_page_has_the_table():
    said = {USED: "used", WITHOUT_MEANING: "about training, saving or memory: passed over"}
    rows = [f"| `{field}` | {what} |" for fields, what in said.items() for field in sorted(fields)]
    rows += [f"| `{field}` | refused when set: {what} |" for field, what in sorted(REFUSED.items())]
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("| `")] == rows


def test_defaults_are_those_of_peft():
    config = peft_config.parse({"peft_type": "LORA", "target_modules": "all-linear"}, "FILE")
    assert (config.r, config.alpha, config.rslora) == (8, 8.0, False)


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_what_changes_the_function_is_refused_by_name(field):
    parsed(**{field: None})
    value = "all" if field == "bias" else {"x": 1} if field.endswith("config") else True
    with pytest.raises(UserError, match=f"FILE: {field} is set: {re.escape(REFUSED[field])}"):
        parsed(**{field: value})


@pytest.mark.parametrize("field", sorted(WITHOUT_MEANING))
def test_what_is_about_training_is_passed_over(field):
    assert parsed(**{field: "anything"}) == parsed()


@pytest.mark.parametrize("value", [True, False, "gaussian", "Gaussian", "orthogonal", "eva", "mica"])
def test_plain_initialisations_are_read(value):
    assert parsed(init_lora_weights=value) == parsed()


@pytest.mark.parametrize("value", ["pissa", "pissa_niter_4", "olora", "loftq", "corda", "lora_ga", "new", 3])
def test_initialisations_that_rewrite_the_base_are_refused(value):
    with pytest.raises(UserError, match=f"init_lora_weights is {value!r}"):
        parsed(init_lora_weights=value)


def test_an_unknown_field_is_refused_unless_empty():
    assert parsed(use_novelty=False, other=None) == parsed()
    with pytest.raises(UserError, match="FILE: the field 'use_novelty' is not known"):
        parsed(use_novelty=True)


@pytest.mark.parametrize("value", [0, -8, float("nan"), float("inf"), "16", None, True, [8]])
def test_a_bad_alpha_is_refused(value):
    with pytest.raises(UserError, match="FILE: lora_alpha is .*: an alpha must be a number above 0"):
        parsed(lora_alpha=value)
    with pytest.raises(UserError, match=re.escape("FILE: alpha_pattern['query'] is")):
        parsed(alpha_pattern={"query": value})


@pytest.mark.parametrize("value", [0, -1, 4.0, "4", None, True])
def test_a_bad_rank_is_refused(value):
    with pytest.raises(UserError, match="FILE: r is .*: a rank must be a whole number of at least 1"):
        parsed(r=value)
    with pytest.raises(UserError, match=re.escape("FILE: rank_pattern['query'] is")):
        parsed(rank_pattern={"query": value})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"peft_type": None}, "peft_type is None"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"target_modules": []}, "target_modules is missing"),
        ({"target_modules": 3}, "target_modules must be a string or a list of strings"),
        ({"target_modules": ["a", 3]}, "target_modules must be a string or a list of strings"),
        ({"exclude_modules": [3]}, "exclude_modules must be"),
        ({"layers_to_transform": "1"}, "layers_to_transform must be"),
        ({"layers_to_transform": [1, True]}, "layers_to_transform must be"),
        ({"layers_to_transform": [1], "target_modules": ".*"}, "needs target_modules as a list"),
        ({"layers_pattern": ["a(b"]}, "layers_pattern 'a\\(b'"),
        ({"use_rslora": 1}, "use_rslora is 1"),
        ({"rank_pattern": [1]}, "rank_pattern must be an object"),
        ({"alpha_pattern": {f"m{i}": 1 for i in range(4097)}}, "alpha_pattern holds 4097 patterns"),
    ],
)
def test_a_malformed_field_is_named(changed, says):
    with pytest.raises(UserError, match=f"FILE: .*{says}"):
        parsed(**changed)


def test_a_pattern_beyond_the_supported_is_named():
    with pytest.raises(UserError, match=re.escape("FILE: the pattern '(?i)q' sets flags")):
        targets("q", target_modules="(?i)q")
    with pytest.raises(UserError, match="FILE: the pattern .* is not a regular expression"):
        peft_config.rank_and_alpha(parsed(rank_pattern={"(": 2}), "query", "FILE")


def test_target_names_match_whole_segments_at_the_end():
    assert targets("encoder.layer.0.attention.self.query")
    assert targets("query")
    assert not targets("encoder.layer.0.bigquery")
    assert not targets("query.x")


def test_target_patterns_match_the_whole_name():
    assert targets("encoder.layer.1.query", target_modules=r".*\.1\.(query|key)")
    assert not targets("encoder.layer.1.query.x", target_modules=r".*\.1\.(query|key)")
    assert targets("anything", target_modules="All-Linear")


def test_excluded_modules_are_not_targeted():
    assert not targets("pooler.dense", exclude_modules=["pooler.dense"])
    assert not targets("x.pooler.dense", exclude_modules=["pooler.dense"])
    assert targets("layer.dense", exclude_modules=["pooler.dense"])
    assert not targets("pooler.dense", exclude_modules=r"pooler\..*")
    assert targets("x.pooler.dense", exclude_modules=r"pooler\..*")


def test_layers_to_transform_looks_at_the_first_number():
    assert targets("encoder.layer.1.experts.2.query", layers_to_transform=1)
    assert not targets("encoder.layer.1.experts.2.query", layers_to_transform=[0, 2])
    assert targets("encoder.layer.0.query", layers_to_transform=[])
    assert not targets("x.query", layers_to_transform=[0])


def test_layers_pattern_names_the_list_of_layers():
    here = {"layers_to_transform": [2], "layers_pattern": ["h", "layer"]}
    assert targets("blocks.1.layer.2.query", **here)
    assert not targets("blocks.2.layer.1.query", **here)
    assert targets("layer.2.query", **(here | {"layers_pattern": "layer"}))
    assert not targets("flayer.2.query", **here)


def test_the_first_matching_pattern_gives_rank_and_alpha():
    config = parsed(
        rank_pattern={"0.query": 2, "query": 3},
        alpha_pattern={r"^enc.*\.dense": 5, r"layer\.\d+\.query": 7.5},
    )

    def of(module):
        return peft_config.rank_and_alpha(config, module, "FILE")

    assert of("encoder.layer.0.query") == (2, 7.5)
    assert of("encoder.layer.1.query") == (3, 7.5)
    assert of("encoder.layer.1.dense") == (4, 5.0)
    assert of("decoder.layer.1.dense") == (4, 8.0)
    assert of("decoder.layer.1.denser") == (4, 8.0)


def test_what_is_written_are_the_settings_of_a_plain_lora():
    one = Lora(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), 3.0)
    modules = {"b.query": one, "a.key": one._replace(a=one.a[:1], b=one.b[:1])}
    said = peft_config.describe(modules, "some/base", "CAUSAL_LM")
    assert {name: said[name] for name in said if "pattern" not in name and name not in ("r", "lora_alpha")} == {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "some/base", "inference_mode": True,
        "use_rslora": False, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True,
        "target_modules": ["a.key", "b.query"],
    }  # fmt: skip
