"""Strangers' regular expressions: the same answers as `re`, in bounded time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.experts import pattern as pattern_module
from moejax.experts.pattern import _match, ends_with, fullmatch, limited

PATTERNS = [
    r".*",
    r"",
    r".*\.(q_proj|v_proj)$",
    r"model\.layers\.(\d+|1[0-2])\.self_attn\.[qv]_proj",
    r"(.*\.)?(query)$",
    r"(.*\.)?(^encoder\.layer\.0\.query)$",
    r"encoder\.layer\.[^1]\..*?query",
    r"\w+(\.\w+)*",
    r"(ab|a)(bc|c)?",
    r"a{2,3}b{0}c?",
    r"(a{2}){2}",
    r"(a?){3}b",
    r"[^\d\s]+",
    r"\D\S\W*",
    r"a\Wb",
    r"a\wb",
    r"\Aab\Z",
    r"a$b",
    r"a$\s",
    r"a+?b*?",
    r"(?:x|y)+",
    r"a.c",
]
TEXTS = [
    "encoder.layer.0.query", "encoder.layer.1.query", "query", "xquery", "model.layers.11.self_attn.q_proj",
    "a.b.c", "", "ab", "abc", "aab", "aac", "aaac", "aaaa", "aaab", "b", "xyx", "a\nc", "a\n", "1", "é", "-",
    "a_b", "a-b", "aéb",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_agrees_with_re(pattern):
    for text in TEXTS:
        assert fullmatch(pattern, text) == bool(re.fullmatch(pattern, text)), text


atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", "$", "^", "(a|b)", "(ab|a)", "(|b)"])
repeats = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "*?"])
groups = st.lists(st.tuples(atoms, repeats), min_size=1, max_size=4).map(
    lambda parts: "".join(a if a in "^$" else a + r for a, r in parts)
)


@given(st.lists(groups, min_size=1, max_size=3), repeats, st.text("ab1\n", max_size=6))
@settings(max_examples=300, deadline=None)
def test_agrees_with_re_on_random_patterns(parts, repeat, text):
    pattern = f"({'|'.join(parts)}){repeat}"
    assert fullmatch(pattern, text) == bool(re.fullmatch(pattern, text))


@pytest.mark.parametrize(
    "pattern", [r"(a|a)*b", r"(a*)*b", r"(a|aa)+$", r".*a.*a.*a.*a.*a.*a.*b", r"(a{1,60}){1,60}b"]
)
def test_hostile_patterns_take_no_time(pattern):
    start = time.process_time()
    assert not fullmatch(pattern, "a" * 80 + "c")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r"(?i)query", "flags"),
        (r"(?i:query)", "subpattern"),
        (r"(?=a)a", "assert"),
        (r"(?<!a)b", "assert_not"),
        (r"(a)\1", "groupref"),
        (r"(?>a)", "atomic_group"),
        (r"\ba", "at"),
        (r"((a{2}){2}){2}", "nests repeats"),
        (r"(a", "not a regular expression"),
        ("(" * 51 + ")" * 51, "more than 50 groups"),
        ("a" * 513, "longer than 512"),
    ],
)
def test_what_cannot_be_matched_is_refused(pattern, says):
    with pytest.raises(ValueError, match=says):
        fullmatch(pattern, "a")


KEYS = ["query", "^query", "0.query", r"\d+\.query", "q.*", "^encoder.*query", "a|query", "", "^", "query$", "uery",
        "(que)ry", "qu[e]ry", "^^query"]  # fmt: skip
NAMES = [text for text in TEXTS if "\n" not in text]
NAMES += [".", "a.", "x.query", "query.x", "encoder.layer.10.query", "y.encoder.0.query"]


@pytest.mark.parametrize("key", KEYS)
def test_ends_agree_with_peft(key):
    for name in NAMES:
        assert ends_with(key, name) == bool(re.match(rf"(.*\.)?({key})$", name)), name


def test_an_end_that_is_no_pattern_is_refused():
    with pytest.raises(ValueError, match="not a regular expression"):
        ends_with(r"quer\y", "query")
    with pytest.raises(ValueError, match="longer than 512"):
        ends_with("a" * 513, "a")


def test_all_matches_of_a_folder_together_have_so_many_steps(monkeypatch):
    """No pattern is slow alone; together they are refused, at the same one each time, and outside they are not."""
    monkeypatch.setattr(pattern_module, "STEPS", 100_000)
    patterns = [f"((.|a)*(.|b)*(.|c)*.*.*.*.*)*x{i}" for i in range(3000)]
    text = "model.layers.11.self_attn.q_proj" * 3
    tried: list[str] = []
    for _ in range(2):
        _match.cache_clear()
        with limited(), pytest.raises(ValueError, match="takes too long to match"):
            any(tried.append(pattern) or fullmatch(pattern, text) for pattern in patterns)
    assert tried == 2 * tried[: len(tried) // 2]
    assert 4 < len(tried) < 6000
    assert not fullmatch(patterns[-1], text)


def test_a_large_base_is_within_the_steps(monkeypatch):
    """Patterns of the kind that people write, over 80 layers of seven modules: forty of them would do."""
    monkeypatch.setattr(pattern_module, "STEPS", pattern_module.STEPS // 20)
    mlp, attention = "gate up down".split(), "q k v o".split()
    names = [f"model.layers.{i}.mlp.{j}_proj" for i in range(80) for j in mlp]
    names += [f"model.layers.{i}.self_attn.{j}_proj" for i in range(80) for j in attention]
    with limited():
        for i in range(2):
            pattern = rf"model\.layers\.({i}|1{i}|[2-7]{i})\..*(q_proj|v_proj|gate_proj)$"
            assert sum(fullmatch(pattern, name) for name in names) == 8 * 3


def test_literal_patterns_cost_nothing():
    """One pattern a module, as we write them ourselves: hundreds of modules within the limit."""
    names = [f"model.layers.{i}.self_attn.{j}_proj" for i in range(50) for j in "qkvo"]
    with limited():  # beyond which nothing matches
        assert all(sum(ends_with("^" + re.escape(name), other) for other in names) == 1 for name in names)
