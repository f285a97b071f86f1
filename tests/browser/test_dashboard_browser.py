"""The live notebook in a real JupyterLab and a real browser, on a kernel with subshells and on one
without: what a reader presses, and what the screen then says."""

from __future__ import annotations

import os
import re

import jupytext
import nbformat
import pytest

from sdpo_lab.views.page import bundle
from tests.browser.jupyterlab import Notebook, server, write
from tests.browser.kernels import KERNELS, environment, need

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

FAKE = "from tests.shared.fake_trainer import FakeTrainer\nfrom sdpo_lab.views import Dashboard\n"
FAILING = (
    FAKE
    + """
text = "<img src=x onerror='window.hacked = 1'>\\n\\u202eend"
error = ZeroDivisionError("<b>the judge broke</b>")
trainer = FakeTrainer(seconds=0.05, text=text, feedback=text, fail_at=5, error=error)
dash = Dashboard(trainer, 20, evaluate_every=0)
dash
"""
)
SLOW = (
    FAKE
    + """
dash = Dashboard(FakeTrainer(seconds=0.1), 60, evaluate_every=0)
dash
"""
)
PAIR = (
    FAKE
    + """
a, b = (Dashboard(FakeTrainer(seconds=0.1, fail_at=at), 200, evaluate_every=0) for at in (0, 8))
from IPython.display import display
display(a, b)
"""
)
LONG = (
    FAKE
    + """
metrics = {"active_fraction": 0.5, "entropy": 1.0, "completion_length": 20.0}
metrics |= {"grad_norm": 3.0, "teacher_accuracy": 0.8}
trainer = FakeTrainer(seconds=0, metrics=metrics)
trainer.fail_at = 0
for _ in range(5000):
    trainer.step()
trainer.history.changes.update({100: {"learning_rate": 1e-3}, 3000: {"temperature": 0.5}})
trainer.seconds = 0.05
dash = Dashboard(trainer, 100, evaluate_every=0)
dash
"""
)
# a real run of a random model: it learns nothing, but everything is there to be looked at
REAL = """
import sdpo_lab as lab, torch
from sdpo_lab.timeline import Timeline
from tests.shared.tasks import Letters
from sdpo_lab.views import Dashboard
torch.set_num_threads(1)
model, tokenizer = lab.load_model()
config = lab.SDPOConfig.preset(
    "laptop", generation_batch_size=8, num_generations=4, max_completion_length=24
)
trainer = lab.SDPOTrainer(model, tokenizer, lab.load_task("toolcall", seed=1), config)
timeline = Timeline(trainer, every=4)
dash = Dashboard(
    trainer, 40, evaluate_every=3, evaluate_n=4, folder="saved", timeline=timeline
)
dash
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, root):
    """(folder, address) of a JupyterLab that offers every kernel there is."""
    folder = tmp_path_factory.mktemp("lab")
    there = []
    for name in KERNELS:
        try:
            need(name)
        except pytest.skip.Exception:
            continue
        there.append(name)
    with server(folder, root, **environment(*there)) as address:
        yield folder, address


@pytest.fixture(params=KERNELS)
def kernel(request) -> str:
    need(request.param)
    return request.param


class Dash:
    """The dashboard on the page, seen from outside; the `n`-th of them."""

    def __init__(self, page, n: int = 0) -> None:
        self.page, self.n, self.root = page, n, page.get_by_test_id("sdpo-dash").nth(n)
        self.root.wait_for(timeout=60_000)
        self.until("d.state !== 'waiting'")

    def __getitem__(self, name: str):
        return self.root.get_by_test_id(name)

    def data(self, name: str) -> str:
        return self.root.get_attribute(f"data-{name}")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait for a condition in JavaScript on `d`, the root's data."""
        self.page.wait_for_function(
            f"() => "
            f"{{ const d = document.querySelectorAll('.sdpo-dash')[{self.n}]?.dataset; "
            f"return d && {condition}; }}",
            timeout=1000 * seconds,
        )

    def vertices(self) -> int:
        """Points of the smoothed line as drawn."""
        return len(
            re.findall(
                "[ML]", self.root.locator("svg.chart path.line.reward").get_attribute("d") or ""
            )
        )

    def says(self, name: str, words: str, seconds: float = 20) -> None:
        self[name].filter(has_text=words).wait_for(timeout=1000 * seconds)

    def shots(self, book: Notebook, folder, name: str) -> None:
        """Pictures in both themes and two widths; nothing may be wider than its place."""
        for dark in (False, True):
            book.theme(dark)
            for width in (800, 1600):
                self.page.set_viewport_size({"width": width, "height": 1000})
                self.page.wait_for_timeout(400)
                self.page.set_viewport_size(
                    {"width": width, "height": round(self.root.bounding_box()["height"]) + 400}
                )  # the whole of it
                self.page.wait_for_timeout(200)
                self.root.screenshot(
                    path=folder / f"{name}_{'dark' if dark else 'light'}_{width}.png"
                )
                assert self.root.evaluate("e => e.scrollWidth <= e.clientWidth"), (
                    "wider than its place"
                )
        book.theme(False)


