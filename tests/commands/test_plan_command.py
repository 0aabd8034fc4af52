"""`python -m moejax plan`: what it prints of each recipe, and what it refuses."""

from pathlib import Path

import pytest

from moejax.commands.plan import GB, ON, ROOM, main, verdict
from moejax.stages.forecast import Stage
from moejax.types import UserError

FOLDER = Path(__file__).parents[2] / "configs" / "papers"


def test_every_recipe_is_planned_on_all_devices(capsys):
    for path in sorted(FOLDER.glob("*.py")):
        main(["--config", str(path)])
        said = capsys.readouterr().out
        assert all(f"\n{name}: {devices.count} devices of" in said for name, devices in ON.items())
        assert said.count("evaluation") == said.count("one expert alone") == len(ON)


def test_groups_and_axes_are_those_that_are_asked_for(capsys):
    main(
        [
            "--config",
            str(FOLDER / "arrow_phi2.py"),
            "--on",
            "v5e-8",
            "--expert",
            "2",
            "--model",
            "2",
            "--groups",
        ]
    )
    said = capsys.readouterr().out
    assert "mesh data 2, expert 2, model 2" in said and "v5p" not in said
    assert "params/layers/attn/q" in said and "bank/sites/layers/attn/q" in said


def test_memory_and_devices_are_those_that_were_read():
    assert {name: (one.count, one.memory / GB) for name, one in ON.items()} == {
        "v5e-8": (8, 16), "v5p-64": (32, 95), "8xH100": (8, 80),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base", "activations", "says"),
    [(40 * GB, 32 * GB, "fits"), (40 * GB, 64 * GB, "50 rows fit"), (80 * GB, 1 * GB, "does not fit")],
)
def test_the_verdict_counts_the_rows_that_fit(base, activations, says):
    stage = Stage("x", 100, int(base), 0, 0, 0, int(activations))
    assert verdict(stage, 80 * GB) == says and ROOM == 0.9


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which recipe"),
        (["--config", "configs/papers/arow.py"], "there is no configuration"),
        (["--config", str(FOLDER / "arrow_phi2.py"), "--on", "v6e"], "--on is 'v6e': expected v5e-8"),
        (["--config", str(FOLDER / "arrow_phi2.py"), "--expert", "3"], "do not divide 8 devices"),
        (["--config", str(FOLDER.parent / "quickstart.py")], "whose shape is not known here"),
    ],
)
def test_what_cannot_be_planned_is_refused(words, says):
    with pytest.raises(UserError, match=says):
        main(words)
