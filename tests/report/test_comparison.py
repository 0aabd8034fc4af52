"""The table: groups, scores with their intervals, methods that do not apply."""

from report_case import Page, results, row

from moejax.report.comparison import comparison


def test_methods_stand_in_groups_with_intervals_under_their_scores():
    text = comparison(results())
    said = Page(text).text
    order = [
        "nothing but the weights",
        "uniform",
        "arrow",
        "contributors",
        "phatgoose",
        "target's",
        "mole",
        "own_",
    ]
    places = [said.index(word) for word in order]
    assert places == sorted(places)
    assert "<td>.625<small>+10.0 [-5.0, +20.0]</small></td>" in text
    assert text.count("<td>.625</td>") == 2  # uniform, in two splits
    assert "1.2k" in said and "1.50×" in said and "not applicable: ann has no gate" in said
    assert "parameters trained" in said and "paired bootstrap" in said


def test_every_line_is_as_wide_as_the_head():
    text = comparison(results())
    wide = text.split("</thead>")[0].count("<th ")
    lines = [part for part in text.split("<tr>")[2:] if "not applicable" not in part]
    assert wide == 7 and len(lines) == 4
    assert {1 + line.split("</tr>")[0].count("<td") for line in lines} == {wide}


def test_what_is_missing_is_said():
    assert "hold no groups" in comparison({"rows": [row("a")]})
    assert "hold no rows" in comparison({"groups": [""]})
    lost = row("arrow")
    del lost["cost"]
    assert "results of arrow hold no cost" in comparison({"groups": [""], "rows": [lost]})