def open_book(lab, page, name: str, kernel: str, *cells: str) -> Notebook:
    folder, address = lab
    name = f"{name}_{kernel}.ipynb"
    return Notebook(page, address, name, write(folder, name, *cells, kernel=kernel))


def test_buttons_and_knobs(lab, page, shots, kernel):
    book = open_book(lab, page, "hand", kernel, SLOW, "print(len(dash.result()))")
    book.run_to(0)
    dash = Dash(page)
    assert (
        dash.data("state") == "ready"
        and dash.data("points") == "0"
        and dash["state"].inner_text() == "Ready"
    )
    assert (
        dash["learning_rate"].is_visible() and not dash["temperature"].is_visible()
    )  # one knob at first sight

    # start: the curve moves
    dash["run"].click()
    dash.until("d.state === 'running' && d.points >= 3")
    assert dash.vertices() >= 3

    # pause: after the step in hand it stands still
    dash["run"].click()
    dash.until("d.state === 'paused'", 20)
    done, drawn = dash.data("done"), dash.vertices()
    page.wait_for_timeout(1500)
    assert (dash.data("state"), dash.data("done"), dash.vertices()) == ("paused", done, drawn)
    assert (
        dash["state"].inner_text() == "Paused"
        and dash["run"].inner_text() == "▶ Continue"
        and dash["attempts"].locator("button.attempt").count() == 8
    )

    # a knob, by keyboard: it waits for the next step
    old = float(dash.root.locator("output").first.inner_text())
    dash["learning_rate"].focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    dash.root.locator(".knob.waits").wait_for(timeout=10_000)
    new = dash.root.locator("output").first.inner_text()
    assert float(new) > old

    # one behind "more": a divergence for the next step too, and GRPO puts the teacher's knobs out
    # of use, which say why
    dash["more"].locator("summary").click()
    dash["template"].select_option("trl")
    dash["include_environment_feedback"].click()
    page.wait_for_function(
        "() => document.querySelectorAll('.knob.waits').length === 3", timeout=10_000
    )

    # a single step: exactly one more, and the changes are marked at it
    dash["step"].click()
    step = int(done) + 1
    dash.until(f"d.state === 'paused' && d.done == {step}", 20)
    page.wait_for_timeout(1000)
    assert dash.data("done") == str(step)
    mark = dash.root.locator("svg.chart path.mark")
    assert mark.count() == 1 and mark.get_attribute("data-step") == str(step)
    assert (
        dash["changes"].inner_text().split()
        == f"a from step {step}: learning rate {new}, include environment feedback false, "
        f"template trl".split()
    )
    assert dash.root.locator(".knob.waits").count() == 0
    dash["distillation_weight"].focus()
    page.keyboard.press("Home")
    dash.root.locator(".knob.idle", has_text="GRPO has no teacher").first.wait_for(timeout=10_000)
    assert (
        dash["teacher_model_kind"].is_disabled()
        and dash["template"].is_disabled()
        and dash["temperature"].is_enabled()
    )

    # the same by keyboard: the notebook must not take the keys for its own
    dash["run"].focus()
    page.keyboard.press("Enter")
    dash.until("d.state === 'running'")
    page.keyboard.press("Space")
    dash.until("d.state === 'paused'", 20)
    dash["charts"].locator("summary").click()
    dash.shots(book, shots, f"dashboard_{kernel}")

    # it goes on, and stops for good; the cell that waits for the end then returns at once
    dash["run"].click()
    dash.until("d.state === 'running'")
    dash["stop"].click()
    dash.until("d.state === 'stopped'", 30)
    book.run(1)
    book.idle()
    assert f"stopped by hand after {dash.data('done')} of 60 steps" in book.output(1)
    assert (
        int(dash.data("done")) < 60
        and dash["run"].is_disabled()
        and dash["step"].is_disabled()
        and dash["save"].is_enabled()
    )


