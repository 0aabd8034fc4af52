"""Strangers' regular expressions: the same answers as `re`, in bounded time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax.experts.pattern import fullmatch

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
        ("a" * 1001, "longer than 1000"),
    ],
)
def test_what_cannot_be_matched_is_refused(pattern, says):
    with pytest.raises(ValueError, match=says):
        fullmatch(pattern, "a")
