"""Learning curves: which records make which curve, what a resumed loop leaves, axes."""

import re

from report_case import METRICS, Page, results

from moejax.report.curves import POINTS, curves, loops, thinned, ticks


def line(loop, step, loss, stage=None):
    return {"loop": loop, "step": step, "loss": loss} | ({} if stage is None else {"stage": stage})


def test_loops_are_told_apart_by_their_stage_and_targets_share_a_panel():
    found = loops(
        [
            line("experts", 0, 3.0, "experts"), line("gates", 0, 1.0, "contribute/phatgoose"),
            line("gates", 0, 2.0, "routers/mole(k=2)@food"), line("gates", 0, 4.0, "routers/mole(k=2)@place"),
            line("gates", 0, 5.0),
        ],
        {"mole(k=2)": "mole"},
    )  # fmt: skip
    assert found == {
        "experts": {"": [(0, 3.0)]},
        "phatgoose gates": {"": [(0, 1.0)]},
        "mole gates": {"food": [(0, 2.0)], "place": [(0, 4.0)]},
        "gates": {"": [(0, 5.0)]},
    }


def test_a_step_that_ran_twice_counts_once_and_what_is_no_loss_is_left_out():
    found = loops(
        [line("a", 1, 5.0), line("a", 0, 4.0), line("a", 1, 3.0), line("a", 2, None), {"loop": "a"}]
    )
    assert found == {"a": {"": [(0, 4.0), (1, 3.0)]}}


def test_long_curves_are_means_of_stretches():
    curve = [(float(i), float(i % 2)) for i in range(10 * POINTS)]
    found = thinned(curve)
    assert len(found) == POINTS and found[0] == (4.5, 0.5) and {y for _, y in found} == {0.5}
    assert thinned(curve[:POINTS]) == curve[:POINTS]


def test_ticks_are_round_and_enclose_the_range():
    assert ticks(0.0, 1.0) == [0.0, 0.5, 1.0]
    assert ticks(0.013, 0.094) == [0.0, 0.05, 0.1]
    assert ticks(-12.0, 31.0) == [-20.0, 0.0, 20.0, 40.0]
    assert ticks(2.0, 2.0) == [2.0, 2.5]
    assert ticks(0.0, 1.0, least=1.0) == [0, 1] and ticks(0.0, 0.0, least=1.0) == [0, 1]


def test_a_panel_has_its_axes_and_the_curve_lies_within():
    text = curves(METRICS, results())
    page = Page(text)
    assert page.tags.count("polyline") == 2 and page.values("class").count("curve") == 2
    assert page.text.count("step") == 2 and "phatgoose gates" in page.text
    for points in re.findall(r'points="([^"]+)"', text):
        xs, ys = zip(*(map(float, point.split(",")) for point in points.split()), strict=True)
        assert len(xs) == 4 and list(xs) == sorted(xs)
        assert min(xs) >= 46 and max(xs) <= 344 and min(ys) >= 8 and max(ys) <= 164
        assert list(ys) == sorted(ys)  # the loss falls, so the line goes down the page


def test_lines_of_targets_have_a_legend_and_dashes():
    some = [line("gates", s, 1.0, f"routers/mole@{t}") for t in ("food", "place") for s in range(2)]
    text = curves(some, {})
    assert [name in Page(text).text for name in ("food", "place")] == [True, True]
    assert text.count('stroke-dasharray="6 3"') == 2  # the second line and its mark


def test_without_records_a_sentence():
    assert "no records of training" in curves([], {}) and "no learning curves" in curves([{"loss": None}], {})