def test_a_page_that_is_reloaded_finds_the_run_where_it_is(lab, page, kernel):
    book = open_book(lab, page, "reload", kernel, SLOW.replace("60", "6000"))
    book.run_to(0)
    Dash(page)["run"].click()
    dash = Dash(page)
    dash.until("d.points >= 5")
    book.save()
    page.reload()
    book.ready()
    dash = Dash(page)
    dash.until("d.state === 'running' && d.points > 5", 30)
    dash["run"].click()
    dash.until("d.state === 'paused' && d.points === d.done", 20)
    assert dash["attempts"].locator("button.attempt").count() == 8


def test_a_kernel_that_is_restarted_takes_the_run_with_it(lab, page, shots, kernel):
    book = open_book(lab, page, "restart", kernel, SLOW)
    book.run_to(0)
    dash = Dash(page)
    dash["run"].click()
    dash.until("d.points >= 3")
    book.restart()
    dash.until("d.state === 'gone'", 30)
    assert (
        dash["state"].inner_text() == "Gone" and "this run with it" in dash["silent"].inner_text()
    )
    assert all(
        dash[name].is_disabled() for name in ("run", "step", "stop", "save", "learning_rate")
    )
    page.wait_for_timeout(6000)
    assert dash.data("state") == "gone"
    dash.root.screenshot(path=shots / f"dashboard_gone_{kernel}.png")
    book.ready()
    book.run_to(0)  # and again from the start, in the same place
    dash = Dash(page)
    assert dash.data("state") == "ready" and dash.data("points") == "0"


def test_an_interrupt_pauses_at_a_boundary(lab, page, kernel):
    book = open_book(lab, page, "interrupt", kernel, SLOW, "dash.result()")
    book.run_to(0)
    dash = Dash(page)
    book.run(1)
    dash.until("d.state === 'running' && d.points >= 3")
    book.interrupt()
    book.idle()
    assert "Nothing is lost" in book.output(1) and "KeyboardInterrupt" in book.output(1)
    dash.until("d.state === 'paused'", 20)
    done = int(dash.data("done"))
    dash["step"].click()
    dash.until(f"d.state === 'paused' && d.done == {done + 1}", 20)


def test_a_failing_run_with_hostile_text(lab, page, shots, kernel):
    book = open_book(lab, page, "failing", kernel, FAILING, "dash.result()")
    book.run_to(0)
    dash = Dash(page)
    dash["run"].click()
    dash.until("d.state === 'failed'")
    assert (
        dash["failure"].inner_text() == "ZeroDivisionError: <b>the judge broke</b>"
        and dash["failure"].is_visible()
    )
    text = dash["attempts"].locator("code.text").first
    assert text.inner_text() == "<img src=x onerror='window.hacked = 1'>⏎\n\\u202eend"
    assert dash.root.locator("img, b:not(.changes b, .tokens b)").count() == 0 and page.evaluate(
        "window.hacked === undefined"
    )
    dash.root.screenshot(path=shots / f"dashboard_failed_{kernel}.png")
    book.run(1)
    book.idle()
    assert "ZeroDivisionError" in book.output(1)


