"""The time slider in a real JupyterLab and a real browser: the right step's numbers, by keyboard
and by mouse, and hostile text as text."""

from __future__ import annotations

import json

import pytest

from tests.browser.jupyterlab import Notebook, write

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

HOSTILE = "<img src=x onerror='window.hacked = 1'>\n\u202eend"
BEGIN = f"""
import json, torch
import sdpo_lab as lab
from sdpo_lab.timeline import Timeline
torch.set_num_threads(1)
model, tokenizer = lab.load_model()
task = lab.load_task("toolcall", seed=0)
config = lab.SDPOConfig.preset(
    "laptop", generation_batch_size=8, num_generations=4, max_completion_length=24
)
trainer = lab.SDPOTrainer(model, tokenizer, task, config)
problem = task.problems(1, "train", 0)[0]
timeline = Timeline(trainer, (problem, "x(y={HOSTILE.splitlines()[0]!s})", {HOSTILE!r}), every=3)
timeline.watch(None)
for _ in range(6):
    timeline.watch(trainer.step())
lab.views.Rewind(timeline)
""".strip()
TRUTH = "print(json.dumps({s: timeline.picture(s) for s in timeline.steps}))"
MORE = "timeline.watch(trainer.step())"
FORGET = "timeline._pictures.pop(0) is None"


class Slider:
    """The slider on the page, seen from outside."""

    def __init__(self, page) -> None:
        self.page, self.root = page, page.get_by_test_id("sdpo-rewind")
        self.root.wait_for(timeout=60_000)

    def __getitem__(self, name: str):
        return self.root.get_by_test_id(name)

    def at(self, step: int, seconds: float = 30) -> None:
        """Wait until the picture of this step is the one on screen."""
        self.page.wait_for_function(
            f"() => document.querySelector('.sdpo-rewind').dataset.step === '{step}'",
            timeout=1000 * seconds,
        )

    def shows(self, picture: dict) -> None:
        """Every number of the picture that the screen tells."""
        assert f"{picture['sum']:.2f} nats" in self["rewind-sum"].inner_text()
        tokens = self.root.get_by_role("option")
        assert tokens.count() == len(picture["tokens"])
        for t, advantage in enumerate(picture["advantage"]):
            label, strength = (
                tokens.nth(t).get_attribute("aria-label"),
                float(tokens.nth(t).evaluate("e => e.style.getPropertyValue('--v')")),
            )
            assert strength == pytest.approx(
                min(1, abs(advantage) / picture["course"]["limit"]), abs=6e-4
            )
            assert (
                (f"{abs(advantage):.2f} nats" in label and ("lowers" in label) == (advantage < 0))
                if abs(advantage) >= 0.005
                else "leaves it" in label
            )


def test_a_run_wound_back(lab, page, shots):
    folder, address = lab
    book = Notebook(
        page, address, "rewind.ipynb", write(folder, "rewind.ipynb", BEGIN, TRUTH, MORE, FORGET)
    )
    book.run_to(1)
    truth = {int(step): picture for step, picture in json.loads(book.output(1)).items()}
    slider = Slider(page)
    slider.at(6)
    slider.shows(truth[6])
    assert slider["rewind-step"].inner_text() == "After step 6"

    # by keyboard, a step at a time
    slider["rewind-slider"].focus()
    page.keyboard.press("ArrowLeft")
    slider.at(5)
    slider.shows(truth[5])
    page.keyboard.press("Home")
    slider.at(0)
    slider.shows(truth[0])
    assert slider["rewind-step"].inner_text() == "Before the first step"
    assert (
        slider["rewind-slider"].get_attribute("aria-valuetext")
        == f"before the first step, teacher and student differ by {truth[0]['sum']:.2f} nats in all"
    )
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    slider.at(3)
    slider.shows(truth[3])

    # by mouse: on the course, at a sixth of the way
    box = slider["rewind-course"].bounding_box()
    page.mouse.click(box["x"] + 9 + (box["width"] - 18) / 6, box["y"] + 30)
    slider.at(1)
    slider.shows(truth[1])

    # tokens: by mouse and along the row by keyboard; other quantities
    tokens, detail = slider.root.get_by_role("option"), slider["compact-detail"]
    tokens.nth(1).hover()
    assert "token 2 of" in detail.inner_text()
    tokens.nth(0).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.mouse.move(2, 2)
    assert (
        tokens.nth(2).get_attribute("aria-selected") == "true"
        and "token 3 of" in detail.inner_text()
    )
    slider.root.get_by_role("radio", name="Teacher").check(force=True)
    assert tokens.nth(2).get_attribute("aria-label").split(", ")[-1].startswith("teacher ")
    slider.root.get_by_role("radio", name="Advantage").check(force=True)

    # hostile text, in the attempt and in the feedback, is text
    assert (
        "onerror='window.hacked = 1'>" in slider["rewind-about"].inner_text()
        and "\\u202eend" in slider["rewind-about"].inner_text()
    )
    assert "<img" in slider["compact-text"].inner_text().replace("\u200b", "")
    assert slider.root.locator("img").count() == 0 and page.evaluate("window.hacked === undefined")

    # who looks back stays there when the run goes on; who looks at the newest follows
    book.run(2)
    book.idle()
    page.wait_for_function(
        "() => document.querySelector('.sdpo-rewind').dataset.steps === '8'", timeout=20_000
    )
    assert slider.root.get_attribute("data-step") == "1"
    slider["rewind-slider"].focus()
    page.keyboard.press("End")
    slider.at(7)
    book.run(2)
    book.idle()
    slider.at(8)

    # a step whose picture is gone is computed again, and says the same
    book.run(3)
    book.idle()
    assert book.output(3).endswith("False")
    slider["rewind-slider"].focus()
    page.keyboard.press("Home")
    slider.at(0)
    slider.shows(truth[0])

    # play to the end
    slider["rewind-play"].click()
    slider.at(8)
    page.wait_for_function(
        "() => document.querySelector('[data-testid=rewind-play]').textContent.includes('Play')",
        timeout=10_000,
    )

    for dark in (False, True):
        book.theme(dark)
        for width in (800, 1600):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(400)
            slider.root.scroll_into_view_if_needed()
            slider.root.screenshot(path=shots / f"rewind_{'dark' if dark else 'light'}_{width}.png")
            assert slider.root.evaluate("e => e.scrollWidth <= e.clientWidth"), (
                "wider than its place"
            )
