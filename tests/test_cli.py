"""The command line: what it explains, what it refuses, and how a command ends."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from moejax.cli import AFTER, Terminated, configure, keep_programs, main
from moejax.commands.parse import flags
from moejax.config import BaseConfig, Config, DataConfig
from moejax.types import UserError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from moejax.config import Config\n"
        "def config(): return Config(seed=3, methods=('uniform',))\n"
        "def fast(): return Config(seed=4)\n"
    )
    return str(path)


def made(file, *words):
    return configure(["--config", file, *words], "train.py", "Trains.")


def test_the_file_has_the_defaults_and_flags_have_the_last_word(file):
    config = Config(run="runs/mine", seed=3, methods=("uniform",))
    assert made(file) == config
    assert configure([f"--config={file}"], "train.py", "") == config
    assert made(file, "--seed", "5", "--experts.rank=2") == replace(
        config, seed=5, experts=replace(config.experts, rank=2)
    )
    assert made(file, "--experts.layers", "4", "5").experts.layers == (4, 5)
    assert made(file, "--experts.optimiser.steps", "2").experts.optimiser.steps == 2
    assert made(file, "--methods", "base", "arrow(factor, k=2)").methods == ("base", "arrow(factor, k=2)")
    assert made(file, "--fast") == Config(run="runs/mine-fast", seed=4)


def test_short_names(file):
    config = made(file, "--data", "folder", "--data-dir", "x", "--data.held-in", "a", "--allow-base-mismatch")
    assert config.data == DataConfig(source="folder", folder="x", held_in=("a",))
    assert config.base.allow_mismatch
    assert made(file, "--accept-code").accept_code


def test_methods_may_be_joined_by_commas(file):
    wanted = ("base", "arrow(factor, k=2)", "uniform")
    for words in (["base,arrow(factor, k=2),uniform"], ["base,", "arrow(factor, k=2)", "uniform"], [*wanted]):
        assert made(file, "--methods", *words).methods == wanted
    assert made(file, f"--methods={','.join(wanted)}").methods == wanted


def test_my_own_folders_need_no_file():
    words = ["--base", "b", "--experts", "e", "--data-dir", "d", "--methods", "arrow,uniform"]
    config = configure(words, "eval.py", "")
    assert config == Config(
        run="runs/own",
        base=BaseConfig(source="b"),
        pool="e",
        data=DataConfig(source="folder", folder="d"),
        methods=("arrow", "uniform"),
    )
    assert configure([*words, "--run", "here", "--data.held-in", "x"], "eval.py", "").run == "here"
    assert configure(["--pool=e", "--data.folder=d"], "eval.py", "").pool == "e"
    assert configure(["--experts", "e", "--data", "generated"], "eval.py", "").data == DataConfig()


def test_a_folder_of_data_is_read_without_a_word_more(file):
    folder = DataConfig(source="folder", folder="x", held_in=("a",))
    assert made(file, "--data-dir", "x", "--data.held-in", "a").data == folder
    with pytest.raises(UserError, match="data.folder is given, but data.source is generated"):
        made(file, "--data-dir", "x", "--data", "generated")
    assert (
        made(file, "--data", "tfds:mine", "--data-dir", "x", "--data.held-in", "a").data.source == "tfds:mine"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--base", "b"], "or --base FOLDER --experts FOLDER --data-dir FOLDER for your own"),
        (["--experts", "e"], "--experts needs tasks to compare methods on: say --data-dir FOLDER"),
        (["--experts", "e", "--data-dir", "d", "--fast"], "--fast is the smaller run of a configuration"),
        (["--experts", "e", "--data-dir", "d", "--methods", ","], "methods is empty"),
        (["--experts", "e", "--data", "tfds:mine"], "data.held_in is empty"),
        (["--exprts", "e", "--data-dir", "d"], "which configuration?"),
    ],
)
def test_what_my_own_folders_lack_is_said(words, sentence, capsys):
    assert main(never, words, "eval.py") == 2
    assert sentence in capsys.readouterr().err


def test_help_explains_each_field_with_the_default_of_the_file(file, capsys):
    with pytest.raises(SystemExit) as end:
        made(file, "--help")
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "Trains." in said
    assert "--fast" in said
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", said).split())
    short = ("--base", "--experts", "--data", "--data-dir", "--allow-base-mismatch", "--ignore-saved-modules")
    every = [flag for flag in flags(Config) if flag not in short]
    assert set(short) <= set(flags(Config))
    assert {"--seed", "--experts.optimiser.rate", "--data.suite.seen", "--base.dtype"} <= set(every)
    for flag in every:
        (help,) = re.findall(
            rf"{re.escape(flag)} (.*?\(default: [^)]*\)*)(?= -|$| \w+(?:\.\w+)* options)", text
        ) or [""]
        words = re.sub(r"\(default.*", "", help)
        assert len(re.findall(r"\b[a-z]{2,}\b", words)) >= 2, f"{flag}: {help!r}"
        assert "(default:" in help, f"{flag}: {help!r}"
    assert re.search(r"--seed INT .*?\(default: 3\)", text)


def test_help_needs_no_file(capsys):
    with pytest.raises(SystemExit) as end:
        configure(["--help"], "train.py", "Trains.")
    assert end.value.code == 0
    assert "--experts.rank" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--experts.rnk", "3"], "does not know '--experts.rnk', did you mean --experts.rank?"),
        (["--experts.optimizer.steps=3"], "did you mean --experts.optimiser.steps?"),
        (["--data-dri", "x"], "did you mean --data-dir?"),
        (["--experts.rank", "3.5"], "--experts.rank"),
        (["--base.dtype", "float23"], "Expected one of ('float32', 'bfloat16')"),
        (["--methods", "arow"], "did you mean 'arrow'"),
        (["--methods", "arrow(k=two)"], "k is 'two', expected int"),
        (["--seed"], "Missing value for argument '--seed'"),
        (["--data.window", "0"], "data.window is 0: expected 1 or more"),
    ],
)
def test_a_wrong_field_or_value_gets_a_suggestion(file, capsys, words, sentence):
    assert main(never, ["--config", file, *words], "train.py") == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which configuration?"),
        (["--config"], "--config needs a file"),
        (["--config="], "--config needs a file"),
    ],
)
def test_a_file_must_be_named(words, sentence, capsys):
    assert main(never, words, "train.py") == 2
    assert sentence in capsys.readouterr().err


def never(config):
    """Must not be reached."""
    raise AssertionError


def raising(error):
    def run(config):
        """Raises."""
        raise error

    return run


def test_a_command_that_ends_well(file):
    seen = []
    assert main(seen.append, ["--config", file], "train.py", "Trains.") == 0
    assert seen == [Config(run="runs/mine", seed=3, methods=("uniform",))]


@pytest.mark.parametrize("error", [UserError("one sentence"), OSError(28, "No space left on device", "x")])
def test_an_error_of_the_user_is_one_sentence(file, capsys, error):
    assert main(raising(error), ["--config", file], "train.py") == 2
    advice = "" if isinstance(error, UserError) else AFTER
    assert capsys.readouterr().err == f"error: {error}{advice}\n"
    with pytest.raises(type(error)):
        main(raising(error), ["--debug", "--config", file], "train.py")


def test_an_error_of_ours_is_not_hidden(file):
    with pytest.raises(ZeroDivisionError):
        main(raising(ZeroDivisionError()), ["--config", file], "train.py")


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt(), 130), (Terminated(143), 143)])
def test_a_stopped_command_says_how_to_go_on(file, capsys, stop, status):
    words = ["--config", file, "--methods", "arrow(factor)"]
    assert main(raising(stop), words, "train.py") == status
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"stopped; to go on: python train.py --config {file} --methods 'arrow(factor)'"


def test_sigterm_unwinds_and_the_old_handler_comes_back(file):
    before, cleaned = signal.getsignal(signal.SIGTERM), []

    def run(config):
        """Is told to stop."""
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except SystemExit:
            cleaned.append(True)
            raise

    assert main(run, ["--config", file], "train.py") == 143
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


def test_compiled_programs_stay_in_the_users_cache(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        jax.config.update(names[0], None)
        keep_programs()
        assert jax.config.values[names[0]] == str(tmp_path / "moejax" / "xla")
        jax.config.update(names[0], "elsewhere")  # as JAX_COMPILATION_CACHE_DIR does
        keep_programs()
        assert jax.config.values[names[0]] == "elsewhere"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


SCRIPT = """
import signal, sys, time
from moejax.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it
def run(config):
    "Waits."
    print("ready", flush=True)
    time.sleep(60)
sys.exit(main(run))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_real_signal_ends_a_real_process(file, tmp_path, number, status):
    script = tmp_path / "wait.py"
    script.write_text(SCRIPT)
    command, pipe = [sys.executable, str(script), "--config", file], subprocess.PIPE
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.send_signal(number)
            _, err = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == status
    assert f"to go on: python {script} --config {file}" in err
    assert "Traceback" not in err