def test_two_dashboards_do_not_disturb_each_other(lab, page, kernel):
    book = open_book(lab, page, "pair", kernel, PAIR)
    book.run_to(0)
    a, b = Dash(page, 0), Dash(page, 1)
    a["run"].click()
    b["run"].click()
    b.until("d.state === 'failed'")
    assert b["failure"].is_visible() and not a["failure"].is_visible()
    a.until("d.state === 'running' && d.points > 10")
    a["run"].click()
    a.until("d.state === 'paused'")
    assert (
        b.data("done") == "7"
        and int(a.data("done")) > 10
        and b["run"].is_disabled()
        and a["run"].is_enabled()
    )


def test_the_page_stays_live_while_a_cell_waits(lab, page, kernel):
    """Run All: the next cell waits for the end, and the curve still moves."""
    book = open_book(lab, page, "blocked", kernel, SLOW, "len(dash.result())")
    book.command("notebook:run-all-cells", wait=False)
    dash = Dash(page)
    dash.until("d.state === 'running' && d.points >= 5")
    assert int(dash.data("points")) < 60
    dash.until("d.state === 'finished' && d.points == 60")
    book.idle()
    assert re.search(r"\b60\b", book.output(1))


def test_five_thousand_steps(lab, page, shots):
    book = open_book(lab, page, "long", "python3", LONG)
    book.run_to(0)
    dash = Dash(page)
    dash.until("d.points == 5000")
    dash["charts"].locator("summary").click()
    dash["run"].click()
    dash.until("d.points >= 5005")
    assert (
        len(dash.root.locator("svg.chart path.line.reward").get_attribute("d")) < 60_000
        and dash.root.locator("svg.chart path.mark").count() == 2
    )
    dash.root.screenshot(path=shots / "dashboard_5000.png")


def test_nine_charts_of_five_thousand_steps_are_drawn_at_once(page, root):
    """What every answer costs the page, without JupyterLab and without what else the machine does:
    the quick half of many drawings."""
    page.set_content(
        "<!DOCTYPE html><meta charset=utf-8>"
        "<div id=large style='width: 860px'></div><div id=small style='width: 300px'></div>"
        f"<script>const {{ chart }} = {bundle('chart')};</script>"
    )
    times = page.evaluate("""() => {
        const kinds = ["smooth", "line", "sparse"];
        const keys = kinds.flatMap((kind) => [0, 1, 2].map((k) => [kind + k, kind]));
        const value = (kind, k) => kind === "sparse" && k % 10 ? null : Math.random();
        const values = (k) => Object.fromEntries(keys.map(([key, kind]) => [key, value(kind, k)]));
        const points = Array.from({ length: 5000 }, (_, k) => ({ step: k + 1, ...values(k) }));
        const marks = points.filter((p) => p.step % 1000 === 0);
        const charts = keys.map(([key, kind], n) => chart(n ? small : large, {
            hook: key, height: 100, small: n > 0, series: [{ key, kind }],
        }));
        return Array.from({ length: 40 }, () => {
            const began = performance.now();
            for (const one of charts) one.draw(points, marks, 1, 5000);
            large.offsetHeight + small.offsetHeight;
            return performance.now() - began;
        });
    }""")
    assert sorted(times)[10] < 50, sorted(times)


