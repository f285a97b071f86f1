"""Notebooks are what their sources say, and the check that runs them would notice a broken
trainer."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.conftest import ROOT

TOOL = runpy.run_path(str(ROOT / "tools" / "notebooks.py"))
SCRIPTS = TOOL["sources"]()


def test_there_are_notebooks():
    assert SCRIPTS, "no notebooks/NN_name.py"


def test_every_notebook_has_a_source():
    written = {
        p.stem for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
    }
    assert written == {p.stem for p in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_notebook_is_not_stale(script: Path):
    assert TOOL["check"](script) == [], "`make notebooks` writes it anew"


def never_waited_for(source: str) -> list[str]:
    """Names of live runs and dashboards without a later `.result()`: what breaks on their thread
    would go unseen by nbval."""
    tree = ast.parse(source)
    called = lambda node: (
        isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", ""))
    )
    started = [
        (ast.unparse(node.targets[0]), node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and called(node.value) in ("Dashboard", "LiveRun")
    ]
    waits = [
        (ast.unparse(node.func.value), node.lineno)
        for node in ast.walk(tree)
        if called(node) == "result"
    ]
    return [
        name
        for name, line in started
        if not any(other == name and later > line for other, later in waits)
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_run_on_a_thread_is_waited_for(script: Path):
    assert never_waited_for(script.read_text(encoding="utf-8")) == []


def test_a_run_that_nobody_waits_for_is_seen():
    assert never_waited_for(
        "dash = lab.views.Dashboard(t)\ndash\nrun = LiveRun(t)\nrun.result()\ndash.run.start()"
    ) == ["dash"]


# -- the tool itself, on a notebook of two cells

SCRIPT = """# %% [markdown]
# # A title

# %%
x = 1
print(x)

