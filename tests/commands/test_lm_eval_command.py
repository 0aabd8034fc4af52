"""`python -m moejax lm-eval` without lm_eval: what it explains, and what it asks for; its words taken apart."""

import sys

import pytest

from moejax.__main__ import run
from moejax.commands.run_lm_eval import apart
from moejax.types import UserError


def test_help_needs_no_lm_eval(capsys):
    assert run(["lm-eval", "--help"]) == 0 == run(["lm-eval"])
    said = capsys.readouterr().out
    assert "--base" in said and "--router" in said and "python -m moejax lm-eval run --help" in said


def test_without_lm_eval_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    assert run(["lm-eval", "--base", "b", "--tasks", "t"]) == 2
    assert "pip install 'moejax[lm-eval]'" in capsys.readouterr().err


def test_moejax_has_its_words_and_lm_eval_the_others():
    words = [
        "--base",
        "b",
        "--tasks",
        "t,u",
        "--experts=e",
        "--allow-base-mismatch",
        "--limit",
        "3",
        "--dtype",
        "bfloat16",
    ]
    assert apart(words) == (
        {"base": "b", "experts": "e", "allow_base_mismatch": True, "dtype": "bfloat16"},
        ["--tasks", "t,u", "--limit", "3"],
    )
    assert apart(["--allow_base_mismatch", "--method", "arrow(k=2)"])[0] == {
        "allow_base_mismatch": True, "method": "arrow(k=2)"
    }  # fmt: skip
    with pytest.raises(UserError, match="--method needs a value"):
        apart(["--tasks", "t", "--method"])