def test_a_real_run_is_measured_saved_looked_into_and_wound_back(lab, page, shots, kernel):
    folder, _ = lab
    book = open_book(
        lab, page, "real", kernel, f"import os; os.makedirs({kernel!r}); os.chdir({kernel!r})", REAL
    )
    book.run_to(1)
    dash = Dash(page)
    dash["run"].click()
    dash.until("d.points >= 7", 240)
    dash["save"].click()
    dash.says("saved", "Saved after step")
    assert (folder / kernel / "saved" / "latest.json").exists()
    dash["run"].click()
    dash.until("d.state === 'paused'", 60)
    assert re.search("[ML]", dash.root.locator("svg.chart path.line.teacher").get_attribute("d"))

    # a click on an attempt: its tokens
    dash["attempts"].locator("button.attempt").nth(1).click()
    dash["sdpo-compact"].first.wait_for(timeout=20_000)
    assert (
        "Scored by the weights after step" in dash["tokens-note"].inner_text()
        and dash["tokens"].locator(".token").count() > 3
    )

    # rewind: to before the first step it can, and back
    dash["rewind"].locator("summary").click()
    slider = dash["rewind-slider"]
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function(
        "() => document.querySelector('.sdpo-rewind').dataset.step === '0'", timeout=60_000
    )
    assert dash["rewind-step"].inner_text() == "Before the first step"
    dash["charts"].locator("summary").click()
    dash["more"].locator("summary").click()
    dash.shots(book, shots, f"dashboard_real_{kernel}")
    done = dash.data("done")
    book.restart()
    dash.until("d.state === 'gone'", 30)
    assert (
        'SDPOTrainer.resume("' in dash["silent"].inner_text()
        and "saved" in dash["silent"].inner_text()
        and int(done) >= 7
    )


def test_the_notebook_by_hand(lab, page, shots, root):
    """05 as a reader uses it: a few steps, a knob, a stop; its later cells then do the same run
    again from what the hand did, and hold the two equal."""
    folder, address = lab
    notebook = jupytext.read(root / "notebooks" / "05_live_training.py", fmt="py:percent")
    nbformat.write(notebook, folder / "05_live_training.ipynb")
    code = [i for i, c in enumerate(notebook.cells) if c.cell_type == "code"]
    here = next(i for i in code if "Dashboard(" in notebook.cells[i].source)
    waits = next(i for i in code if i > here and ".result()" in notebook.cells[i].source)
    book = Notebook(page, address, "05_live_training.ipynb", len(notebook.cells))
    book.run_to(here)
    dash = Dash(page)
    dash["run"].click()
    dash.until("d.state === 'running' && d.points >= 2")
    if os.environ.get("SDPO_LAB_UPDATE_DOCS"):
        page.set_viewport_size({"width": 1280, "height": 900})
        dash.root.scroll_into_view_if_needed()
        dash.until(
            "d.points >= 15 && document.querySelector('.attempt.good') && "
            "document.querySelector('.attempt.bad')",
            300,
        )
        page.screenshot(path=root / "docs" / "images" / "05_live_training.png")
    dash.until("d.points >= 6", 240)
    dash["run"].click()
    dash.until("d.state === 'paused'", 60)
    dash.shots(book, shots, "05")
    dash["learning_rate"].focus()
    page.keyboard.press("ArrowRight")
    dash.root.locator(".knob.waits").first.wait_for(timeout=10_000)
    at = int(dash.data("done")) + 1
    dash["step"].click()
    dash.until(f"d.state === 'paused' && d.done == {at}", 60)
    dash["stop"].click()
    dash.until("d.state === 'stopped'", 30)
    book.run(waits)
    book.idle()
    assert f"stopped by hand after {at} of" in book.output(waits)
    for cell in code[code.index(waits) + 1 :]:
        book.run(cell)
        book.idle()
        assert "Traceback" not in book.output(cell), book.output(cell)
    said = " ".join(book.output(cell) for cell in code)
    assert f"{{{at}: {{'learning_rate':" in said and f"{at} steps again, equal to the digit" in said
