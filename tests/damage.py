"""Damaging files at random, for fuzzing: JSON anywhere in it, and safetensors in header, length, size or numbers.

`odd`: values that are put in place of others; `fields`: names of keys that are added to objects.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TENSORS = ("header", "header bytes", "size", "cut", "longer", "payload")
"""The ways to damage a file of tensors."""
BROKEN = (b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe")


def values_of(tree: Any, path: tuple = ()) -> list[tuple]:
    """Paths of all values within lists and objects."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [p for key, value in inner for p in values_of(value, (*path, key))]


def change(draw: random.Random, tree: Any, odd: Sequence[Any], fields: Sequence[str] = ()) -> Any:
    """Replace, remove, rename or add one value anywhere in it."""
    path = draw.choice(values_of(tree) or [()])
    if not path:
        return draw.choice(odd)
    node = tree
    for key in path[:-1]:
        node = node[key]
    ways = ["odd", "odd", "number", "remove", "rename"] + ["add"] * bool(fields)
    how, key = draw.choice(ways), path[-1]
    if how == "number" and type(node[key]) is int:
        node[key] += draw.choice([-1, 1, 4, -4, 10**6, 2**62])
    elif how == "remove":
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        node[word(draw, key)] = node.pop(key)
    elif how == "add" and isinstance(node, dict):
        node[draw.choice(fields)] = draw.choice(odd)
    else:
        node[key] = draw.choice(odd)
    return tree


def word(draw: random.Random, said: str) -> str:
    """A name with a character changed, cut, or made longer."""
    at, odd = draw.randrange(len(said) + 1), draw.choice("x./0\\é\0")
    return draw.choice([said[:at], said[:at] + odd + said[at + 1 :], said + ".x", "", "../" + said, said[5:]])


def some_bytes(draw: random.Random, data: bytearray, low: int, high: int) -> bytearray:
    """Some of the bytes from `low` to `high` drawn anew; at least one is another."""
    before = bytes(data)
    while data == before:
        for _ in range(draw.choice([1, 1, 2, 8])):
            data[draw.randrange(low, high)] = draw.randrange(256)
    return data


def of_json(draw: random.Random, path: Path, odd: Sequence[Any], fields: Sequence[str] = ()) -> None:
    """A file of JSON: a value in it, its bytes, or something else altogether."""
    if draw.random() >= 0.2:
        path.write_text(json.dumps(change(draw, json.loads(path.read_text()), odd, fields)))
        return
    text = bytes(some_bytes(draw, bytearray(path.read_bytes()), 0, path.stat().st_size))
    if draw.random() < 0.3:
        text = draw.choice([*BROKEN, text[: len(text) // 2]])
    path.write_bytes(text)


def of_tensors(
    draw: random.Random, file: Path, how: str, odd: Sequence[Any], fields: Sequence[str] = ()
) -> None:
    """A file of tensors, in one of the ways of TENSORS."""
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    if how == "header":
        header = json.dumps(change(draw, json.loads(data[8 : 8 + size]), odd, fields)).encode()
        data[: 8 + size] = len(header).to_bytes(8, "little") + header
    elif how == "header bytes":
        some_bytes(draw, data, 8, 8 + size)
    elif how == "size":
        sizes = [0, 1, size - 1, size + 1, 2**20, 2**40, 2**63, 2**64 - 1]
        data[:8] = draw.choice(sizes).to_bytes(8, "little")
    elif how == "cut":
        del data[draw.randrange(len(data)) :]
    elif how == "longer":
        data += bytes(draw.choice([1, 4, 4096]))
    else:
        some_bytes(draw, data, 8 + size, len(data))
    file.write_bytes(data)
