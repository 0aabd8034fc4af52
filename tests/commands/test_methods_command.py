"""`python -m moejax methods`: table, filters, blocks, JSON, and errors of one sentence with status 2."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from moejax import methods
from moejax.__main__ import COMMANDS, run
from moejax.advise import WORDS
from moejax.commands import listing, parse
from moejax.commands import methods as command
from moejax.survey import CARDS
from moejax.taxonomy import AXES
from moejax.types import UserError


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    def ask(*argv: str) -> str:
        assert run(["methods", *argv]) == 0
        out = capsys.readouterr()
        assert out.err == ""
        return out.out

    return ask


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*methods.TABLE, "arrow", "phatgoose", "uniform"):
        monkeypatch.setitem(methods.TABLE, name, "nowhere")
    for name in set(methods.TABLE) - {"arrow", "phatgoose", "uniform"}:
        monkeypatch.delitem(methods.TABLE, name)


def test_the_table_has_a_line_per_method_within_100_columns(said, built):
    lines = said().splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines[1:30]] == [str(n) for n in range(1, 30)]
    assert lines[24].split() == [
        "24",
        "arrow*",
        "Std",
        "Pri",
        "None",
        "Step",
        "Module",
        "Sparse",
        "Par",
        "OOD",
        "Zero",
    ]
    assert lines[12].split() == [
        "12",
        "calm",
        "Std",
        "Pri+Sha",
        "Tar+Exp",
        "Task",
        "-",
        "-",
        "Out",
        "ID+OOD",
        "Full",
    ]
    assert [line.split()[1] for line in lines[1:30] if "*" in line] == ["phatgoose*", "arrow*"]
    assert lines[-1] == "Built, and not of the survey: uniform"


def test_the_table_on_a_terminal_is_the_same_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = listing.rows(list(CARDS.values()), set(CARDS))  # every name with its mark: the widest table
    widths = [max(map(len, column)) for column in zip(listing.HEADS, *lines, strict=True)]
    assert sum(widths) + len(widths) - 1 <= 100
    listing._show_rich(lines, widths)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown] == [[*line] for line in (listing.HEADS, *lines)]


def test_a_terminal_gets_rich(said, monkeypatch):
    called = []
    monkeypatch.setattr(listing, "_show_rich", lambda lines, widths: called.append(len(lines)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    said()
    assert called == [29]


def test_filters_and_built(said, built):
    assert [
        line.split()[1]
        for line in said("--expert-data", "shared", "--input-granularity", "step").splitlines()[1:4]
    ] == [
        "branch_train_mix",
        "meteora",
        "ramole",
    ]
    assert [line.split()[1] for line in said("--built").splitlines()[1:3]] == ["phatgoose*", "arrow*"]
    nothing = said("--expert-selection", "dense", "--expert-aggregation", "none")
    assert nothing.startswith("No method of the survey matches.")


def test_have_names_what_the_others_lack(said):
    out = said("--have", "expert-data,target-labels:16")
    assert out.startswith("With expert-data,target-labels:16 you can use 15 of 29 methods.")
    usable, others = out.split("The others lack:\n")
    assert "phatgoose" in usable and "lora_flow" not in usable
    assert "  lora_flow               target-labels:200 (not 16)\n" in others
    assert max(map(len, out.splitlines())) <= 100
    named = {line.split()[0] for line in others.splitlines() if line.startswith("  ") and line[2] != " "}
    assert len(named) == 14


def test_have_and_filters_go_together(said):
    out = said("--have", "weights", "--input-granularity", "step", "--long")
    assert out.startswith("With weights you can use 1 of 10 methods.\n\narrow: Arrow, section 3.24")
    everything = said("--have", "contributors,expert-data,general,target-labels")
    assert "you can use 29 of 29" in everything and "The others lack" not in everything


def test_blocks_have_full_words_needs_and_remarks(said, built, monkeypatch):
    monkeypatch.setattr("moejax.commands.listing.load", lambda name: SimpleNamespace(modes={}))
    out = said("--long")
    assert max(map(len, out.splitlines())) <= 100
    blocks = {block.split(":")[0]: block for block in out.split("\n\n")}
    assert set(CARDS) <= set(blocks)
    phatgoose = blocks["phatgoose"]
    assert phatgoose.startswith("phatgoose: PHATGOOSE, section 3.16, built\n")
    for words in (
        "expert training     Custom",
        "generalization      Out-of-Distribution",
        "of each expert      gate",
    ):
        assert words in phatgoose
    assert "arXiv 2402.05859" in phatgoose and "an expert may join" in phatgoose
    assert "reads               nothing but the experts' weights" in blocks["arrow"]
    assert "target rows         5" in blocks["lorahub"] and "not built" in blocks["lorahub"]
    assert "depth granularity   N/A" in blocks["calm"]
    assert "Standard + Custom" in blocks["airoboros_llamaindex"]
    assert said("--expert-selection", "dense", "--expert-aggregation", "none", "--long").startswith(
        "No method"
    )


def test_a_mode_that_stands_elsewhere_is_told_with_its_cells(said, monkeypatch):
    monkeypatch.setattr("moejax.commands.methods.TABLE", {"loraretriever": "", "arrow": ""})
    blocks = {block.partition(":")[0]: block for block in said("--long").split("\n\n")}
    told = " ".join(blocks["loraretriever"].partition("as centroids")[2].split())
    assert told.startswith(
        "expert training Custom; expert data Private; routing dataset None; user dataset Zero-Shot"
    )
    assert "  as " not in blocks["arrow"]


def test_json_has_everything(said, built):
    cards = json.loads(said("--json"))
    assert [card["key"] for card in cards] == list(CARDS)
    calm, arrow = cards[11], cards[23]
    assert calm["expert_data"] == ["Private", "Shared"] and calm["depth_granularity"] == []
    assert arrow["built"] and not calm["built"] and "missing" not in arrow
    assert arrow["paper"]["arxiv"] == "2405.11157" and arrow["families"] == ["untrained"]
    asked = {card["key"]: card["missing"] for card in json.loads(said("--json", "--have", "weights"))}
    assert asked["arrow"] == [] and asked["lorahub"] == ["target-labels:5"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["methods", "--expert-dat", "x"], "does not know '--expert-dat', did you mean --expert-data?"),
        (["methods", "--expert-dat=x"], "did you mean --expert-data?"),
        (["methods", "arrow"], "does not know 'arrow'"),
        (["methods", "--have"], "Missing value for argument '--have'"),
        (
            ["methods", "--expert-data", "shard"],
            "--expert-data has no value 'shard', only private, shared, n/a; did",
        ),
        (["methods", "--have", "foo"], "--have does not know 'foo'"),
        (["metods"], "there is no command 'metods', did you mean 'methods'?"),
        (["xyz"], "there is no command 'xyz' (only methods"),
    ],
)
def test_errors_are_one_sentence_with_status_2(capsys, argv: list[str], message: str):
    assert run(argv) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.startswith("error: ") and message in out.err
    assert out.err.count("\n") == 1 and "Traceback" not in out.err


def test_debug_traces_an_error():
    with pytest.raises(UserError, match="foo"):
        run(["methods", "--have", "foo", "--debug"])


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_usage_lists_the_commands(capsys, argv: list[str]):
    assert run(argv) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_help_explains_every_option_value_and_word(capsys):
    with pytest.raises(SystemExit) as end:
        run(["methods", "--help"])
    assert end.value.code == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for axis, values in AXES.items():
        assert f"--{axis.replace('_', '-')}" in out
        assert all(value in out for value in values)
    assert all(word in out and meaning in out for word, meaning in WORDS.items())


def test_options_are_the_axes_and_no_more():
    names = list(command.Options.__dataclass_fields__)
    assert names == [*AXES, "built", "have", "long", "json"]


def test_a_boxed_message_becomes_a_line():
    box = "╭─ Value error ─╮\n│ Error parsing --n: │\n│ not a number │\n│ ──────── │\n│ For help … │\n╰──────╯\n"
    assert parse._sentence(box) == "Error parsing --n: not a number"


def test_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "moejax", "methods", "--have", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: --have does not know 'nothing'")
