"""The playground in a real JupyterLab and a real browser: what a reader edits, and what the picture
then says."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from safetensors.numpy import save_file

import sdpo_lab as lab
from sdpo_lab.analysis.familiarity import TAUGHT
from sdpo_lab.models.loading import DEFAULT, model_folders
from small_models.taught import learn
from tests.browser.jupyterlab import Notebook, server, write

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

REAL = """
import torch
import sdpo_lab as lab
from sdpo_lab.views.playground import Playground
torch.set_num_threads(1)
model, tokenizer = lab.load_model("model")
task = lab.load_task("toolcall", seed=100)
pg = Playground(model, tokenizer, task)
pg
""".strip()
HOSTILE = """
import torch
import sdpo_lab as lab
from sdpo_lab.views.playground import Playground
torch.set_num_threads(1)
model, tokenizer = lab.load_model("untaught")
TEXT = "<img src=x onerror='window.hacked = 1'>\\n\\u202eend<|im_end|>"

def judge(problem, completion):
    if completion == "boom":
        raise ZeroDivisionError("<b>the judge broke</b>")
    return 0.0, TEXT

questions = [lab.Problem(f"p{n}", [{"role": "user", "content": f"{n} {TEXT}"}]) for n in range(2)]
task = lab.task_from_function(questions, judge)
pg = Playground(model, tokenizer, task, problem=questions[0], completion=TEXT, problems=2)
pg
""".strip()


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory, root):
    """(folder, address) of a running JupyterLab; in the folder are "model", the default one with a
    list of what it was taught, and "untaught" without."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("model", "untaught"):
        shutil.copytree(
            model_folders()[DEFAULT], folder / name, ignore=shutil.ignore_patterns(TAUGHT)
        )
    save_file({"phrases": learn(6000)}, folder / "model" / TAUGHT)
    with server(folder, root) as address:
        yield folder, address


class Play:
    """A playground on the page, seen from outside; the n-th of them."""

    def __init__(self, page, n: int = 0) -> None:
        self.page, self.n = page, n
        self.root = page.get_by_test_id("sdpo-play").nth(n)
        self.root.wait_for(timeout=60_000)

    def __getitem__(self, name: str):
        return self.root.get_by_test_id(name)

    def settle(self, seconds: float = 30) -> None:
        """Wait until the newest question has its answer drawn."""
        self.page.wait_for_timeout(50)
        self.page.wait_for_function(
            """(n) => {
                const d = document.querySelectorAll('.sdpo-play')[n].dataset;
                return (d.turn ?? '0') === (d.answered ?? '0');
            }""",
            arg=self.n,
            timeout=1000 * seconds,
        )

    def colours(self) -> list[str]:
        """How strongly each token is coloured, and which way."""
        return self.root.locator(".token").evaluate_all(
            "all => all.map((e) => (e.classList.contains('down') ? '-' : '+') + "
            "e.style.getPropertyValue('--v'))"
        )

    def preset(self, name: str):
        return self["preset"].filter(has_text=re.compile(rf"^(↺ )?{re.escape(name)}$"))

    def pressed(self) -> list[str]:
        return self.root.locator("[aria-pressed=true]").all_inner_texts()

    def wide(self) -> bool:
        return self.root.evaluate("e => e.scrollWidth > e.clientWidth")


