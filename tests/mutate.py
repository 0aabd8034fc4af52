"""`python tests/mutate.py [FOLDER or FILE …] [--sample N] [--jobs N]`: would the tests see a fault?

Changes one thing at a time in moejax's source (an operator, a number, a condition, a whole statement), runs
the tests that reach the changed line, and counts how many changes they see. The source on disk is never
touched: a forked process imports the changed module instead. Tests are found by a first run that notes which
test reaches which line. Changes that no test reaches count as not seen.
"""

import argparse
import ast
import copy
import importlib.machinery
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = ["moejax/routing", "moejax/aggregation", "moejax/experts"]
OPTIONS = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not parity"]
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.USub: ast.UAdd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change: where, what, and the source with it."""

    path: Path
    line: int
    what: str
    source: str


def mutants(path: Path) -> Iterator[Mutant]:
    """Every change of a file, one at a time."""
    tree = ast.parse(path.read_text())
    for place, node in enumerate(code(tree)):
        for number in range(len(changes(node))):
            changed = copy.deepcopy(tree)
            twin = list(code(changed))[place]
            before = ast.unparse(twin)
            changes(twin)[number]()
            after = ast.unparse(twin) if isinstance(twin, ast.expr) else "changed"
            yield Mutant(path, node.lineno, f"{before[:60]}  ->  {after[:60]}", ast.unparse(changed))


def code(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """The nodes that run: no annotations, no docstrings, no messages of errors, no imports."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list") or isinstance(tree, ast.Raise):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.Import | ast.ImportFrom) or is_text(node):
                continue
            if isinstance(node, ast.expr | ast.stmt):
                yield node
            if isinstance(node, ast.AST):
                yield from code(node)