# %%
from IPython.display import display
for text in ("View()", "  0%|          | 0/5"):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}}
    display({"text/plain": text, **view}, raw=True)
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The tool with a repository of its own: a version, a model and a script."""
    module = TOOL["check"].__globals__
    for name in ("sdpo_lab", "notebooks", "small_models"):
        (tmp_path / name).mkdir()
    (tmp_path / "sdpo_lab" / "_version.py").write_text("__version__ = '9.9'\n")
    (tmp_path / "small_models" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setitem(module, "ROOT", tmp_path)
    monkeypatch.setitem(module, "MODEL", tmp_path / "small_models" / "model.safetensors")
    (tmp_path / "notebooks" / "00_two.py").write_text(SCRIPT)
    return module


@pytest.fixture
def script(tool, tmp_path) -> Path:
    return tmp_path / "notebooks" / "00_two.py"


@pytest.mark.notebook
def test_build_and_check(tool, script):
    target = tool["build"](script)
    assert tool["check"](script) == []
    notebook = nbformat.read(target, as_version=4)
    assert [c.id for c in notebook.cells] == ["cell-000", "cell-001", "cell-002"]
    assert notebook.cells[1].outputs[0].text == "1\n"
    assert [o.data for o in notebook.cells[2].outputs] == [{"text/plain": tool["WIDGET_NOTE"]}], (
        "the bar is gone, the view is a note"
    )
    assert all(not c.metadata for c in notebook.cells)
    assert notebook.metadata.sdpo_lab == {"model": tool["model_checksum"](), "version": "9.9"}
    assert set(notebook.metadata) == {"kernelspec", "language_info", "sdpo_lab"}

    def wrong(change) -> str:
        changed = nbformat.read(target, as_version=4)
        change(changed)
        kept = target.read_text()
        nbformat.write(changed, target)
        said = tool["check"](script)
        target.write_text(kept)
        return "; ".join(said)

    assert "cell 1 is not the one of 00_two.py" in wrong(
        lambda n: n.cells[1].update(source="x = 2")
    )
    assert "cell 2 is not" in wrong(lambda n: n.cells.pop())
    assert "not run once and in order" in wrong(lambda n: n.cells[2].update(execution_count=7))
    assert "not run once and in order" in wrong(lambda n: n.cells[2].update(execution_count=None))
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert "an output is an error: ValueError: no" in wrong(
        lambda n: n.cells[1].outputs.append(error)
    )
    assert "widget" in wrong(
        lambda n: n.metadata.update(widgets={"application/vnd.jupyter.widget-state+json": {}})
    )
    assert "bytes" in wrong(lambda n: n.cells[1].outputs[0].update(text="x" * 1_000_001))
    assert "other weights" in wrong(lambda n: n.metadata.sdpo_lab.update(model="0" * 64))


@pytest.mark.notebook
def test_a_failing_cell_writes_nothing(tool, script):
    from nbclient.exceptions import CellExecutionError

    script.write_text("# %%\n1 / 0\n")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        tool["build"](script)
    assert not script.with_suffix(".ipynb").exists()
    assert tool["check"](script) == ["00_two.ipynb is missing"]


@pytest.mark.parametrize(
    "lengths, wrong",
    [((9, 9, 9), "median 9 of 8"), ((1, 1, 31), "longest 31 of 30"), ((8, 8, 30), "")],
)
def test_long_cells_are_refused(tool, script, lengths, wrong):
    script.write_text("\n".join("# %%\n" + "x = 1\n" * n for n in lengths))
    notebook = tool["convert"](script)
    for i, cell in enumerate(notebook.cells):
        cell["execution_count"] = i + 1
    notebook.metadata["sdpo_lab"] = {"model": tool["model_checksum"]()}
    nbformat.write(notebook, script.with_suffix(".ipynb"))
    said = "; ".join(tool["check"](script))
    assert wrong in said if wrong else not said


def test_an_unknown_name_is_refused_with_the_nearest():
    if not SCRIPTS:
        pytest.skip("no notebooks")
    with pytest.raises(ValueError, match=f"Did you mean '{SCRIPTS[0].stem}'"):
        TOOL["sources"]([SCRIPTS[0].stem + "x"])


# -- nbval turns red when the trainer is broken on purpose

NAN_LOSS = """
import sdpo_lab.core.losses as losses
whole_loss = losses.distillation_loss
losses.distillation_loss = lambda *args, **kwargs: whole_loss(*args, **kwargs) * float("nan")
"""
# The third step of a notebook is taken by the thread that trains, where nbval itself sees nothing.
STEP_RAISES = """
from sdpo_lab.trainer import SDPOTrainer
whole_step, calls = SDPOTrainer.step, []
def broken_step(self, *args, **kwargs):
    calls.append(1)
    if len(calls) == 3:
        raise RuntimeError("broken on purpose")
    return whole_step(self, *args, **kwargs)
SDPOTrainer.step = broken_step
"""


def nbval(notebook: Path) -> tuple[int, str]:
    """(exit status, what it printed without colours) of nbval as `make test` runs it, away from the
    repository's settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(notebook.parent),
            "--nbval-lax",
            "--nbval-current-env",
            "--nbval-cell-timeout=120",
            notebook.name,
        ],
        cwd=notebook.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    return run.returncode, re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr)


@pytest.mark.notebook
@pytest.mark.parametrize(
    "breakage, cause",
    [(NAN_LOSS, r"FloatingPointError: "), (STEP_RAISES, r"RuntimeError: broken on purpose")],
    ids=["nan-loss", "step-raises"],
)
@pytest.mark.parametrize("name", ["00_quickstart", "05_live_training"])
def test_nbval_turns_red(name: str, breakage: str, cause: str, tmp_path: Path):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(breakage.strip(), id="broken"))
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    status, said = nbval(tmp_path / f"{name}.ipynb")
    assert status == 1, said[-3000:]
    assert re.search(cause, said), said[-3000:]


@pytest.mark.notebook
def test_nbval_is_green_on_a_good_notebook(tool, script):
    """The other half of the proof: the same call of nbval passes where nothing is broken."""
    target = tool["build"](script)
    status, said = nbval(target)
    assert status == 0 and "2 passed" in said, said[-3000:]
