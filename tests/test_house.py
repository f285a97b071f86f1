"""The order of the rooms: each knows only those before it, imports inside functions included, and
no two modules know each other."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys

import pytest

import sdpo_lab
from sdpo_lab import _moved
from tests.conftest import ROOT

#: From the ground up. A name is a folder or a module of sdpo_lab/.
ROOMS = [
    "_version",
    "_repo",
    "sdpo_min",
    "core",
    "losses",
    "_old_names",
    "models",
    "tasks",
    "runs",
    "analysis",
    "trainer",
    "live",
    "exercises",
    "experiments",
    "views",
    "_moved",
    "__init__",
]
PACKAGE = ROOT / "sdpo_lab"
FILES = {
    ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted(PACKAGE.rglob("*.py"))
}


def canonical(name: str) -> str | None:
    """A module of the package by the path it has now; None for what is none of ours."""
    if name != "sdpo_lab" and not name.startswith("sdpo_lab."):
        return None
    name = name.removeprefix("sdpo_lab").lstrip(".")
    name = _moved.MOVED.get(name, name)
    return name or "__init__"


def imported(path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {canonical(a.name) for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are written in full"
            for a in node.names:  # `from room import module` is an arrow to the module
                inner = canonical(f"{node.module}.{a.name}")
                outer = canonical(node.module)
                moved = _moved.NAMES.get((node.module or "").removeprefix("sdpo_lab."), {}).get(
                    a.name
                )
                found.add(moved or (inner if inner in FILES else outer))
    return found - {None}


ARROWS = {name: imported(path) for name, path in FILES.items()}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_room():
    assert {room(m) for m in FILES} == set(ROOMS)


@pytest.mark.parametrize("module", FILES)
def test_no_arrow_goes_up(module):
    up = [to for to in ARROWS[module] if ROOMS.index(room(to)) > ROOMS.index(room(module))]
    assert not up, f"{module} imports {', '.join(up)}, which is above it"


def test_no_circle():
    """Modules without an arrow to one that is left are taken away, until none is left."""
    left = {m: {to for to in arrows if to in FILES and to != m} for m, arrows in ARROWS.items()}
    while free := [m for m, arrows in left.items() if not arrows & left.keys()]:
        for m in free:
            del left[m]
    assert not left, f"in circles, or above one: {left}"


@pytest.mark.parametrize("old", _moved.MOVED)
def test_an_old_path_gives_the_same_module(old):
    new = importlib.import_module(f"sdpo_lab.{_moved.MOVED[old]}")
    found = importlib.import_module(f"sdpo_lab.{old}")
    assert found is new and found.__spec__.name == found.__name__ == f"sdpo_lab.{_moved.MOVED[old]}"
    for name, place in _moved.NAMES.get(old, {}).items():
        assert getattr(found, name) is getattr(importlib.import_module(f"sdpo_lab.{place}"), name)


def test_an_old_path_takes_no_public_name_away():
    for old in _moved.MOVED:
        importlib.import_module(f"sdpo_lab.{old}")
    assert callable(sdpo_lab.credit) and callable(sdpo_lab.preflight)
    assert sdpo_lab.scoring is sys.modules["sdpo_lab.core.scoring"]


def test_public_names_are_what_dir_shows():
    assert set(dir(sdpo_lab)) == set(sdpo_lab.__all__)
    assert all(getattr(sdpo_lab, name) is not None for name in sdpo_lab.__all__)


def test_an_old_path_is_loaded_only_when_asked_for():
    code = (
        "import sys, sdpo_lab; print([m for m in sys.modules if m.startswith(('sdpo_lab.live', "
        "'sdpo_lab.exercises'))])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert shown.stdout.strip() == "[]"


def lines_of_code(node: ast.AST, text: list[str]) -> int:
    """Lines of a function or module without blanks, comments and docstrings."""
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(text))
    kept = {
        n
        for n in range(first, last + 1)
        if text[n - 1].strip().strip("#") and not text[n - 1].lstrip().startswith("#")
    }
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(inner, DOCUMENTED) and body and ast.get_docstring(inner) is not None:
            kept -= set(range(body[0].lineno, body[0].end_lineno + 1))
    return len(kept)


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.parametrize("module", FILES)
def test_functions_and_files_are_short(module):
    """40 lines of code a function in the core, 60 elsewhere, 300 a file; config.py is a table."""
    source = FILES[module].read_text(encoding="utf-8")
    tree, text = ast.parse(source), source.splitlines()
    if module != "core.config":
        assert lines_of_code(tree, text) <= 300
    limit = 40 if module.startswith("core.") else 60
    functions = [
        n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    too_long = {n.name: lines for n in functions if (lines := lines_of_code(n, text)) > limit}
    assert not too_long
