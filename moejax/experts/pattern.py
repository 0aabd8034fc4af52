"""Regular expressions written by strangers, matched in bounded time.

Python's `re` backtracks: `(a|a)*b` takes 15 s on 26 letters. Here a node of the pattern maps the set of
positions where it may start to the set where it may end, so no path is walked twice. And all matches of one
folder together have a number of steps: some seconds' worth, and the same on every machine.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, reduce
from operator import or_
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

LONGEST = 512  # characters of a pattern
STEPS = 2_000_000  # of matching, for all patterns and modules of one folder: a node visited, a character looked at
MOST_GROUPS = 50
DEEPEST = 2  # repeats inside repeats: each level multiplies the time by the length of the text

Ends = int  # a set of positions: bit i is the place before character i
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
    no flags, no look-around, no back-reference, no atomic group, repeats nested at most twice; and on one that
    takes more steps than `limited` leaves.
    """
    _check_length(pattern)
    literal = _literal(pattern)
    return text == literal if literal is not None else _match(pattern, text)


def _check_length(pattern: str) -> None:
    if len(pattern) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")


@lru_cache(maxsize=65536)  # the experts of a pool share patterns and modules
def _match(pattern: str, text: str) -> bool:
    return bool(_ends(_tree(pattern), _Text(text, _left.get() or [STEPS]), 1) >> len(text))


_left: ContextVar[list[int] | None] = ContextVar("_left", default=None)


@contextmanager
def limited() -> Iterator[None]:
    """Within it all matches together have `STEPS`; outside, each of them."""
    token = _left.set([STEPS])
    try:
        yield
    finally:
        _left.reset(token)


@lru_cache(maxsize=4096)
def _literal(pattern: str) -> str | None:
    """The one text that matches, where there is nothing but letters."""
    tree = _tree(pattern)
    return "".join(chr(value) for _, value in tree) if all(kind is op.LITERAL for kind, _ in tree) else None


def ends_with(key: str, text: str) -> bool:
    r"""Whether the pattern `(.*\.)?(key)$` matches: the whole text, or its end after a dot; `^` means the whole.

    Raises ValueError as `fullmatch` does.
    """
    _check_length(key)
    name = _literal(key.removeprefix("^"))
    if name is not None:
        return text == name or (not key.startswith("^") and text.endswith(f".{name}") and "\n" not in text)
    return _match(rf"(.*\.)?({key})$", text)


@lru_cache(maxsize=1024)
def _tree(pattern: str) -> Any:
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


class _Text:
    """A text, and for every leaf of a pattern the positions where it matches, computed once."""

    def __init__(self, text: str, left: list[int]):
        self.text, self.left = text, left
        self.found: dict[tuple[Any, int], Ends] = {}

    def where(self, kind: Any, value: Any) -> Ends:
        key = (kind, id(value))
        if key not in self.found:
            self.found[key] = self._where(kind, value)
        return self.found[key]

    def _where(self, kind: Any, value: Any) -> Ends:
        places, end = _places(self.text), len(self.text)
        if kind is op.LITERAL:
            return places.get(chr(value), 0)
        if kind is op.AT:
            return sum(1 << i for i in {0, max(end - 1, 0), end} if _at(value, i, self.text))
        self.spend(len(places))
        return sum(bits for char, bits in places.items() if _is(kind, value, char))

    def spend(self, steps: int) -> None:
        self.left[0] -= steps
        if self.left[0] < 0:
            raise ValueError("takes too long to match: write it more simply, or list the modules")


@lru_cache(maxsize=4096)
def _places(text: str) -> dict[str, Ends]:
    """Where each character of the text stands."""
    places: dict[str, Ends] = {}
    for i, char in enumerate(text):
        places[char] = places.get(char, 0) | 1 << i
    return places


def _ends(nodes: Any, text: _Text, starts: Ends) -> Ends:
    text.spend(len(nodes) + 1)
    for kind, value in nodes:
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            starts = _repeat(value, text, starts)
        elif kind is op.SUBPATTERN:
            starts = _ends(value[3], text, starts)
        elif kind is op.BRANCH:
            starts = reduce(or_, (_ends(choice, text, starts) for choice in value[1]))
        else:
            starts = (starts & text.where(kind, value)) << (kind is not op.AT)
    return starts


def _repeat(value: Any, text: _Text, starts: Ends) -> Ends:
    least, most, body = value
    reached = starts if least == 0 else 0
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
