"""Notebooks from their sources: `python tools/notebooks.py build [name ...]` and `check [name
...]`.

The source of a notebook is the `py:percent` script beside it (notebooks/NN_name.py); the .ipynb is
generated from it with its outputs kept, so that a web page can show it without a kernel. `build`
converts, runs and writes; `check` tells whether what is committed is still what `build` would have
written, without running anything.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
import runpy
import statistics
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
MODEL = ROOT / "small_models" / "lab-1m" / "model.safetensors"

CELL_TIMEOUT = 120  # seconds
MAX_BYTES = 1_000_000
MEDIAN_LINES, MAX_LINES = 8, 30  # of a code cell
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_NOTE = "A live widget stands here; run this cell to see it."
PROGRESS_BAR = re.compile(r"\d%\|")  # tqdm's, of which the last state is not kept anyway
REPO_URL = runpy.run_path(str(ROOT / "sdpo_lab" / "_repo.py"))["REPO_URL"]
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})".format(
    REPO_URL.replace("https://github.com", "https://colab.research.google.com/github")
    + "/blob/main/notebooks/{}.ipynb"
)
# The first code cell of every notebook. Colab has all that the package needs but the package;
# whoever has it already is left alone.
FIRST_CELL = f"""
# On Colab this installs sdpo_lab; elsewhere it does nothing.
import importlib.util
import os

if "COLAB_RELEASE_TAG" in os.environ and importlib.util.find_spec("sdpo_lab") is None:
    get_ipython().run_line_magic("pip", "install -q 'sdpo_lab[widgets] @ git+{REPO_URL}'")
""".strip()
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def sources(names: list[str] | None = None, folder: Path = FOLDER) -> list[Path]:
    """The scripts of `names` (all without), in order. Raises ValueError for a name that is not
    there, with the nearest."""
    every = {
        path.stem: path
        for path in sorted(folder.glob("[0-9]*.py")) + sorted(folder.glob("extras/*.py"))
    }
    for name in names or []:
        if Path(name).stem not in every:
            near = difflib.get_close_matches(name, every, 1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no notebook {name!r}; there is {', '.join(every) or 'none'}.{hint}")
    return [every[Path(name).stem] for name in names] if names else list(every.values())


def model_checksum() -> str:
    """sha256 of the shipped weights: outputs made with other weights are stale."""
    return hashlib.sha256(MODEL.read_bytes()).hexdigest()


def convert(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, without outputs; its cell ids depend on the position alone, so that
    diffs stay small."""
    notebook = jupytext.read(script, fmt="py:percent")
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:03d}"
    # jupytext's own entry would pair the two files: a reader who saves in Jupyter would write into
    # the script
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what changes at every run or needs a kernel to be seen: timings, versions, widget
    state and views."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET, None) is not None and not set(data) - {"text/plain"}:
                if PROGRESS_BAR.search(data.get("text/plain", "")):
                    continue
                data["text/plain"] = (
                    WIDGET_NOTE  # without its state a view shows as an error, its repr as noise
                )
            kept.append(output)
        if "outputs" in cell:
            cell["outputs"] = kept
    return notebook


def build(script: Path) -> Path:
    """Run the notebook of `script` in its own folder and write it with its outputs. Nothing is
    written when a cell fails."""
    notebook = convert(script)
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(script.parent)}},
    ).execute()
    strip(notebook)
    version = runpy.run_path(str(ROOT / "sdpo_lab" / "_version.py"))["__version__"]
    notebook.metadata["sdpo_lab"] = {"model": model_checksum(), "version": version}
    target = script.with_suffix(".ipynb")
    nbformat.validate(notebook)
    nbformat.write(notebook, target)
    return target


def check(script: Path) -> list[str]:
    """What is wrong with the notebook of `script`, one sentence each; empty when nothing is."""
    target = script.with_suffix(".ipynb")
    if not target.exists():
        return [f"{target.name} is missing"]
    wrong = []
    notebook = nbformat.read(target, as_version=4)
    cells, wanted = notebook.cells, convert(script).cells
    if [(c.cell_type, c.source) for c in cells] != [(c.cell_type, c.source) for c in wanted]:
        i = next(
            (
                i
                for i, (a, b) in enumerate(zip(cells, wanted))
                if (a.cell_type, a.source) != (b.cell_type, b.source)
            ),
            min(len(cells), len(wanted)),
        )
        wrong.append(f"cell {i} is not the one of {script.name}")
    code = [c for c in cells if c.cell_type == "code"]
    if [c.execution_count for c in code] != list(range(1, len(code) + 1)):
        wrong.append(
            f"its cells were not run once and in order: {[c.execution_count for c in code]}"
        )
    outputs = [o for c in code for o in c.outputs]
    wrong += [
        f"an output is an error: {o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"
    ]
    if "widgets" in notebook.metadata or any(WIDGET in o.get("data", {}) for o in outputs):
        wrong.append(
            "it holds the state or the view of a widget, which means nothing without its kernel"
        )
    if (size := target.stat().st_size) > MAX_BYTES:
        wrong.append(f"it has {size:,} bytes, more than {MAX_BYTES:,}")
    if not MODEL.exists():
        wrong.append(f"there is no {MODEL.relative_to(ROOT)} to compare with")
    elif notebook.metadata.get("sdpo_lab", {}).get("model") != model_checksum():
        wrong.append("its outputs were made with other weights than the ones shipped")
    lengths = [len(c.source.splitlines()) for c in code]
    if not lengths:
        wrong.append("it has no code cell")
    elif statistics.median(lengths) > MEDIAN_LINES or max(lengths) > MAX_LINES:
        wrong.append(
            f"its code cells are too long: median {statistics.median(lengths):g} of "
            f"{MEDIAN_LINES} lines, "
            f"longest {max(lengths)} of {MAX_LINES}"
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("build", "check"))
    parser.add_argument(
        "names", nargs="*", help="such as 00_quickstart; all of them when none is named"
    )
    arguments = parser.parse_args()
    try:
        scripts = sources(arguments.names)
    except ValueError as error:
        parser.error(str(error))
    if not scripts:
        parser.error("there is no notebooks/NN_name.py")
    failed = 0
    for script in scripts:
        begun = time.monotonic()
        if arguments.command == "build":
            try:
                target = build(script)
                print(
                    f"{target.relative_to(ROOT)}: {time.monotonic() - begun:.0f} s, "
                    f"{target.stat().st_size / 1000:.0f} kB",
                    flush=True,
                )
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                print(f"{script.stem} was not written:\n{error}", file=sys.stderr)
                failed += 1
                continue
        wrong = check(script)
        for line in wrong:
            print(f"{script.stem}: {line}", file=sys.stderr)
        failed += bool(wrong)
    if failed and arguments.command == "check":
        print("`make notebooks` writes them anew", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