def is_text(node: ast.AST) -> bool:
    """A docstring or the docstring of a field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def changes(node: ast.AST) -> list:
    """What can be changed in this node, as functions that change it."""
    found = []
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign | ast.UnaryOp) and type(node.op) in OPERATORS:
        found.append(lambda: setattr(node, "op", OPERATORS[type(node.op)]()))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
        found.append(lambda: node.ops.__setitem__(0, OPERATORS[type(node.ops[0])]()))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        found.append(lambda: setattr(node, "op", ast.Not()) or setattr(node, "operand", ast.Constant(False)))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        found.append(lambda: setattr(node, "value", not node.value))
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        found.append(lambda: setattr(node, "value", node.value + 1))
    if isinstance(node, ast.If | ast.IfExp):
        found.append(lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test)))
    if isinstance(node, ast.Return) and node.value is not None:
        found.append(lambda: setattr(node, "value", ast.Constant(None)))
    for name in ("body", "orelse"):
        for place, inner in enumerate(getattr(node, name, ())) if isinstance(node, ast.stmt) else ():
            if isinstance(inner, ast.Expr | ast.AugAssign | ast.Raise | ast.Continue) and not is_text(inner):
                found.append(partial(getattr(node, name).__setitem__, place, ast.Pass()))
    return found


class Contexts:
    """A plugin of pytest: lines that run are noted under the name of the test."""

    def __init__(self, cover):
        self.cover = cover

    def pytest_runtest_setup(self, item):
        self.cover.switch_context(item.nodeid.partition("[")[0])


def reached(parts: list[Path]) -> dict[tuple[str, int], set[str]]:
    """(file, line) -> the tests that reach it, as pytest names them; none for what runs at import."""
    import coverage
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        data, child = Path(folder) / "data", os.fork()
        if child == 0:
            cover = coverage.Coverage(str(data), source=["moejax"], config_file=False)
            cover.start()
            status = pytest.main([*OPTIONS, *map(str, parts)], [Contexts(cover)])
            cover.stop()
            cover.save()
            os._exit(int(status))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit("the tests fail before anything is changed: mend them first")
        read = coverage.CoverageData(str(data))
        read.read()
        return {
            (file, line): set(filter(None, contexts))
            for file in read.measured_files()
            for line, contexts in read.contexts_by_lineno(file).items()
        }


def reaching(mutant: Mutant, by_line: dict[tuple[str, int], set[str]], parts: list[Path]) -> list[str]:
    """The tests that reach the statement of a change; all of them for what runs at import; none: not reached."""
    for line in range(
        mutant.line, 0, -1
    ):  # the first line of a statement of several lines is the one that counts
        if (found := by_line.get((str(mutant.path), line))) is not None:
            return sorted(found) or list(map(str, parts))
    return []


def begin(mutant: Mutant, chosen: list[str], limit: int) -> int:
    """Fork a process that runs tests with this change; its id."""
    import pytest

    if child := os.fork():
        return child
    signal.alarm(limit)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    get = importlib.machinery.SourceFileLoader.get_data

    def get_data(self, path):  # the changed source; of its compiled file, none
        if Path(path) == mutant.path:
            return mutant.source.encode()
        if path.endswith(".pyc") and Path(path).name.startswith(f"{mutant.path.stem}."):
            raise OSError(path)
        return get(self, path)

    importlib.machinery.SourceFileLoader.get_data = get_data
    os._exit(int(pytest.main([*OPTIONS, "-x", *chosen])))


def control(mutant: Mutant, tests: list[list[str]], limit: int) -> None:
    """All tests are found by their names, and a file that is not changed passes; or nothing here means anything."""
    unchanged = mutant._replace(source=mutant.path.read_text())
    names = sorted({name for chosen in tests for name in chosen})
    for chosen in (["--collect-only", *names], names[:5]):
        child = begin(unchanged, chosen, 10 * limit)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(f"without any change, these tests do not run: {' '.join(chosen[:6])} ...")


def outcomes(
    every: list[Mutant], tests: list[list[str]], jobs: int, limit: int
) -> Iterator[tuple[Mutant, str]]:
    """Each change with what became of it, as it becomes known: seen, not seen, too slow or not reached."""
    waiting, running = list(zip(every, tests, strict=True)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, chosen = waiting.pop()
            if chosen:
                running[begin(mutant, chosen, limit)] = mutant
            else:
                yield mutant, "not reached"
        if running:
            child, status = os.wait()
            slow = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
            yield running.pop(child), "too slow" if slow else "seen" if status else "not seen"


def main() -> int:
    """Print what was not seen, and the share of changes that were; 1 when it is under 80%."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", default=FOLDERS)
    parser.add_argument("--sample", type=int, default=0, help="so many changes, drawn with seed 0; 0: all")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    import jax  # noqa: F401, imported once here, not in each fork

    paths = [(ROOT / path).resolve() for path in options.paths]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    every = [mutant for file in files for mutant in mutants(file)]
    if options.sample:
        every = random.Random(0).sample(every, min(options.sample, len(every)))
    parts = [part for part in dict.fromkeys(mirror(file) for file in files) if part.is_dir()]
    began = time.monotonic()
    by_line = reached(parts)
    limit = round(60 + 3 * (time.monotonic() - began))
    tests = [reaching(mutant, by_line, parts) for mutant in every]
    control(every[0], tests, limit)
    seen, done = Counter(), 0
    for mutant, what in outcomes(every, tests, options.jobs, limit):
        seen[what], done = seen[what] + 1, done + 1
        if what != "seen":
            print(f"{what}: {mutant.path.relative_to(ROOT)}:{mutant.line}: {mutant.what}", flush=True)
        if done % 50 == 0:
            print(f"  {done} of {len(every)}: {dict(seen)}", flush=True)
    share = (seen["seen"] + seen["too slow"]) / max(1, len(every))
    print(f"{len(every)} changes, {dict(seen)}: {share:.1%} seen")
    return int(share < 0.8)


def mirror(file: Path) -> Path:
    """The folder of tests that mirrors a file's."""
    return ROOT / "tests" / file.relative_to(ROOT / "moejax").parts[0]


if __name__ == "__main__":
    sys.exit(main())
