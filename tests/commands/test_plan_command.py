"""`python -m moejax plan`: what it prints of each recipe, and what it refuses."""

import re
from pathlib import Path

import pytest
import tiny_folder

from moejax.commands.plan import GB, ON, ROOM, main, verdict
from moejax.stages.forecast import Stage
from moejax.types import UserError

FOLDER = Path(__file__).parents[2] / "configs" / "papers"


@pytest.mark.slow
def test_every_recipe_is_planned_on_all_devices(capsys):
    for path in sorted(FOLDER.glob("*.py")):
        main(["--config", str(path)])
        said = capsys.readouterr().out
        assert all(f"\n{name}: {devices.count} devices of" in said for name, devices in ON.items())
        assert said.count("evaluation") == said.count("one expert alone") == len(ON) + 1
        assert re.search(r"\nhere: 8 devices of \d+ GB \(cpu: this machine's memory\)", said)


def test_any_run_is_planned_by_the_words_of_train_py(capsys, tmp_path):
    """The default model, a folder, and the mesh that is asked for; what lies on a device is what that mesh leaves."""
    main(["--config", str(FOLDER.parent / "quickstart.py"), "--on", "here", "--mesh.expert", "4"])
    said = capsys.readouterr().out
    assert "minilm, 10 experts of rank 8" in said and "mesh data 2, expert 4, model 1" in said
    folder = tiny_folder.encoder(tmp_path / "base")
    words = ["--config", str(FOLDER.parent / "quickstart.py"), "--base", str(folder), "--on", "8xH100"]
    main([*words, "--experts.layers", "0", "--mesh.model", "2", "--groups"])
    said = capsys.readouterr().out
    assert "mesh data 4, expert 1, model 2" in said and "params/layers/attn/q" in said


def test_groups_and_axes_are_those_that_are_asked_for(capsys):
    main(
        [
            "--config",
            str(FOLDER / "arrow_phi2.py"),
            "--on",
            "v5e-8",
            "--mesh.expert",
            "2",
            "--mesh.model",
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
        ([], "which run"),
        (["--config", "configs/papers/arow.py"], "there is no configuration"),
        (["--config", str(FOLDER / "arrow_phi2.py"), "--on", "v6e"], "--on is 'v6e': expected here, v5e-8"),
        (["--config", str(FOLDER / "arrow_phi2.py"), "--mesh.expert", "3"], "does not divide the 8 devices:"),
        (
            ["--config", str(FOLDER.parent / "quickstart.py"), "--base", "none"],
            "whose shape is not known here",
        ),
        (["--config", str(FOLDER.parent / "quickstart.py"), "--pool", "none"], "leave --experts out"),
    ],
)
def test_what_cannot_be_planned_is_refused(words, says):
    with pytest.raises(UserError, match=says):
        main(words)
