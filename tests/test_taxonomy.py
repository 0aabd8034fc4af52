"""The cards against the survey's own facts, cell by cell: its infoboxes, its Figure 1, its section 3.30."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moejax.survey import CARDS
from moejax.taxonomy import AXES, FAMILIES, Axes, Card, Paper, infobox

FACTS = json.loads((Path(__file__).parent / "data" / "survey.json").read_text())
LONG: dict[str, str] = {"ID": "In-Distribution", "OOD": "Out-of-Distribution"}  # Figure 1 abbreviates


def figure(number: int, axis: str) -> set[str]:
    """The values under which Figure 1 lists this section."""
    leaves: dict[str, list[int]] = FACTS["figure1"][axis]
    return {LONG.get(value, value) for value, found in leaves.items() if number in found}


def expected(number: int, axis: str) -> set[str]:
    """The cell by the infobox, "Multiple" by Figure 1, and by the noted decision where these two disagree."""
    for case in FACTS["disagreements"]:
        if (case["number"], case["axis"]) == (number, axis):
            return set(case["kept"])
    cell = FACTS["infoboxes"][str(number)][axis]
    return figure(number, axis) if cell == "Multiple" else {cell} - {"N/A"}


def differences(cards: dict[str, Card]) -> list[tuple[str, str, set[str], set[str]]]:
    """Cells of cards that are not what the survey says."""
    return [
        (card.key, axis, set(getattr(card.axes, axis)), expected(card.number, axis))
        for card in cards.values()
        for axis in AXES
        if card.number and set(getattr(card.axes, axis)) != expected(card.number, axis)
    ]


def test_the_cards_are_the_surveys_sections_in_order():
    assert [card.number for card in CARDS.values()] == list(range(1, 30))
    assert [card.title for card in CARDS.values()] == [box["title"] for box in FACTS["infoboxes"].values()]
    assert all(key == card.key and key.isidentifier() and key.islower() for key, card in CARDS.items())


def test_every_cell_is_the_infoboxs():
    assert differences(CARDS) == []


@pytest.mark.parametrize("axis", AXES)
def test_a_wrong_cell_would_be_noticed(axis: str):
    for key, card in CARDS.items():
        wrong = frozenset(AXES[axis]) - getattr(card.axes, axis) or frozenset()
        changed = replace(card, axes=replace(card.axes, **{axis: wrong}))
        assert [(found[0], found[1]) for found in differences({key: changed})] == [(key, axis)]


@pytest.mark.parametrize("axis", AXES)
def test_figure_1_lists_the_same_sections(axis: str):
    """Figure 1 has a leaf for each value, but for None as an aggregation, and omits what does not apply."""
    for value in AXES[axis]:
        ours = [card.number for card in CARDS.values() if value in getattr(card.axes, axis)]
        leaf = {LONG.get(name, name): found for name, found in FACTS["figure1"][axis].items()}
        if (axis, value) == ("expert_aggregation", "None"):
            assert value not in leaf and ours == [2, 8, 9, 10, 14, 20, 27]
        else:
            assert ours == leaf[value]


def test_multiple_is_always_expanded():
    boxes = FACTS["infoboxes"]
    multiple = [(int(n), axis) for n in boxes for axis in AXES if boxes[n][axis] == "Multiple"]
    assert len(multiple) == 20
    assert all(len(expected(number, axis)) > 1 for number, axis in multiple)


def test_disagreements_of_the_survey_with_itself_are_all_noted():
    found = [
        (int(n), axis)
        for n, box in FACTS["infoboxes"].items()
        for axis in AXES
        if box[axis] not in ("Multiple", "N/A")
        and (axis, box[axis]) != ("expert_aggregation", "None")
        and {box[axis]} != figure(int(n), axis)
    ]
    assert (
        found
        == [(case["number"], case["axis"]) for case in FACTS["disagreements"]]
        == [(12, "expert_selection")]
    )
    assert "expert selection" in CARDS["calm"].remarks[0] and "Figure 1" in CARDS["calm"].remarks[0]


def test_families_of_section_3_30():
    assert set(FACTS["families"]) == set(FAMILIES)
    for family, numbers in FACTS["families"].items():
        assert sorted(card.number or 0 for card in CARDS.values() if family in card.families) == sorted(
            numbers
        )
    assert [card.key for card in CARDS.values() if not card.families] == [
        "calm",
        "what_the_weight",
        "pwe_moe",
        "ramole",
    ]


def test_papers_are_those_the_survey_cites():
    for card in CARDS.values():
        author, year = FACTS["infoboxes"][str(card.number)]["cited"]
        assert card.paper and card.paper.authors.split(",")[0].split(";")[0] == author
        assert card.paper.year == year
    assert [card.key for card in CARDS.values() if card.paper and not card.paper.arxiv] == [
        "mo_lora",
        "airoboros_llamaindex",
    ]
    numbers = [card.paper.arxiv for card in CARDS.values() if card.paper and card.paper.arxiv]
    assert len(set(numbers)) == 27 and all(len(n) == 10 and n[4] == "." for n in numbers)


def test_needs_agree_with_the_data_axes():
    """What a card reads must not exceed what the survey's cells allow, remarks apart."""
    for card in CARDS.values():
        reads_experts = bool(card.grants & {"expert_inputs", "expert_labels"})
        assert reads_experts <= ("Shared" in card.axes.expert_data), card.key
        assert (card.axes.expert_data == {"Shared"}) == reads_experts, card.key
        if "target_labels" in card.grants:
            assert "Target" in card.axes.routing_dataset, card.key
            assert card.axes.user_dataset & {"Few-Shot", "Full"}, card.key
            assert (card.shots is None) == (card.axes.user_dataset == {"Full"}), card.key
        assert ("general" in card.grants) <= bool(
            {"General"} & card.axes.routing_dataset
        ) or card.key == "mixda"
        assert bool(card.recipe or card.extras) <= bool(
            "Custom" in card.axes.expert_training
        ) or card.extras == {"samples"}, card.key
        assert not card.grants & {"test_task", "test_inputs", "test_labels"}, card.key


