"""Which methods fit the data at hand: the words, what each gives, and what is named as missing."""

from math import inf

import pytest

from moejax.advise import COUNTED, SAID, WORDS, matching, missing, parse_have
from moejax.survey import CARDS
from moejax.taxonomy import AXES, Card
from moejax.types import UserError


def usable(have: str) -> set[str]:
    at_hand = parse_have(have)
    return {key for key, card in CARDS.items() if not missing(card, at_hand)}


def lacks(key: str, have: str) -> tuple[str, ...]:
    return missing(CARDS[key], parse_have(have))


def test_weights_alone_are_enough_for_arrow_only():
    assert usable("weights") == usable("") == {"arrow"}


def test_expert_data_give_inputs_and_whatever_can_be_computed_from_them():
    assert usable("expert-inputs") == usable("weights") | {
        "mo_lora",
        "airoboros_llamaindex",
        "token_level_adaptation",
        "loraretriever",
        "twin_merging",
    }
    more = {"phatgoose", "branch_train_mix", "meteora", "pwe_moe", "ramole"}
    assert usable("expert-data") == usable("expert-inputs") | more


def test_contributors_hand_over_extras_and_follow_recipes():
    assert usable("contributors") == {
        "arrow",
        "phatgoose",
        "mo_lora",
        "airoboros_llamaindex",
        "token_level_adaptation",
        "dynamic_adapter_merging",
    }
    assert lacks("dynamic_adapter_merging", "expert-data")[0].startswith(
        "contributors (each expert starts from"
    )


def test_extras_at_hand_need_nobody():
    assert usable("gate") == {"arrow", "phatgoose"}
    assert (
        usable("samples")
        == usable("vectors,samples")
        == {
            "arrow",
            "airoboros_llamaindex",
            "mo_lora",
            "token_level_adaptation",
        }
    )
    assert lacks("phatgoose", "weights") == ("gate, from contributors or expert-data",)
    assert lacks("airoboros_llamaindex", "weights") == ("samples, from contributors or expert-inputs",)
    assert lacks("pemt", "target-labels")[0] == "prompt, from contributors"


def test_own_data_without_an_extra_need_the_contributor():
    card = Card("x", "X", grants=frozenset({"own"}))
    assert missing(card, parse_have("weights")) == ("contributors",)
    assert missing(card, parse_have("contributors")) == ()


@pytest.mark.parametrize(
    ("key", "have", "expected"),
    [
        ("lorahub", "target-labels:5", ()),
        ("lorahub", "target-labels:4", ("target-labels:5 (not 4)",)),
        ("lorahub", "target-inputs", ("target-labels:5",)),
        ("lora_flow", "target-labels:16", ("target-labels:200 (not 16)",)),
        ("lora_flow", "target-labels", ()),
        ("adapterfusion", "target-labels:5000", ("target-labels in full (not 5000)",)),
        ("adapterfusion", "target-labels", ()),
        ("adapterfusion", "target-inputs", ("target-labels",)),
        ("we_moe", "target-inputs:1", ()),
        ("we_moe", "target-labels:16", ()),
        ("we_moe", "weights", ("target-inputs",)),
        ("retrieval_of_experts", "vectors,target-labels:32", ()),
        ("retrieval_of_experts", "vectors,target-inputs:31", ("target-inputs:32 (not 31)",)),
        ("routoo", "target-labels:16", ("general",)),
        ("routoo", "general", ("target-labels:16",)),
        ("ramole", "expert-inputs", ("expert-data",)),
        ("routellm", "general", ()),
        ("routellm", "expert-data,target-labels", ("general",)),
    ],
)
def test_rows_of_the_target(key: str, have: str, expected: tuple[str, ...]):
    assert lacks(key, have) == expected


def test_the_question_of_the_readme():
    """Few labels exclude the methods that need more, and say so; expert data open those that need them."""
    found = usable("expert-data,target-labels:16")
    assert found == usable("expert-data") | {"lorahub", "we_moe", "mole", "pi_tuning"}
    excluded = set(CARDS) - found
    assert all(lacks(key, "expert-data,target-labels:16") for key in excluded)


def test_with_everything_every_method_of_the_survey_is_usable():
    assert usable("contributors,expert-data,general,target-labels") == set(CARDS)


def test_more_is_never_less():
    base = "weights"
    for word in ("samples", "contributors", "target-inputs:32", "target-labels:16", "expert-data", "general"):
        assert usable(base) <= usable(f"{base},{word}")
        base = f"{base},{word}"


def test_words_are_read_with_case_and_spaces_apart():
    have = parse_have(" Expert-Data , target-labels:16, target-labels:8,target-inputs:100 ")
    assert {"expert_labels", "expert_inputs", "own"} <= have.things
    assert have.rows == {"target_labels": 16, "target_inputs": 100}
    assert parse_have("target-labels").rows == {"target_labels": inf, "target_inputs": inf}
    assert parse_have("test-labels").things == {"test_labels", "test_inputs"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exprt-data", "does not know 'exprt-data', only .*; did you mean expert-data?"),
        ("own", "does not know 'own'"),
        ("target-labels:", "target-labels comes a number of rows from 1 up"),
        ("target-labels:0", "a number of rows from 1 up"),
        ("target-labels:-3", "a number of rows from 1 up"),
        ("target-inputs:many", "a number of rows from 1 up"),
        ("general:16", "after general comes no number of rows"),
    ],
)
def test_wrong_words_get_one_sentence(text: str, message: str):
    with pytest.raises(UserError, match=message) as found:
        parse_have(text)
    assert "\n" not in str(found.value)


def test_every_word_is_explained():
    explained = " ".join(WORDS).replace("[:N]", "").split()
    assert sorted(explained) == sorted(set(SAID.values()))
    assert [word for word in WORDS if "[:N]" in word] == [f"{SAID[grant]}[:N]" for grant in COUNTED]


def test_filters_match_membership():
    shared_step = matching(CARDS.values(), {"expert_data": "shared", "input_granularity": "STEP"})
    assert [card.key for card in shared_step] == ["branch_train_mix", "meteora", "ramole"]
    both = {card.key for card in matching(CARDS.values(), {"expert_data": "Shared"})}
    assert {"calm", "what_the_weight"} <= both and len(both) == 8
    assert matching(CARDS.values(), {}) == list(CARDS.values())
    assert matching(CARDS.values(), {"expert_selection": "dense", "expert_aggregation": "none"}) == []


def test_filters_know_several_values_abbreviations_and_what_does_not_apply():
    keys = [card.key for card in matching(CARDS.values(), {"routing_dataset": "general, expert"})]
    assert "zooter" in keys and "meteora" in keys and "arrow" not in keys
    assert matching(CARDS.values(), {"generalization": "ood"}) == matching(
        CARDS.values(), {"generalization": "Out-of-Distribution"}
    )
    assert [card.key for card in matching(CARDS.values(), {"depth_granularity": "n/a"})] == ["calm"]


@pytest.mark.parametrize("axis", AXES)
def test_a_wrong_value_gets_the_values_and_the_nearest(axis: str):
    value = AXES[axis][0]
    with pytest.raises(UserError) as found:
        matching([], {axis: value + "x"})
    said = str(found.value)
    assert f"--{axis.replace('_', '-')} has no value" in said and "\n" not in said
    assert all(known.lower() in said for known in AXES[axis])
    assert said.endswith(f"did you mean {value.lower()}?")
