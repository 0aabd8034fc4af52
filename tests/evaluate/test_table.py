"""The table as people read it: groups, dashes, intervals, narrow terminals, hostile names."""

import io

from rich.console import Console

from moejax.evaluate.table import columns, count, interval, lines, markdown, points, show


def cell(value, gap=0.0):
    return {"accuracy": value, "balanced_accuracy": value,
            "against_uniform": {"difference": gap, "low": gap - 0.01, "high": gap + 0.02}}  # fmt: skip


def row(label, sight, held_in, held_out, trained=0):
    cost = {"trained": trained, "fit_seconds": 1.6, "time": 1.234, "memory": 2.0}
    return {"label": label, "sight": sight, "held_in": held_in, "held_out": held_out, "cost": cost}


RESULTS = {
    "title": "quickstart, seed 0",
    "groups": ["seen", "unseen"],
    "rows": [
        row("own_expert", 4, {"seen": cell(1.0, 0.3), "unseen": cell(0.9, 0.2)}, None),
        row("uniform", 0, {"seen": cell(0.5), "unseen": cell(0.4)}, {"seen": cell(0.25)}),
        row("token_gate", 2, {"seen": cell(0.625, 0.125), "unseen": cell(0.4)}, {"seen": cell(0.3)}, 12345),
        {
            "label": "phatgoose",
            "sight": 1,
            "not_applicable": "ann has no gate: its contributor must provide it",
        },
    ],
}


def shown(results, width):
    file = io.StringIO()
    show(results, Console(file=file, width=width))
    return file.getvalue()


def test_methods_are_grouped_by_what_they_see():
    found = [(sight, [line[0] for line in some]) for sight, some in lines(RESULTS)]
    assert found == [
        ("nothing but the weights", ["uniform"]),
        ("what contributors hand over", ["phatgoose"]),
        ("the experts' data", ["token_gate"]),
        ("the answers", ["own_expert"]),
    ]


def test_a_line_has_a_cell_for_every_column():
    heads, found = columns(RESULTS), {line[0]: line for _, some in lines(RESULTS) for line in some}
    gate = dict(zip(heads[1:3], found["token_gate"][1:3], strict=True))
    assert gate == {"held-in seen": ".625", "± uniform": "+12.5 [+11.5, +14.5]"}
    assert found["token_gate"][-4:] == ["12.3k", "2", "1.23×", "2.00×"]
    assert found["own_expert"][5:9] == ["–", "", "–", ""]  # it has nothing to say on held-out tasks
    assert found["uniform"][2] == "" and found["uniform"][7] == "–"
    assert all(len(line) == len(heads) for name, line in found.items() if name != "phatgoose")


def test_without_an_interval_the_cell_is_empty():
    alone = {**cell(0.5), "against_uniform": None}
    found = {**RESULTS, "groups": [""], "rows": [row("arrow", 0, {"": alone}, {"": alone})]}
    ((_, ((name, *text),)),) = lines(found)
    assert (name, *text[:4]) == ("arrow", ".500", "", ".500", "")


def test_numbers_as_the_field_prints_them():
    assert [points(share) for share in (0.8734, 1.0, 0.0)] == [".873", "1.00", ".000"]
    assert [count(number) for number in (0, 999, 1000, 1_234_567)] == ["0", "999", "1.0k", "1.2M"]
    assert interval({"difference": -0.031, "low": -0.05, "high": 0.002}) == "-3.1 [-5.0, +0.2]"


def test_a_wide_terminal_has_intervals_a_narrow_one_keeps_the_rest():
    wide, narrow = shown(RESULTS, 200), shown(RESULTS, 90)
    for text in (wide, narrow):
        assert "quickstart, seed 0" in text and "sees the answers" in text
        assert "phatgoose: ann has no gate" in text
        assert ".625" in text and "12.3k" in text
    assert "+12.5 [+11.5, +14.5]" in wide
    assert "+12.5" not in narrow
    table = [line for line in narrow.splitlines() if line.startswith("  ") and "phatgoose" not in line]
    assert max(map(len, table)) <= 90


def test_columns_are_aligned():
    found = [
        line
        for line in shown(RESULTS, 200).splitlines()
        if line.startswith(("  uniform", "  token", "  own"))
    ]
    assert len({len(line) for line in found}) == 1 and len(found) == 3


def test_a_name_cannot_write_on_the_terminal():
    hostile = RESULTS | {"title": "[bold]x[/bold] \x1b[31m"}
    text = shown(hostile, 200)
    assert "\x1b" not in text and "[bold]x[/bold] \\x1b[31m" in text


def test_markdown_is_a_table_whose_rows_have_one_width():
    hostile = {**RESULTS["rows"][1], "label": "a|b"}
    found = markdown(RESULTS | {"rows": [*RESULTS["rows"], hostile]}).splitlines()
    assert {line.replace("\\|", "").count("|") for line in found} == {len(columns(RESULTS)) + 1}
    assert "a\\|b" in "".join(found) and "*sees the answers*" in "".join(found)


def test_what_stands_in_the_cells_is_said_above_and_below():
    assert shown(RESULTS, 200).startswith("quickstart, seed 0: balanced accuracy\n")
    assert columns(RESULTS)[1] == "held-in seen"
    texts = RESULTS | {"measure": "exact match"}
    assert columns(texts)[1] == "held-in seen exact match"
    assert shown(texts, 200).startswith("quickstart, seed 0: exact match\n")
    assert "Exact match, mean over tasks; ± uniform: exact match against" in shown(texts, 200)
    mixed = shown(RESULTS | {"measure": "balanced accuracy or exact match"}, 300)
    assert "held-out" in mixed and "seen score" in mixed
    assert "Balanced accuracy of a choice or exact match of a written text, mean over tasks" in mixed
