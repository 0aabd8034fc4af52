"""The comparison of the README's table with a run's can fail, and fails on the right things."""

import check_readme
import pytest

TABLE = """
| method | held-in | ± uniform | trained | time |
| --- | ---: | ---: | ---: | ---: |
| *sees nothing* |  |  |  |  |
| uniform | .700 |  | 0 | 1.10× |
| arrow \\| k=2 | .712 | +1.2 [+0.1, +2.3] | 1.2M | 1.30× |
| best | – |  | 0 | 1.00× |
"""


def test_a_table_equals_itself():
    assert check_readme.differences(TABLE, TABLE) == []


def test_rounding_and_costs_may_differ():
    near = TABLE.replace(".712", ".720").replace("+1.2 [", "+2.1 [").replace("1.30×", "2.75×")
    assert check_readme.differences(TABLE, near) == []


@pytest.mark.parametrize(
    ("was", "now", "named"),
    [
        (".712", ".723", "held-in"),
        ("+2.3]", "+3.4]", "± uniform"),
        ("| – |", "| .500 |", "held-in"),
        ("1.2M", "1.3M", "trained"),
        ("1.2M", "1.2k", "trained"),
        ("1.30×", "", "time"),
        ("| uniform |", "| base |", "rows"),
        ("| time |", "| memory |", "columns"),
        ("*sees nothing*", "*sees all*", "rows"),
    ],
)
def test_what_differs_is_named(was, now, named):
    assert was in TABLE
    (fault,) = check_readme.differences(TABLE, TABLE.replace(was, now))
    assert named in fault


def test_a_missing_row_is_a_difference():
    shorter = "\n".join(line for line in TABLE.splitlines() if "arrow" not in line)
    assert check_readme.differences(TABLE, shorter)


def test_the_readme_has_the_markers_once():
    text = check_readme.README.read_text()
    assert text.count(check_readme.BEGIN) == text.count(check_readme.END) == 1
    before, table, after = check_readme.split(text)
    assert before.endswith(check_readme.BEGIN)
    assert after.startswith(check_readme.END)
    assert "<!--" not in table
    with pytest.raises(ValueError, match="lacks"):
        check_readme.split("no table")
