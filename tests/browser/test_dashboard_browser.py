"""The live notebook in a real JupyterLab and a real browser: what a reader presses, and what the screen then says."""

from __future__ import annotations

import os
import re

import jupytext
import nbformat
import pytest

from tests.browser.jupyterlab import Notebook, write

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

FAILING = """
from tests.views.conftest import FakeTrainer
from sdpo_lab.views import Dashboard
text = "<img src=x onerror='window.hacked = 1'>\\n\\u202eend"
trainer = FakeTrainer(seconds=0.05, text=text, feedback=text, fail_at=5, error=ZeroDivisionError("<b>the judge broke</b>"))
dash = Dashboard(trainer, 20)
dash
""".strip()
BLOCKED = """
from tests.views.conftest import FakeTrainer
from sdpo_lab.views import Dashboard
dash = Dashboard(FakeTrainer(seconds=0.1), 60)
dash
""".strip()


class Dash:
    """The dashboard on the page, seen from outside."""

    def __init__(self, page) -> None:
        self.page, self.root = page, page.get_by_test_id("sdpo-dash")
        self.root.wait_for(timeout=60_000)

    def __getitem__(self, name: str):
        return self.root.get_by_test_id(name)

    def data(self, name: str) -> str:
        return self.root.get_attribute(f"data-{name}")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait for a condition in JavaScript on `d`, the root's data."""
        self.page.wait_for_function(f"() => {{ const d = document.querySelector('.sdpo-dash').dataset; return {condition}; }}", timeout=1000 * seconds)

    def vertices(self) -> int:
        """Points of the smoothed line as drawn."""
        return len(re.findall("[ML]", self.root.locator("svg.chart path.line.reward").get_attribute("d") or ""))


def test_a_run_by_hand(lab, page, shots, root):
    folder, address = lab
    notebook = jupytext.read(root / "notebooks" / "05_live_training.py", fmt="py:percent")
    nbformat.write(notebook, folder / "05_live_training.ipynb")
    here = next(i for i, c in enumerate(notebook.cells) if "Dashboard(trainer" in c.source and c.cell_type == "code")
    waits = next(i for i, c in enumerate(notebook.cells) if "dash.result()" in c.source and c.cell_type == "code")
    book = Notebook(page, address, "05_live_training.ipynb", len(notebook.cells))
    book.run_to(here)
    dash = Dash(page)
    assert dash.data("state") == "ready" and dash.data("points") == "0" and dash["state"].inner_text() == "Ready"

    # start: the curve moves
    dash["run"].click()
    dash.until("d.state === 'running' && d.points >= 2")
    before = int(dash.data("points"))
    dash.until(f"d.points >= {before + 3}")
    assert dash.vertices() >= before + 3

    # pause: it stands still
    dash["run"].click()
    dash.until("d.state === 'paused'", 20)
    done, points, drawn = dash.data("done"), dash.data("points"), dash.vertices()
    page.wait_for_timeout(2300)
    assert (dash.data("state"), dash.data("done"), dash.data("points"), dash.vertices()) == ("paused", done, points, drawn)
    assert dash["state"].inner_text() == "Paused" and dash["run"].inner_text() == "▶ Continue"
    assert dash["attempts"].locator(".attempt").count() == 8

    # a knob, by keyboard: it waits for the next step
    slider = dash["learning_rate"]
    old = dash.root.locator("output").first.inner_text()
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    dash.root.locator(".knob.waits").wait_for(timeout=10_000)
    new = dash.root.locator("output").first.inner_text()
    assert float(new) > float(old)

    # a single step: exactly one more, and the change is marked at it
    dash["step"].click()
    dash.until(f"d.state === 'paused' && d.done == {int(done) + 1}", 20)
    page.wait_for_timeout(1000)
    assert dash.data("done") == str(int(done) + 1)
    mark = dash.root.locator("svg path.mark")
    assert mark.count() == 1 and mark.get_attribute("data-step") == dash.data("done")
    assert dash["changes"].inner_text().split() == f"a from step {dash.data('done')}: learning rate {new}".split()
    assert dash.root.locator(".knob.waits").count() == 0

    # the same by keyboard: the notebook must not take the keys for its own
    dash["run"].focus()
    page.keyboard.press("Enter")
    if os.environ.get("SDPO_LAB_UPDATE_DOCS"):
        page.set_viewport_size({"width": 1280, "height": 900})
        page.get_by_test_id("sdpo-dash").scroll_into_view_if_needed()
        dash.until("d.points >= 15 && document.querySelector('.attempt.good') && document.querySelector('.attempt.bad')")
        page.screenshot(path=root / "docs" / "images" / "05_live_training.png")
    dash.until("d.points >= 24", 240)  # the middle of the run
    dash["run"].focus()
    page.keyboard.press("Space")
    dash.until("d.state === 'paused'", 20)
    for dark in (False, True):
        book.theme(dark)
        for width in (800, 1600):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(400)
            page.get_by_test_id("sdpo-dash").scroll_into_view_if_needed()
            dash.root.screenshot(path=shots / f"05_{'dark' if dark else 'light'}_{width}.png")
            assert dash.root.evaluate("e => e.scrollWidth <= e.clientWidth"), "wider than its place"
    book.theme(False)

    # close the page, come back: the run is where it was
    points = dash.data("points")
    book.save()
    page.reload()
    book.ready()
    dash = Dash(page)
    dash.until(f"d.state === 'paused' && d.points == {points}", 30)

    # it goes on, and stops for good; the cell that waits for the end then returns at once
    # (not clicked while that cell waits: whether a kernel hears clicks then depends on its version)
    dash["run"].click()
    dash.until(f"d.state === 'running' && d.points > {points}")
    dash["stop"].click()
    dash.until("d.state === 'stopped'", 30)
    book.run(waits)
    book.idle()
    page.screenshot(path=shots / "05_end.png")
    assert f"stopped by hand after {dash.data('done')} of 60 steps" in book.output(waits)
    assert int(dash.data("done")) < 60 and dash["run"].is_disabled() and dash["step"].is_disabled()


def test_a_failing_run_with_hostile_text(lab, page, shots):
    folder, address = lab
    book = Notebook(page, address, "failing.ipynb", write(folder, "failing.ipynb", FAILING, "dash.result()"))
    book.run_to(0)
    dash = Dash(page)
    dash["run"].click()
    dash.until("d.state === 'failed'")
    assert dash["failure"].inner_text() == "ZeroDivisionError: <b>the judge broke</b>" and dash["failure"].is_visible()
    text = dash["attempts"].locator("code.text").first
    assert text.inner_text() == "<img src=x onerror='window.hacked = 1'>↵\n\\u202eend"
    assert dash.root.locator("img, b:not(.changes b)").count() == 0 and page.evaluate("window.hacked === undefined")
    dash.root.screenshot(path=shots / "05_failed.png")
    book.run(1)
    book.idle()
    assert "ZeroDivisionError" in book.output(1)


def test_the_page_stays_live_while_a_cell_waits(lab, page):
    """Run All: the next cell waits for the end, and the curve still moves."""
    folder, address = lab
    book = Notebook(page, address, "blocked.ipynb", write(folder, "blocked.ipynb", BLOCKED, "len(dash.result())"))
    book.command("notebook:run-all-cells", wait=False)
    dash = Dash(page)
    dash.until("d.state === 'running' && d.points >= 5")
    assert int(dash.data("points")) < 60
    dash.until("d.state === 'finished' && d.points == 60")
    book.idle()
    assert book.output(1).rstrip().endswith("60")