def test_remarks_are_short_sentences():
    for card in CARDS.values():
        assert card.remarks, card.key
        for remark in card.remarks:
            assert remark[0].isupper() and remark.endswith(".") and len(remark) < 100, (card.key, remark)


def test_infobox_reads_the_surveys_notation():
    axes = infobox("Standard Private/Shared None Step N/A Dense None ID/OOD Full")
    assert axes.expert_data == {"Private", "Shared"}
    assert axes.routing_dataset == {"None"} and axes.expert_aggregation == {"None"}
    assert axes.depth_granularity == frozenset()
    assert axes.generalization == {"In-Distribution", "Out-of-Distribution"}
    cells = (
        "Standard",
        "Private | Shared",
        "None",
        "Step",
        "N/A",
        "Dense",
        "None",
        "ID | Out-of-Distribution",
        "Full",
    )
    assert infobox(*cells) == axes


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("Standard Private", "9 cells .*here are 2"),
        (
            "Standard Private None Step Module Dense Outputs ID Full",
            "expert_aggregation: there is no 'Outputs'",
        ),
        ("Standard Private None Step Module None Output ID Full", "expert_selection: there is no 'None'"),
    ],
)
def test_infobox_refuses_what_is_no_infobox(cells: str, message: str):
    with pytest.raises(ValueError, match=message):
        infobox(cells)


def test_a_baselines_card_takes_a_line():
    card = Card("uniform", "Uniform merge")
    assert card.number is None and card.axes == Axes() and not card.grants and not card.holds
    assert hash(card) == hash(Card("uniform", "Uniform merge"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("grants", {"target"}), ("extras", {"gates"}), ("families", {"third"}), ("holds", {"simple"})],
)
def test_a_card_refuses_words_that_do_not_exist(field: str, value: set[str]):
    with pytest.raises(ValueError, match=f"{field}: there is no"):
        replace(Card("x", "X"), **{field: frozenset(value)})


def test_shots_count_rows_of_a_target_grant():
    assert Card("x", "X", grants=frozenset({"target_inputs"}), shots=1).shots == 1
    with pytest.raises(ValueError, match="shots"):
        Card("x", "X", grants=frozenset({"general"}), shots=16)
    with pytest.raises(ValueError, match="shots"):
        Card("x", "X", grants=frozenset({"target_labels"}), shots=0)


def test_a_paper_prints_what_it_has():
    assert str(Paper("Xu", 2024, "2405.13053", "ICLR 2025")) == "Xu 2024 (ICLR 2025, arXiv 2405.13053)"
    assert str(Paper("Maxine", 2023)) == "Maxine 2023"
