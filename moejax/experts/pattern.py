"""Regular expressions written by strangers, matched in bounded time.

Python's `re` backtracks: `(a|a)*b` takes 15 s on 26 letters. Here a node of the pattern maps the set of
positions where it may start to the set where it may end, so no path is walked twice.
"""

import re
import warnings
from functools import lru_cache
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

LONGEST = 1000  # characters of a pattern
MOST_GROUPS = 50
DEEPEST = 2  # repeats inside repeats: each level multiplies the time by the length of the text

Ends = frozenset[int]
CATEGORIES = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    op.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
    op.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
}


def fullmatch(pattern: str, text: str) -> bool:
    """Whether `re.fullmatch(pattern, text)` would match.

    Raises ValueError, with what is wrong, on a pattern that does not parse or that leaves the supported part:
    no flags, no look-around, no back-reference, no atomic group, repeats nested at most twice.
    """
    return len(text) in _ends(_tree(pattern), text, frozenset([0]))


@lru_cache(maxsize=1024)
def _tree(pattern: str) -> Any:
    if len(pattern) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    if pattern.count("(") > MOST_GROUPS:
        raise ValueError(f"has more than {MOST_GROUPS} groups")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    if tree.state.flags != re.UNICODE:
        raise ValueError("sets flags, which are not supported here")
    _check(tree, 0)
    return tree


def _check(nodes: Any, depth: int) -> None:
    """Refuse what `_ends` does not know, and repeats nested too deep."""
    for kind, value in nodes:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            inner = depth + (value[1] > 1)
            if inner > DEEPEST:
                raise ValueError(f"nests repeats more than {DEEPEST} deep")
            _check(value[2], inner)
        elif kind is op.SUBPATTERN and not value[1] and not value[2]:
            _check(value[3], depth)
        elif kind is op.BRANCH:
            for choice in value[1]:
                _check(choice, depth)
        elif kind not in (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.AT) or value in _WORD_EDGES:
            raise ValueError(f"uses {str(kind).lower()}, which is not supported here")


_WORD_EDGES = (op.AT_BOUNDARY, op.AT_NON_BOUNDARY)


def _ends(nodes: Any, text: str, starts: Ends) -> Ends:
    for kind, value in nodes:
        if not starts:
            break
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            starts = _repeat(value, text, starts)
        elif kind is op.SUBPATTERN:
            starts = _ends(value[3], text, starts)
        elif kind is op.BRANCH:
            starts = frozenset().union(*(_ends(choice, text, starts) for choice in value[1]))
        elif kind is op.AT:
            starts = frozenset(i for i in starts if _at(value, i, text))
        else:
            starts = frozenset(i + 1 for i in starts if i < len(text) and _is(kind, value, text[i]))
    return starts


def _repeat(value: Any, text: str, starts: Ends) -> Ends:
    least, most, body = value
    reached = starts if least == 0 else frozenset()
    count = 0
    while starts and count < most:
        following, count = _ends(body, text, starts), count + 1
        if count >= least or following == starts:  # unchanged once, unchanged for ever
            reached |= following
        if following == starts:
            break
        starts = following
    return reached


def _at(kind: Any, i: int, text: str) -> bool:
    if kind in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
        return i == 0
    return i == len(text) or (kind is op.AT_END and text[i:] == "\n")


def _is(kind: Any, value: Any, char: str) -> bool:
    if kind is op.ANY:
        return char != "\n"
    if kind is op.IN:
        negated = value[0][0] is op.NEGATE
        return any(_is(inner, what, char) for inner, what in value[negated:]) != negated
    if kind is op.RANGE:
        return value[0] <= ord(char) <= value[1]
    if kind is op.CATEGORY:
        return CATEGORIES[value](char)
    return (ord(char) == value) != (kind is op.NOT_LITERAL)
