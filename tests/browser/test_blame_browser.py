"""The blame widget in a real JupyterLab: pressed by mouse and by keyboard, read in Python, in both
themes and two widths."""

from __future__ import annotations

import jupytext
import nbformat
import pytest

from tests.browser.jupyterlab import Notebook, write

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

WIDGET = """
from sdpo_lab.views import Blame
tokens = ["order", "(", "item", "='", "pens", "', ", "count", "=", "4", "6", ")", "<|im_end|>"]
blame = Blame(tokens, blamed=[6])
blame
""".strip()
READ = "print(blame.blamed, [t for t, m in enumerate(blame.mask.tolist()) if m])"
HOSTILE = """
from sdpo_lab.views import Blame
text = "<img src=x onerror='window.hacked = 1'>"
hostile = Blame([text, "</script>", "\\u202eend", "\\n", "\\ud83d", "word" * 60])
hostile
""".strip()


def open_book(lab, page, name: str, *cells: str) -> Notebook:
    folder, address = lab
    book = Notebook(page, address, name, write(folder, name, *cells))
    book.run_to(0)
    page.get_by_test_id("sdpo-blame").wait_for(timeout=60_000)
    return book


def pressed(page) -> list[int]:
    return page.evaluate(
        "() => [...document.querySelectorAll('.sdpo-blame "
        ".token[aria-pressed=true]')].map((b) => Number(b.dataset.position))"
    )


def read(book: Notebook, cell: int = 1) -> str:
    book.run(cell)
    book.idle()
    return book.output(cell).strip()


def test_pressed_by_mouse_and_by_keyboard(lab, page, shots):
    book = open_book(lab, page, "blame.ipynb", WIDGET, READ, "blame.blamed = [0, 11]")
    widget, said = page.get_by_test_id("sdpo-blame"), page.get_by_test_id("blame-said")
    token = lambda t: widget.locator(f".token[data-position='{t}']")
    assert pressed(page) == [6] and said.inner_text() == "Blamed: count (position 6)"
    assert read(book) == "[6] [6]"

    # by mouse: one more, one less; at once in Python
    token(2).click()
    token(6).click()
    assert pressed(page) == [2] and read(book) == "[2] [2]"

    # by keyboard: the row is one stop of the Tab key, the arrows move along it, and the notebook
    # does not take the keys for its own
    token(2).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert (
        pressed(page) == [2, 4] and page.evaluate("document.activeElement.dataset.position") == "4"
    )
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert pressed(page) == [2, 4, 11] and widget.locator(".token[tabindex='0']").count() == 1
    assert (
        read(book) == "[2, 4, 11] [2, 4, 11]" and page.locator(".jp-Notebook .jp-Cell").count() == 3
    )
    assert (
        said.inner_text()
        == "Blamed: item (position 2), pens (position 4), <|im_end|> (position 11)"
    )

    for dark in (False, True):
        book.theme(dark)
        for width in (800, 1600):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(300)
            widget.screenshot(path=shots / f"blame_{'dark' if dark else 'light'}_{width}.png")
            assert widget.evaluate("e => e.scrollWidth <= e.clientWidth"), "wider than its place"
    book.theme(False)

    # nothing; and from Python back to the page
    page.get_by_test_id("blame-none").click()
    assert (
        pressed(page) == []
        and page.get_by_test_id("blame-none").is_disabled()
        and read(book) == "[] []"
    )
    book.run(2)
    book.idle()
    page.wait_for_function(
        "() => document.querySelectorAll('.sdpo-blame .token[aria-pressed=true]').length === 2"
    )
    assert pressed(page) == [0, 11]

    # what is saved shows the tokens without a kernel
    book.save()
    saved = nbformat.read(lab[0] / "blame.ipynb", as_version=4).cells[0].outputs[0].data
    assert "line-through" in saved["text/html"] and "count" in saved["text/html"]


def test_hostile_tokens_are_text(lab, page):
    book = open_book(lab, page, "hostile.ipynb", HOSTILE, "print(hostile.blamed)")
    widget = page.get_by_test_id("sdpo-blame")
    assert widget.locator(".token").all_inner_texts()[:5] == [
        "<img·src=x·onerror='window.hacked·=·1'>",
        "</script>",
        "\\u202eend",
        "⏎",
        "\\ud83d",
    ]
    assert widget.locator("img, script").count() == 0 and page.evaluate(
        "window.hacked === undefined"
    )
    page.set_viewport_size({"width": 800, "height": 1000})
    widget.locator(".token").nth(5).click()
    assert widget.evaluate("e => e.scrollWidth <= e.clientWidth") and read(book) == "[5]"


def test_a_click_in_the_notebook_changes_the_next_cell(lab, page, shots, root):
    """01_credit_assignment as a reader uses it: Run All up to the widget and beyond, then another
    token, then the next cell once more."""
    folder, address = lab
    notebook = jupytext.read(root / "notebooks" / "01_credit_assignment.py", fmt="py:percent")
    nbformat.write(notebook, folder / "01_credit_assignment.ipynb")
    here = next(
        i
        for i, c in enumerate(notebook.cells)
        if c.cell_type == "code" and c.source.startswith("print(blame)")
    )
    book = Notebook(page, address, "01_credit_assignment.ipynb", len(notebook.cells))
    book.run_to(here)
    (before,) = pressed(page)
    mask = book.output(here).splitlines()[-1]
    assert mask.count("-1.0") == 1
    widget = page.get_by_test_id("sdpo-blame")
    widget.scroll_into_view_if_needed()
    widget.locator(f".token[data-position='{before}']").click()
    widget.locator(".token[data-position='0']").click()
    widget.screenshot(path=shots / "01_blame.png")
    assert read(book, here).splitlines()[-1].startswith("[-1.0, ") and read(book, here) != mask
