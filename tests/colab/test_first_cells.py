"""The first cells of the notebooks, on a stand-in for Colab: what they install where the package is
missing, and that they do nothing else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest
from packaging.requirements import Requirement

from sdpo_lab._repo import REPO_URL
from tests.browser.kernels import TOOL as KERNELS
from tests.browser.kernels import need
from tests.test_notebooks import SCRIPTS, TOOL

# A pip that writes down what it was asked and does it not; then, if told to, the package is there,
# as after an install.
PIP = """
import json, os, sys
with open(os.environ["ASKED"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""
# What runs a cell as a notebook would: IPython's own shell. `google.colab` is there as on Colab;
# the package is as missing as it can be made.
DRIVER = """
import os, sys, types
from pathlib import Path
if os.environ["PACKAGE"] == "missing":
    sys.path = [p for p in sys.path if not (Path(p or ".") / "sdpo_lab").is_dir()]
    sys.meta_path = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
if "COLAB_RELEASE_TAG" in os.environ:
    for name in ("google", "google.colab"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell(sys.stdin.read()).raise_error()
print("imported sdpo_lab" if "sdpo_lab" in sys.modules else "left sdpo_lab alone")
"""
COLAB = {"COLAB_RELEASE_TAG": "release-colab_20260819-060053_RC00", "COLAB_NOTEBOOK_ID": "none"}


def first_code_cell(script: Path) -> str:
    return next(
        c.source for c in jupytext.read(script, fmt="py:percent").cells if c.cell_type == "code"
    )


def asked_of_pip(
    folder: Path, cell: str, python: Path | str, package: str, **environment: str
) -> list[list[str]]:
    """The arguments of every call of pip that running `cell` makes, in an empty folder; `package`
    is "missing" or "there"."""
    (folder / "fake" / "pip").mkdir(parents=True)
    (folder / "fake" / "pip" / "__init__.py").touch()
    (folder / "fake" / "pip" / "__main__.py").write_text(PIP)
    (folder / "empty").mkdir()
    log = folder / "asked.jsonl"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("COLAB_", "PYTHON", "PIP_"))}
    run = subprocess.run(
        [str(python), "-c", DRIVER],
        input=cell,
        cwd=folder / "empty",
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **clean,
            "PYTHONPATH": str(folder / "fake"),
            "ASKED": str(log),
            "PACKAGE": package,
            "IPYTHONDIR": str(folder / "ipython"),
            **environment,
        },
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert "left sdpo_lab alone" in run.stdout, "the first cell only installs"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture(params=["own", "colab"])
def python(request) -> Path | str:
    """IPython 9 of this environment, and IPython 7.34 of Colab's."""
    if request.param == "own":
        return sys.executable
    need(request.param)
    return KERNELS["python"](request.param)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_notebook_has_the_badge_and_the_one_first_cell(script):
    """tools/notebooks.py has the one text of both."""
    cells = jupytext.read(script, fmt="py:percent").cells
    top = next(c for c in cells if c.cell_type == "markdown")
    assert (
        cells[0] is top
        and TOOL["BADGE"].format(script.relative_to(TOOL["FOLDER"]).with_suffix("").as_posix())
        in top.source.splitlines()
    )
    assert first_code_cell(script) == TOOL["FIRST_CELL"]


def test_on_colab_without_the_package_it_is_asked_for(python, tmp_path):
    asked = asked_of_pip(tmp_path, TOOL["FIRST_CELL"], python, "missing", **COLAB)
    (arguments,) = asked
    assert arguments[:2] == ["install", "-q"] and len(arguments) == 3, (
        f"and nothing else, above all no upgrade: {shlex.join(arguments)}"
    )
    requirement = Requirement(arguments[2])
    assert (requirement.name, requirement.extras, requirement.url) == (
        "sdpo_lab",
        {"widgets"},
        f"git+{REPO_URL}",
    )


def test_on_colab_with_the_package_nothing_is_asked_for(python, tmp_path):
    assert asked_of_pip(tmp_path, TOOL["FIRST_CELL"], python, "there", **COLAB) == []


@pytest.mark.parametrize("package", ["missing", "there"])
def test_elsewhere_nothing_is_asked_for(python, package, tmp_path):
    assert asked_of_pip(tmp_path, TOOL["FIRST_CELL"], python, package) == []


def test_the_stand_in_would_notice_an_upgrade(tmp_path):
    """The other half of the proof: a cell that does what ours must not is seen doing it."""
    cell = 'get_ipython().run_line_magic("pip", "install -q -U ipywidgets")'
    assert asked_of_pip(tmp_path, cell, sys.executable, "there", **COLAB) == [
        ["install", "-q", "-U", "ipywidgets"]
    ]
