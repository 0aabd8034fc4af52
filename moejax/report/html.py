"""Markup that cannot be broken by what it shows: every string that is not markup already is escaped."""

import re
from html import escape
from typing import Any


class Html(str):
    """Markup, as `tag` makes it."""

    __slots__ = ()


def text(value: Any) -> Html:
    """A value as text: markup as it is, anything else escaped, control and bidi codes spelled out (`\\x1b`)."""
    if isinstance(value, Html):
        return value
    shown = str(value)
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)
    return Html(escape(shown))


def join(*parts: Any) -> Html:
    """Parts after each other; None is left out."""
    return Html("".join(text(part) for part in parts if part is not None))


def tag(name: str, *parts: Any, **attributes: Any) -> Html:
    """An element. An attribute's `_` becomes `-` and falls away at its end; None leaves it out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{said}>{join(*parts)}</{name}>")


def breakable(label: str) -> Html:
    """A label that may go on in the next line after a bracket or a comma, before it is cut within a word."""
    return Html(re.sub(r"([(,])(?=.)", r"\1<wbr>", text(label)))


def shortened(label: str, most: int = 18) -> str:
    """A label of at most so many characters: its begin and its end, which tell rows of one method apart."""
    tail = most // 2
    return label if len(label) <= most else f"{label[: most - tail - 1]}…{label[-tail:]}"


def missing(why: str) -> Html:
    """What stands where a part is left out: a sentence that says why."""
    return tag("p", why, class_="missing")


def box(*parts: Any) -> Html:
    """A box that scrolls by itself, so that a wide table never makes the page scroll sideways."""
    return tag("div", *parts, class_="box", tabindex="0")


def more(summary: Any, *parts: Any, opened: bool = False) -> Html:
    """What opens on demand, or is open from the start."""
    return tag("details", tag("summary", summary), *parts, open="" if opened else None)
