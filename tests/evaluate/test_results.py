"""results.json: means over seeds, and what made them."""

from moejax.evaluate.results import averaged, provenance
from moejax.train.code_version import commit


def run(seed, accuracy, label="uniform", **more):
    row = {"label": label, "cost": {"trained": 3, "time": accuracy}, "held_out": None, "ok": True} | more
    return {
        "title": f"quickstart, seed {seed}",
        "seeds": [seed],
        "groups": [""],
        "rows": [row | {"a": accuracy}],
    }


def test_numbers_are_averaged_and_the_rest_is_kept():
    found = averaged([run(1, 0.5), run(2, 0.75)])
    assert found["seeds"] == [1, 2] and found["title"] == "quickstart, mean of seeds [1, 2]"
    (row,) = found["rows"]
    assert row["a"] == 0.625 and row["cost"] == {"trained": 3, "time": 0.625}
    assert row["label"] == "uniform" and row["held_out"] is None and row["ok"] is True
    assert isinstance(row["cost"]["trained"], int)


def test_a_cell_that_one_run_lacks_is_left_out():
    found = averaged([run(1, 0.5, held_in={"x": 1.0, "y": 2.0}), run(2, 0.5, held_in={"x": 3.0})])
    assert found["rows"][0]["held_in"] == {"x": 2.0}


def test_lists_of_one_length_are_averaged_and_what_one_run_has_no_number_for_is_none():
    found = averaged(
        [
            run(1, 0.5, curves={"apgr": None, "accuracy": [0.25, 1.0], "share": [0.0, 1.0]}, needs=["own"]),
            run(
                2, 0.5, curves={"apgr": 0.5, "accuracy": [0.75, 0.5], "share": [0.0, 0.5, 1.0]}, needs=["own"]
            ),
        ]
    )
    assert found["rows"][0]["curves"] == {"apgr": None, "accuracy": [0.5, 0.75], "share": [0.0, 1.0]}
    assert found["rows"][0]["needs"] == ["own"]


def test_versions_and_device_are_named():
    found = provenance()
    assert {"python", "jax", "flax"} <= found["versions"].keys()
    assert found["device"].startswith("cpu")
    assert found["commit"] == commit()