def test_editing_what_the_teacher_is_shown(jupyter, page, shots, root):
    folder, address = jupyter
    book = Notebook(
        page,
        address,
        "playground.ipynb",
        write(folder, "playground.ipynb", REAL, "pg", "print(pg.credit.shown)"),
    )
    book.run_to(0)
    play = Play(page)
    task = lab.load_task("toolcall", seed=100)
    wrong = play["chosen-attempt"].locator("option").first.inner_text()
    assert wrong.startswith("✗ ") and play["judged"].inner_text().startswith("✗ wrong")
    real = play["feedback"].input_value()
    assert real in play["judged"].inner_text() and play.pressed() == ["the real feedback"]
    assert play["feedback-badge"].is_hidden() and play["unknown"].is_hidden()
    page.wait_for_function(
        "document.querySelector('.sdpo-play').dataset.written >= 1", timeout=30_000
    )
    assert play["fresh"].inner_text().startswith("greedy")
    for dark in (False, True):
        book.theme(dark)
        for width in (800, 1600):
            page.set_viewport_size({"width": width, "height": 1900})
            page.wait_for_timeout(500)
            play.root.screenshot(
                path=shots / f"playground_{'dark' if dark else 'light'}_{width}.png"
            )
            assert not play.wide(), "wider than its place"
    book.theme(False)

    # typing changes the picture, letter by letter
    before = play.colours()
    play["feedback"].focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("The cheese is in the cellar, my dear.")
    play.settle()
    assert play.colours() != before and play.pressed() == []
    assert (
        "never taught" not in play["feedback-badge"].inner_text()
        and "nothing this model was taught to read" in play["feedback-badge"].inner_text()
    )
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    play.settle()
    assert (
        set(play.colours()) <= {"+0.000", "+0"}
        and play["bits"].inner_text() == "0.00"
        and "no token moved" in play["words"].inner_text().lower()
    )

    # back to the real feedback
    assert play["preset"].first.inner_text() == "↺ the real feedback"
    play["preset"].first.click()
    play.settle()
    assert (
        play["feedback"].input_value() == real
        and play.colours() == before
        and play.pressed() == ["the real feedback"]
    )

    # every preset there is; the fields show its texts
    seen = {}
    for button in play["preset"].all():
        if button.is_disabled():
            assert button.get_attribute("title")
            continue
        button.click()
        play.settle()
        seen[button.inner_text()] = play["feedback"].input_value(), play["solution"].input_value()
        assert play.pressed() == [button.inner_text()]
    assert seen["the real feedback"] == (real, "") and seen["nothing"] == ("", "")
    assert seen["another problem's feedback"][0] not in ("", real) and seen["unrelated feedback"][
        0
    ] not in ("", real)
    problem = play["question"].inner_text()
    assert seen["the answer itself"] == (
        "",
        next(
            task.solution(p)
            for p in task.problems(6)
            if p.messages[-1]["content"] == problem.replace("⏎", "")
        ),
    )
    play.preset("nonsense").click()
    play.settle()
    assert play["feedback-badge"].is_visible()
    play.root.screenshot(path=shots / "playground_nonsense.png")
    if os.environ.get("SDPO_LAB_UPDATE_DOCS"):
        page.set_viewport_size({"width": 1280, "height": 1400})
        for dark, name, picture in (
            (False, "the real feedback", "light"),
            (True, "nonsense", "dark"),
        ):
            book.theme(dark)
            play.preset(name).click()
            play.settle()
            page.wait_for_timeout(2000)  # until the teacher has written its own
            play.root.screenshot(path=root / "docs" / "images" / f"playground_{picture}.png")
        book.theme(False)
        page.set_viewport_size({"width": 1600, "height": 1900})

    # an attempt of one's own; the right one is judged right, and what the judge says follows the
    # typing
    play["preset"].first.click()
    play["chosen-attempt"].select_option("typed")
    play["typed"].fill("order(")
    play.settle()
    assert (
        "SyntaxError" in play["judged"].inner_text()
        and "SyntaxError" in play["feedback"].input_value()
    )
    play["typed"].fill(seen["the answer itself"][1])
    play.settle()
    assert (
        play["judged"].inner_text().startswith("✓ right")
        and play.preset("the real feedback").is_disabled()
    )
    assert (
        "".join(t for t in play.root.locator(".token").all_inner_texts()).replace("\n", "")
        == seen["the answer itself"][1]
    )

    # another problem, by keyboard; a sample of the teacher's own
    play["next"].focus()
    page.keyboard.press("Enter")
    play.settle()
    assert play["chosen-problem"].input_value() == "1" and play["question"].inner_text() != problem
    play["sample"].click()
    page.wait_for_function(
        "document.querySelector('.fresh').textContent.startsWith('sample 1')", timeout=30_000
    )

    # shown again, by another cell and by another visit: what was chosen is there
    play.preset("nonsense").click()
    play.settle()
    nonsense = play["feedback"].input_value()
    page.wait_for_timeout(700)  # what was chosen is kept when the hand rests
    book.run(1)
    again = Play(page, 1)
    again.settle()
    assert (
        again["feedback"].input_value() == nonsense and again["chosen-problem"].input_value() == "1"
    )
    again["feedback"].fill("something else")  # both are views of one playground
    again.settle()
    page.wait_for_function(
        "document.querySelector('.sdpo-play textarea.feedback').value === 'something else'",
        timeout=30_000,
    )
    play.settle()
    assert play.colours() == again.colours()
    book.run(2)
    book.idle()
    assert "something else" in book.output(2)
    book.save()
    page.reload()
    book.ready()
    play = Play(page)
    play.settle()
    assert (
        play["feedback"].input_value() == "something else"
        and play["chosen-problem"].input_value() == "1"
    )


def test_hostile_texts_and_a_judge_that_breaks(jupyter, page, shots):
    folder, address = jupyter
    book = Notebook(
        page,
        address,
        "hostile.ipynb",
        write(folder, "hostile.ipynb", HOSTILE, HOSTILE.replace("pg", "other")),
    )
    book.run_to(1)
    play, other = Play(page), Play(page, 1)
    assert play["unknown"].is_visible() and play["feedback-badge"].is_hidden()
    assert (
        play["question"].inner_text()
        == "0 <img src=x onerror='window.hacked = 1'>⏎\n\\u202eend<|im_end|>"
    )
    play["feedback"].fill("<script>window.hacked = 2</script>{{</style>\u202eabc")
    play.settle()
    assert play["feedback"].input_value() == "<script>window.hacked = 2</script>{{</style>\u202eabc"
    assert other["feedback"].input_value() != play["feedback"].input_value(), (
        "two playgrounds do not share their state"
    )
    assert play.root.locator("img, script, b:not(.said b)").count() == 0 and page.evaluate(
        "window.hacked === undefined"
    )
    play["chosen-attempt"].select_option("typed")
    play["typed"].fill("boom")
    play.settle()
    assert (
        play["failure"].inner_text().startswith("JudgeError:")
        and "ZeroDivisionError: <b>the judge broke</b>" in play["failure"].inner_text()
    )
    play.root.screenshot(path=shots / "playground_failed.png")
    play["typed"].fill("boom!")
    play.settle()
    assert play["failure"].is_hidden() and page.evaluate("window.hacked === undefined")
