"""How long an edit in the playground takes: `python benchmarks/playground.py`, from the input event
in the page to the picture that is painted.

JupyterLab, Chromium and the kernel run on this machine; the default model, `toolcall` with its
oracle. "Apart": each edit waits for the picture of the one before. "Typed": a letter every 120 ms
whatever happens; what counts is the time from a letter to the first picture of a text that holds
it, so a letter whose question was overtaken waits for the next. Needs Chromium, see
tools/install_chromium.sh.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat
from common import table, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

COLUMNS = {
    "edits": "{edits}",
    "number": "{number}",
    "median, ms": "{median:.0f}",
    "95th percentile, ms": "{high:.0f}",
    "longest, ms": "{longest:.0f}",
}
CELL = """
import torch
import sdpo_lab as lab
from sdpo_lab.views.playground import Playground
torch.set_num_threads(1)
model, tokenizer = lab.load_model()
pg = Playground(model, tokenizer, lab.load_task("toolcall", seed=100))
pg
""".strip()
# Notes when each question's input event came, and when the next frame after its picture was
# painted.
WATCH = """() => {
    const root = document.querySelector('.sdpo-play');
    const area = root.querySelector('textarea.feedback');
    window.edits = [];
    area.addEventListener('input', () => {
        window.edits.push({at: performance.now(), turn: Number(root.dataset.turn)});
    }, false);
    new MutationObserver(() => {
        const drawn = Number(root.dataset.drawn);
        requestAnimationFrame(() => setTimeout(() => {
            for (const e of window.edits) {
                if (e.turn <= drawn && e.done === undefined) e.done = performance.now();
            }
        }));
    }).observe(root, {attributes: true, attributeFilter: ['data-drawn']});
}"""
TEXT = (
    "TypeError: order() got an unexpected keyword argument 'count' (accepted: item, quantity); "
    "this is not the name that the tool takes for it. "
)


def times(page) -> list[float]:
    page.wait_for_function("window.edits.every((e) => e.done !== undefined)", timeout=60_000)
    found = page.evaluate("window.edits.map((e) => e.done - e.at)")
    page.evaluate("window.edits = []")
    return found


def row(edits: str, found: list[float]) -> dict:
    return {
        "edits": edits,
        "number": len(found),
        "median": statistics.median(found),
        "high": statistics.quantiles(found, n=20)[-1],
        "longest": max(found),
    }


def measure(number: int, chromium: str) -> list[dict]:
    from playwright.sync_api import sync_playwright

    from tests.browser.jupyterlab import CHROMIUM_ARGUMENTS, Notebook, server

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
        notebook.metadata.kernelspec = {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        }
        nbformat.write(notebook, folder / "playground.ipynb")
        with server(folder, ROOT) as address:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
            page = browser.new_page(viewport={"width": 1400, "height": 1200})
            book = Notebook(page, address, "playground.ipynb", 1)
            book.run_to(0)
            area = page.locator(".sdpo-play textarea.feedback")
            area.wait_for(timeout=60_000)
            page.wait_for_timeout(3000)
            page.evaluate(WATCH)
            area.fill("")
            times(page)  # the first one also wakes the kernel
            area.focus()
            apart = []
            for k in range(number):
                page.keyboard.type(TEXT[k % len(TEXT)])
                apart += times(page)
                page.wait_for_timeout(60)
            area.fill("")
            times(page)
            for k in range(number):
                page.keyboard.type(TEXT[k % len(TEXT)])
                page.wait_for_timeout(120)
            typed = times(page)
            browser.close()
    return [row("apart", apart), row("typed, a letter every 120 ms", typed)]


def main() -> None:
    from tests.conftest import find_chromium

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=150, help="edits of each kind")
    parser.add_argument(
        "--write", action="store_true", help="into results/ and README.md; else only printed"
    )
    arguments = parser.parse_args()
    rows = measure(arguments.number, find_chromium())
    shown = table(COLUMNS, rows)
    if arguments.write:
        write("playground", rows, shown)
    else:
        print(shown)
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
