"""Choices looked up: the answers at a threshold, cells by split and group, and the lines on the screen."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from moejax.evaluate import cost_table
from moejax.evaluate.compare import Truth
from moejax.evaluate.pairs import LookedUp, curves, look_up

MODEL = {"strong": jnp.int32(1), "weak": jnp.int32(-1), "price": jnp.array([2.0, 1.0])}


class Wants:
    """A route that wants what it is told."""

    def __init__(self, wants):
        self.given = jnp.asarray(wants)

    def __call__(self, arrays, batch): ...

    def wants(self, arrays, batch):
        return self.given


def rows(n):
    from moejax.train.rows import ArrayRows
    from moejax.types import Batch

    blank = np.zeros((n, 1), np.int32)
    return ArrayRows(Batch(blank, blank > -1, blank > -1), np.arange(n))


def looked(wants, strong, weak, alpha=0.5):
    return LookedUp(np.float32(wants), np.int32(strong), np.int32(weak), ("bob", "base"), (2.0, 1.0), alpha)


def test_members_are_found_by_their_numbers():
    arrays = {"router": {"model": MODEL, "knobs": {"threshold": jnp.float32(0.5)}}}
    choices = {
        "base": np.int32([0, 0]),
        "ann": np.int32([7, 7]),
        "bob": np.int32([1, 1]),
        "uniform": np.int32([2, 2]),
    }
    found = look_up(Wants([0.5, 0.4]), arrays, rows(2), 2, ("ann", "bob"), choices)
    assert found.names == ("bob", "base") and found.price == (2.0, 1.0) and found.answers.tolist() == [1, 0]
    merged = {"router": arrays["router"] | {"model": MODEL | {"strong": jnp.int32(-2)}}}
    assert look_up(Wants([0.9, 0.4]), merged, rows(2), 2, ("ann", "bob"), choices).answers.tolist() == [2, 0]


def results():
    right = np.int32([1, 1, 1, 1])
    group = np.array(["seen", "unseen", "seen", "unseen"])
    truths = {"a": Truth(True, right, group), "b": Truth(False, right, group), "c": Truth(True, right, group)}
    found = {
        "a": looked([0.9, 0.8, 0.1, 0.2], [1, 1, 1, 0], [0, 0, 1, 0]),
        "c": looked([0.7, 0.1, 0.6, 0.3], [1, 0, 1, 0], [0, 0, 0, 0]),
    }
    return curves(found, truths), truths


def test_cells_hold_the_rows_of_their_split_and_group():
    found, _ = results()
    assert (found["strong"], found["weak"], found["price"]) == ("bob", "base", {"strong": 2.0, "weak": 1.0})
    assert found["held_out"] is None and set(found["held_in"]) == {"seen", "unseen"}
    seen = found["held_in"]["seen"]  # strong is right on all four, weak on one
    assert (seen["accuracy"][0], seen["accuracy"][-1]) == (0.25, 1.0)
    assert seen["called"] == 0.75 and seen["accuracy_there"] == 1.0 and seen["apgr"] > 0.5
    unseen = found["held_in"]["unseen"]
    assert unseen["called"] == 0.25 and unseen["accuracy_there"] == 0.25
    assert seen["cost"][-1] == 2.0 and seen["cost"][0] == 1.0


def lines(label="routellm"):
    found, _ = results()
    flat = {"undefined": "the strong member is worse here", "apgr": None, "cpt": {"20": None}, "called": 0.5}
    held_out = {"seen": flat | {"accuracy_there": 0.5, "share": [0.0, 1.0], "accuracy": [0.6, 0.5]}}
    return {
        "groups": ["seen", "unseen"],
        "rows": [{"label": "arrow"}, {"label": label, "curves": found | {"held_out": held_out}}],
    }


def test_the_screen_has_a_line_for_each_cell_and_says_what_is_undefined():
    said = list(cost_table.plain(lines()))
    assert said[1] == "  routellm: strong bob at 2, weak base at 1 a request"
    assert sum(line.startswith("  routellm  ") for line in said) == 3
    assert any(
        "held-out seen" in line and "undefined: the strong member is worse here" in line for line in said
    )
    seen = next(line for line in said if "held-in seen" in line)
    assert seen.split()[3:6] == ["75", "%", "1.000"]
    assert list(cost_table.plain({"groups": [""], "rows": [{"label": "arrow"}]})) == []


@pytest.mark.parametrize(("share", "text"), [(0.5, ".500"), (1.0, "1.000"), (-0.25, "−.250"), (3.5, "3.500")])
def test_shares_are_printed_as_the_field_does(share, text):
    assert cost_table._share(share) == text


def test_the_table_prints_them_below_its_note():
    import io

    from rich.console import Console

    from moejax.evaluate import table

    cost = {"trained": 0, "fit_seconds": 0, "time": 1.0, "memory": 1.0}
    made = lines("\x1b[31mrow")
    made["rows"] = [
        row | {"held_in": None, "held_out": None, "cost": cost, "sight": 0} for row in made["rows"]
    ]
    file = io.StringIO()
    table.show(made | {"title": "t"}, Console(file=file, width=300))
    assert "\x1b" not in file.getvalue() and "\\x1b[31mrow: strong bob" in file.getvalue()
    assert SimpleNamespace(**made).groups == ["seen", "unseen"]
