"""The house plan: imports run down the floors only, and every file and function is one idea."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("types", "taxonomy", "survey", "fetch"),
    ("experts", "routing", "aggregation", "parallel"),
    ("models", "data", "embed"),
    ("site", "joint", "adapted", "loss", "composed", "either", "places", "contract", "paged"),
    ("train", "evaluate", "report"),
    ("methods",),
    (
        "config",
        "check_config",
        "load_config",
        "method_row",
        "cli",
        "stages",
        "advise",
        "commands",
        "__main__",
    ),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
STRANGERS = (
    ("data", "models"),
    ("models", "data"),
    ("methods", "data"),
    ("methods", "evaluate"),
    ("data", "embed"),
    ("embed", "data"),
)
FILES = {"os", "io", "pathlib", "shutil", "tempfile", "glob"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "moejax").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported(name: str) -> set[str]:
    """Modules that a module names in import statements, anywhere in it, or as a string to import later."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {str(node.module)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & (MODULES.keys() - {"moejax"})
    return found - {name}


def part(name: str) -> str:
    """The part of the house that a module stands in: `experts` for `moejax.experts.bank`."""
    return [*name.split("."), ""][1]


OURS = {name: {other for other in imported(name) if other in MODULES} for name in MODULES}
PAIRS = sorted(
    (name, other) for name, others in OURS.items() for other in others if part(name) and part(other)
)


def test_every_part_has_a_floor():
    assert {part(name) for name in MODULES} - {""} <= FLOOR.keys()


def test_imports_were_found():
    assert ("moejax.aggregation.formulations", "moejax.experts.stacks") in PAIRS
    assert ("moejax.methods.arrow", "moejax.contract") in PAIRS


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_run_down_the_floors(name):
    for other in OURS[name]:
        if part(name) and part(other):
            assert FLOOR[part(other)] <= FLOOR[part(name)], f"{name} stands below {other}, which it imports"
            assert (part(name), part(other)) not in STRANGERS, f"{name} must not see {other}"


def test_no_import_runs_in_a_circle():
    try:
        tuple(TopologicalSorter(OURS).static_order())
    except CycleError as circle:
        pytest.fail(f"imports in a circle: {' -> '.join(circle.args[1])}")


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) == "methods"))
def test_methods_open_no_file(name):
    assert not {other.split(".")[0] for other in imported(name)} & FILES
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert not re.fullmatch(
                r"open|read_(text|bytes)|write_(text|bytes)|load_file|save_file", called
            ), called


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_file_is_one_idea(name):
    assert len(MODULES[name].read_text().splitlines()) <= 250
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{name}.{node.name} is long"
