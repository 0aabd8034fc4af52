"""When the types that signatures state are checked: each function's first calls in a process, then one in twenty.

jaxtyping's import hook checks every call, which is a quarter of the tests' time: the same few functions are called
thousands of times, from within loops of traces. A function that states no type has nothing to check, and is left alone.
"""

import ast
from collections import Counter
from collections.abc import Callable
from functools import wraps
from types import CodeType
from typing import Any

from beartype import beartype
from jaxtyping import _import_hook, jaxtyped

FIRST, THEN = 20, 20
calls: Counter[CodeType] = Counter()


def checked(function: Callable) -> Callable:
    """Its first calls and one in twenty after them are checked; the others are only calls.

    Calls are counted by code: a function within a function is made anew each time, and wrapping it is slow.
    """
    code, strict = function.__code__, None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal strict
        calls[code] += 1
        if calls[code] > FIRST and calls[code] % THEN:
            return function(*args, **kwargs)
        strict = strict or jaxtyped(typechecker=beartype)(function)
        return strict(*args, **kwargs)

    return call


def check_some() -> None:
    """Let jaxtyping's import hook set `checked` on functions that state a type; before any of them is imported."""
    classes = _import_hook.JaxtypingTransformer

    def visit(self: ast.NodeVisitor, node: ast.FunctionDef) -> ast.FunctionDef:
        every = [
            *node.args.posonlyargs,
            *node.args.args,
            *node.args.kwonlyargs,
            node.args.vararg,
            node.args.kwarg,
        ]
        if node.returns or any(one and one.annotation for one in every):
            decorator = ast.parse("__import__('typed').checked", mode="eval").body
            for part in ast.walk(decorator):
                ast.copy_location(part, node)
            node.decorator_list.append(decorator)
        self.generic_visit(node)
        return node

    classes.visit_FunctionDef = visit
