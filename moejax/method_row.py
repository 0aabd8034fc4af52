"""A row of the table in one word: `phatgoose`, `arrow(factor)`, `arrow(factor, k=2)`.

In brackets stand the method's own options: `field=value`, or a bare word that is a choice of one field only.
"""

import ast
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from moejax.methods import load
from moejax.types import UserError


class MethodRow(NamedTuple):
    """What a row says: its label, the method's name, and the method's own config."""

    label: str
    name: str
    config: Any


def short(text: str, among: Sequence[str]) -> str:
    """A row's name in the table: its choices stay, its settings go, unless another row would then have the name."""

    def bare(label: str) -> str:
        node = ast.parse(label.strip(), mode="eval").body
        if not isinstance(node, ast.Call):
            return label
        chosen = ", ".join(ast.unparse(part) for part in node.args)
        return ast.unparse(node.func) + (f"({chosen})" if chosen else "")

    return bare(text) if sum(bare(label) == bare(text) for label in among) == 1 else text


def parse_row(text: str) -> MethodRow:
    """The row of this text. Raises UserError for an unknown method, option or value, with what there is."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        node = None
    name = node.func if isinstance(node, ast.Call) else node
    if not isinstance(name, ast.Name):
        raise UserError(f"method {text!r} is not of the form NAME, NAME(choice) or NAME(option=value)")
    config = load(name.id).Config()
    return MethodRow(text, name.id, _with(config, node, text) if isinstance(node, ast.Call) else config)


def _with(record: Any, call: ast.Call, text: str) -> Any:
    """The record with the options of this call."""
    given: dict[str, Any] = {}
    for part in call.args:
        if not isinstance(part, ast.Name):
            raise UserError(f"method {text!r}: {ast.unparse(part)} needs the name of an option, as in k=2")
        _add(given, _field_of_choice(record, part.id, text), part.id, text)
    for word in call.keywords:
        field = _field(record, word.arg or "**", text)
        hint = get_type_hints(type(record))[field]
        value = _value(word.value, text)
        try:
            _add(given, field, _typed(value, hint), text)
        except ValueError:
            raise UserError(f"method {text!r}: {field} is {value!r}, expected {_said(hint)}") from None
    return replace(record, **given)


def _add(given: dict[str, Any], field: str, value: Any, text: str) -> None:
    if field in given:
        raise UserError(f"method {text!r}: {field} is given twice")
    given[field] = value


def _field(record: Any, name: str, text: str) -> str:
    names = [field.name for field in fields(record)]
    if name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}"
        raise UserError(f"method {text!r}: no option {name!r}, {hint}")
    return name


def _field_of_choice(record: Any, word: str, text: str) -> str:
    """The one field that has this word among its choices."""
    choices = {
        name: get_args(hint)
        for name, hint in get_type_hints(type(record)).items()
        if get_origin(hint) is Literal
    }
    having = [name for name, words in choices.items() if word in words]
    if len(having) == 1:
        return having[0]
    every = [str(choice) for words in choices.values() for choice in words]
    near = get_close_matches(word, every, 1)
    hint = f"did you mean {near[0]}?" if near else f"the words here are {', '.join(every) or 'none'}"
    raise UserError(f"method {text!r}: no choice {word!r}, {hint}")


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UserError(f"method {text!r}: {ast.unparse(node)} is not a plain value") from None


def _typed(value: Any, hint: Any) -> Any:
    """A plain value as this type, a whole number as a float. Raises ValueError when it does not fit."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for one in inner:
            with suppress(ValueError):
                return _typed(value, one)
    elif origin is tuple:
        if isinstance(value, tuple) and inner[1:] == (...,):
            return tuple(_typed(one, inner[0]) for one in value)
    elif origin is Literal:
        if value in inner:
            return value
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    raise ValueError(value)


def _said(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
