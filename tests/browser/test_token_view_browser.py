"""The token view in a real browser: as a file without network, in a converted notebook, and in a JupyterLab, by mouse, by keys and by axe."""

from __future__ import annotations

import html
import json
import math
import os
import re
from importlib.resources import files
from pathlib import Path

import nbformat
import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem, Verdict
from sdpo_lab.views.groups import group_view
from sdpo_lab.views.page import source
from sdpo_lab.views.tokens import document, token_view, visible
from tests.browser.jupyterlab import Notebook, server, write
from tests.views.test_tokens import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PROBLEM = Problem(
    "p",
    [
        {
            "role": "user",
            "content": "Will it rain in Oslo on Friday?\nAnswer with a call of weather().",
        }
    ],
)
TEXTS = ["weather(town='Oslo', day='Friday')", "weather(city='Oslo',\n        day='Fri')"]
FEEDBACK = "TypeError: weather() got an unexpected keyword argument 'town' (accepted: city, day)"
QUANTITIES = [
    "advantage",
    "divergence",
    "student",
    "teacher",
    "student entropy",
    "teacher entropy",
    "oracle",
]


def scored(tiny_original, text, seed=0, feedback=FEEDBACK):
    """A credit with differences as a trained model has them: most tokens untouched, some moved by nats; and with an oracle."""
    model, tokenizer = tiny_original
    c = lab.credit(model, tokenizer, PROBLEM, text, feedback=feedback)
    generator = torch.Generator().manual_seed(seed)
    for t in range(len(c.tokens)):
        c.teacher_distribution[t] = (
            c.student_distribution[t]
            + (3 if t % 4 == 2 else 0.02) * torch.randn(400, generator=generator)
        ).log_softmax(-1)
    c.teacher_log_probs = c.teacher_distribution.gather(1, torch.tensor(c.completion_ids)[:, None])[
        :, 0
    ]
    c.oracle_log_probs = c.student_log_probs.clone()
    c.oracle_log_probs[3], c.oracle_log_probs[4:] = -math.inf, math.nan
    return c


@pytest.fixture(scope="module")
def view(tiny_original):
    return token_view(
        [scored(tiny_original, text, n) for n, text in enumerate(TEXTS)],
        titles=["Attempt 0", "Attempt 1"],
    )


@pytest.fixture
def open_page(browser, shots, tmp_path, request):
    """open_page(html, width, dark): a page from a file in a browser without network; what it asks of the network or throws fails the test."""
    contexts, wrong, pages = [], [], []

    def build(text: str, width: int = 1000, dark: bool = False, height: int = 800):
        path = tmp_path / f"{len(pages)}.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            offline=True,
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
        page.on(
            "request",
            lambda asked: wrong.append(asked.url) if not asked.url.startswith("file:") else None,
        )
        page.goto(path.as_uri())
        contexts.append(context)
        pages.append(page)
        return page

    yield build
    for n, page in enumerate(pages):
        page.screenshot(
            path=shots / f"{request.node.name}_{n}.png".replace("/", "_"), full_page=True
        )
    for context in contexts:
        context.close()
    assert not wrong


class Shown:
    """A token view on a page, seen from outside."""

    def __init__(self, page, number: int = 0) -> None:
        self.page, self.root = page, page.get_by_test_id("sdpo-tokens").nth(number)
        self.root.wait_for(timeout=60_000)

    def token(self, attempt: int, t: int):
        return self.root.get_by_test_id("text").nth(attempt).locator(".token").nth(t)

    @property
    def selected(self) -> str:
        return self.root.locator('.token[aria-selected="true"]').get_attribute("aria-label")

    @property
    def details(self) -> str:
        return self.root.locator("> .details").inner_text()

    def by(self, quantity: str) -> None:
        self.root.locator(f'input[value="{quantity}"]').check(force=True)

    def at(self, attempt: int, t: int) -> bool:
        """Is this the token the keyboard is on, the selected one, and the only one Tab leads to?"""
        return self.token(
            attempt, t
        ).evaluate("""e => e === document.activeElement && e.ariaSelected === "true"
            && e.closest("[data-testid=sdpo-tokens]").querySelectorAll(".token[tabindex='0'], .token[aria-selected=true]").length === 1""")


def test_hover_shows_click_keeps_keys_move(view, open_page):
    page = open_page(view.page())
    shown, data = Shown(page), view.data["attempts"]
    blamed = max(
        ((n, t) for n in (0, 1) for t in range(len(data[n]["tokens"]))),
        key=lambda at: abs(data[at[0]]["advantage"][at[1]]),
    )
    assert shown.selected.startswith(f"token {blamed[1] + 1} of"), (
        "at first the token that was moved most"
    )

    # hovering shows another token and leaving brings the first one back
    before, height = shown.details, shown.root.bounding_box()["height"]
    shown.token(0, 1).hover()
    assert f"token 2 of {len(data[0]['tokens'])}" in shown.details and shown.selected.startswith(
        f"token {blamed[1] + 1} of"
    )
    page.mouse.move(5, 5)
    assert shown.details == before

    # a click keeps it
    shown.token(0, 2).click()
    page.mouse.move(5, 5)
    assert f"token 3 of {len(data[0]['tokens'])}" in shown.details and shown.at(0, 2)
    assert f"bytes {data[0]['ends'][1]}–{data[0]['ends'][2]}" in shown.details
    cells = shown.root.locator(".grid > span").all_inner_texts()
    assert cells[4:7] == [
        "student",
        f"{math.exp(data[0]['student'][2]):.3f}",
        str(data[0]["student_rank"][2]),
    ]
    advantage = data[0]["advantage"][2]
    assert (
        f"{'raises' if advantage > 0 else 'lowers'} it by {abs(advantage):.2f} nats"
        in shown.details
    )

    # keys: along the text, to its ends, and between attempts; nothing jumps
    for key, at in (
        ("ArrowRight", (0, 3)),
        ("ArrowLeft", (0, 2)),
        ("End", (0, len(data[0]["tokens"]) - 1)),
        ("ArrowRight", (0, len(data[0]["tokens"]) - 1)),
        ("Home", (0, 0)),
        ("ArrowLeft", (0, 0)),
        ("ArrowUp", (0, 0)),
        ("ArrowDown", (1, 0)),
    ):
        page.keyboard.press(key)
        assert shown.at(*at), key
        assert shown.root.bounding_box()["height"] == height
    page.keyboard.press("ArrowDown")
    second_line = next(t for t, token in enumerate(data[1]["tokens"]) if "\n" in token)
    assert int(shown.selected.split()[1]) > second_line + 1, "down a line of the same attempt"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert shown.root.get_by_test_id("text").nth(0).locator('[aria-selected="true"]').count() == 1
    # what a screen reader is told
    assert re.match(
        r"student [\d.e−]+, rank \d+; teacher [\d.e−]+, rank \d+\. Most likely for the student: .+; for the teacher: .+\.$",
        shown.root.get_by_test_id("spoken").evaluate("e => e.textContent"),
        re.DOTALL,
    )
    shown.token(0, 1).hover()
    shown.token(0, 1).focus()
    page.keyboard.press("Enter")
    assert shown.at(0, 1)


def test_the_label_of_a_token(view, open_page):
    shown, a = Shown(open_page(view.page())), view.data["attempts"][0]
    for t, (token, advantage) in enumerate(zip(a["tokens"], a["advantage"])):
        says = (
            "teacher leaves it as it is"
            if abs(advantage) < 0.005
            else f"teacher {'lowers' if advantage < 0 else 'raises'} it by {abs(advantage):.2f} nats"
        )
        label = shown.token(0, t).get_attribute("aria-label")
        assert label.startswith(f"token {t + 1} of {len(a['tokens'])}: '{token}', ") and (
            says in label or abs(abs(advantage) * 100 % 1 - 0.5) < 0.06
        ), label


def test_the_alternatives(view, open_page):
    shown, a = Shown(open_page(view.page())), view.data["attempts"][0]
    shown.token(0, 2).click()
    rows = [row.inner_text().split("\n") for row in shown.root.locator(".list .entry").all()]
    assert len(rows) == len(a["top"][2]) + 2
    assert rows[1][0] == a["tokens"][2] and rows[-1][0] == f"{a['size'] - len(a['top'][2])} others"
    bars = shown.root.locator(".list .entry.written .bar").evaluate_all(
        "all => all.map((e) => parseFloat(e.style.width))"
    )
    assert bars == pytest.approx(
        [100 * math.exp(a["student"][2]), 100 * math.exp(a["teacher"][2])], abs=0.01
    )


def test_another_quantity(view, open_page):
    shown = Shown(open_page(view.page()))
    shown.token(0, 3).click()
    seen, colours = set(), set()
    for quantity in QUANTITIES:
        shown.by(quantity)
        assert shown.root.get_attribute("data-quantity") == quantity
        seen.add(shown.root.get_by_test_id("legend").inner_text())
        colours.add(
            tuple(
                shown.root.locator(".token").evaluate_all(
                    "all => all.map((e) => getComputedStyle(e).backgroundColor + getComputedStyle(e).backgroundImage)"
                )
            )
        )
        assert shown.selected.startswith("token 4 of"), "the selected token stays"
    assert len(seen) >= 6 and len(colours) == len(QUANTITIES)
    assert (
        "excluded" in shown.details
        and "no opinion" in shown.root.get_by_test_id("legend").inner_text()
    )
    assert "nothing" in shown.token(0, 4).get_attribute("class") and "nothing" not in shown.token(
        0, 3
    ).get_attribute("class")
    # the radio buttons by keys
    shown.root.locator('input[value="oracle"]').focus()
    shown.page.keyboard.press("ArrowRight")
    assert shown.root.get_attribute("data-quantity") == "advantage"


def test_the_colour_is_as_strong_as_the_value(view, open_page):
    shown, most = Shown(open_page(view.page())), view.data["limits"]["advantage"]
    for t, advantage in enumerate(view.data["attempts"][0]["advantage"]):
        strength = float(shown.token(0, t).evaluate("e => e.style.getPropertyValue('--v')"))
        assert strength == pytest.approx(min(1, abs(advantage) / most), abs=1e-3)
        assert ("down" in shown.token(0, t).get_attribute("class").split()) == (advantage < 0)


def test_the_prompts_unfold(view, open_page):
    page = open_page(view.page(), 1000)
    shown = Shown(page)
    fold = shown.root.get_by_test_id("prompts").first
    fold.locator("summary").click()
    fold.get_by_test_id("prompt").nth(
        1
    ).wait_for()  # drawn when the fold says that it is open, a moment later; `all` does not wait
    student, teacher = fold.get_by_test_id("prompt").all()
    assert (
        FEEDBACK in teacher.locator("ins").inner_text()
        and FEEDBACK not in student.inner_text()
        and student.locator("del").count() == 0
    )
    assert "underline" in teacher.locator("ins").first.evaluate(
        "e => getComputedStyle(e).textDecorationLine"
    ), "marked by more than a colour"
    left, right = student.bounding_box(), teacher.bounding_box()
    assert right["x"] > left["x"] + left["width"] - 1, "side by side"
    page.set_viewport_size({"width": 500, "height": 800})
    left, right = student.bounding_box(), teacher.bounding_box()
    assert right["x"] == left["x"] and right["y"] > left["y"], "one below the other"


def test_a_hostile_text_is_shown_and_does_nothing(tiny_original, open_page):
    page = open_page(
        token_view(scored(tiny_original, HOSTILE, feedback=HOSTILE), titles=HOSTILE).page()
    )
    shown = Shown(page)
    fold = shown.root.get_by_test_id("prompts")
    fold.locator("summary").click()
    for quantity in QUANTITIES:
        shown.by(quantity)
    tokens = shown.root.locator(".token")
    for t in range(tokens.count()):
        tokens.nth(t).dispatch_event("pointerover")
    assert page.evaluate("window.hacked") is None
    assert shown.root.locator("img, script, textarea, b:not(.lowers, .raises)").count() == 0
    # every token's text is what Python would write, too: the two agree what cannot be seen
    whole = [
        n for n in range(tokens.count()) if "partial" not in tokens.nth(n).get_attribute("class")
    ]
    texts = token_view(scored(tiny_original, HOSTILE)).data["attempts"][0]["tokens"]
    for n in whole:
        assert tokens.nth(n).evaluate("e => e.textContent") == html.unescape(visible(texts[n]))
    assert (
        "<script>window.hacked = 1</script></style>" in fold.inner_text()
        and "{{ 7*7 }}" in fold.inner_text()
        and "<|im_end|><|im_start|>" in fold.inner_text()
    )
    assert (
        "\u202e" not in shown.root.evaluate("e => e.textContent") and "\\u202e" in fold.inner_text()
    )
    assert not any(
        "\u202e" in label
        for label in tokens.evaluate_all("all => all.map((e) => e.getAttribute('aria-label'))")
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 800, 1600])
def test_themes_widths_and_access(view, open_page, shots, root, width, dark):
    page = open_page(view.page(), width, dark)
    shown = Shown(page)
    page.add_script_tag(content=axe())
    shown.root.get_by_test_id("prompts").first.locator("summary").click()
    for quantity in QUANTITIES:
        shown.by(quantity)
        assert shown.root.evaluate("e => e.scrollWidth <= e.clientWidth + 1") and page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth"
        ), "wider than its place"
        assert violations(page) == [], quantity
    ink, paper = shown.root.evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    )
    assert (
        (luminance(paper) < 0.1 < luminance(ink))
        if dark
        else (luminance(paper) > 0.9 > luminance(ink))
    )
    shown.by("advantage")
    shown.root.screenshot(path=shots / f"token_view_{'dark' if dark else 'light'}_{width}.png")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read_on_every_colour(view, open_page, dark):
    """WCAG AA, 4.5 to 1, at full colour, which axe only sees where a token happens to have it."""
    page = open_page(view.page(), 800, dark)
    shown = Shown(page)
    paper = shown.root.evaluate("e => getComputedStyle(e).backgroundColor")
    for quantity in QUANTITIES:
        shown.by(quantity)
        for sign in ("add", "remove"):
            ink, colour = shown.token(0, 0).evaluate(
                """(e, sign) => {
                e.classList.remove("nothing");
                e.classList[sign]("down");
                e.style.setProperty("--v", 1);
                return [getComputedStyle(e).color, getComputedStyle(e).backgroundColor];
            }""",
                sign,
            )
            assert contrast(ink, colour) >= 4.5 and colour != paper, (quantity, sign)


def test_several_views_and_the_same_one_twice(view, tiny_original, open_page):
    other = token_view(scored(tiny_original, "no rain", 5), color_by="divergence")
    once = view._repr_html_()
    page = open_page(
        document(once + other._repr_html_() + once, "the first one twice, and another")
    )
    assert (
        page.get_by_test_id("sdpo-tokens").count() == 3
        and "the teacher lowers it −" not in page.locator("main").inner_text()
    )
    first, second, third = (Shown(page, n) for n in range(3))
    first.by("teacher")
    first.token(0, 1).click()
    second.token(0, 0).click()
    assert (
        first.root.get_attribute("data-quantity") == "teacher"
        and third.root.get_attribute("data-quantity") == "advantage"
    )
    assert (
        first.selected.startswith("token 2 of")
        and second.root.get_attribute("data-quantity") == "divergence"
    )


def test_without_scripts_there_is_the_coloured_text(view, browser, tmp_path, shots):
    path = view.save(tmp_path / "view.html")
    for dark in (False, True):
        context = browser.new_context(
            java_script_enabled=False, offline=True, color_scheme="dark" if dark else "light"
        )
        page = context.new_page()
        page.goto(path.as_uri())
        assert (
            TEXTS[0] in page.locator("main").inner_text()
            and page.locator("span[style*=rgba]").count() > 3
        )
        page.screenshot(path=shots / f"token_view_no_scripts_{'dark' if dark else 'light'}.png")
        context.close()


def test_update_select_and_destroy(view, tiny_original, open_page, root):
    script, style = source("dom.js", "token_view.js"), source("token_view.css")
    page = open_page(
        f"<!DOCTYPE html><meta charset=utf-8><style>{style}</style><div id=here></div><script>{script}</script>"
    )
    other = token_view(scored(tiny_original, TEXTS[0] + "!", 9), color_by="student").data
    page.evaluate(
        """([data]) => {
        window.told = [];
        here.addEventListener("tokenselect", (e) => told.push(e.detail));
        window.view = sdpoTokenView(here, data);
    }""",
        [json.loads(json.dumps(view.data))],
    )
    shown = Shown(page)
    shown.by("teacher")
    shown.root.get_by_test_id("prompts").first.locator("summary").click()
    shown.token(0, 4).click()
    page.evaluate("([data]) => view.update(data)", [other])
    assert shown.root.get_attribute("data-quantity") == "teacher" and shown.selected.startswith(
        "token 5 of"
    )
    assert (
        shown.root.get_by_test_id("prompts").first.evaluate("e => e.open")
        and shown.root.get_by_test_id("text").count() == 1
    )
    assert shown.at(0, 4), "the keyboard stays where it was"
    page.evaluate("view.select(0, 1)")
    assert shown.selected.startswith("token 2 of")
    page.evaluate("view.select(7, 999)")
    assert shown.selected.startswith(f"token {len(other['attempts'][0]['tokens'])} of"), (
        "beyond the end is the end"
    )
    assert (
        page.evaluate("told[0]") == {"attempt": 0, "token": 4} and page.evaluate("told.length") == 3
    )
    page.evaluate("view.destroy()")
    assert page.evaluate("here.children.length") == 0 and page.evaluate(
        "Object.keys(window).filter((k) => k.startsWith('sdpo'))"
    ) == ["sdpoTokenView"]


def test_a_long_attempt_is_drawn_at_once(tiny_original, open_page, root):
    model, tokenizer = tiny_original
    ids = torch.randint(10, 400, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    short = lab.credit(model, tokenizer, PROBLEM, ids[:400], feedback=FEEDBACK)
    data = token_view(short).data
    a = data["attempts"][0]
    for name, values in list(a.items()):  # on to 512 tokens
        if isinstance(values, list) and len(values) == len(short.tokens):
            a[name] = (values * 2)[:512]
    script, style = source("dom.js", "token_view.js"), source("token_view.css")
    page = open_page(
        f"<!DOCTYPE html><meta charset=utf-8><style>{style}</style><div id=here></div><script>{script}</script>"
    )
    times = page.evaluate(
        """([data]) => [0, 1, 2, 3, 4].map(() => {
        const began = performance.now();
        sdpoTokenView(here, data);
        here.offsetHeight;
        return performance.now() - began;
    })""",
        [data],
    )
    assert page.locator(".token").count() == 512 and sorted(times)[2] <= 300, times


def test_the_group_view(tiny_original, open_page, shots):
    model, tokenizer = tiny_original
    rollouts = [
        Rollout(PROBLEM, i, text, tokenizer(text, add_special_tokens=False).input_ids)
        for i, text in enumerate([*TEXTS, TEXTS[0], HOSTILE])
    ]
    task = lab.task_from_function(
        [PROBLEM],
        lambda p, text: (
            Verdict(1.0)
            if "city" in text
            else Verdict(0.0, FEEDBACK if "town" in text else HOSTILE)
        ),
    )
    group = group_view(model, tokenizer, rollouts, task=task)
    for dark in (False, True):
        for width in (320, 800, 1600):
            page = open_page(group.page(), width, dark)
            page.add_script_tag(content=axe())
            buttons = page.locator("table.group button")
            assert buttons.count() == 3 and page.get_by_test_id("sdpo-tokens").count() == 0
            buttons.first.focus()
            page.keyboard.press("Enter")
            shown = Shown(page)
            shown.token(0, 2).click()
            assert (
                shown.selected.startswith("token 3 of")
                and buttons.first.get_attribute("aria-expanded") == "true"
            )
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                "wider than its place"
            )
            assert page.locator(".list").evaluate("e => e.scrollWidth <= e.clientWidth"), (
                "numbers are cut off"
            )
            assert violations(page) == []
            page.get_by_test_id("sdpo-group").screenshot(
                path=shots / f"group_view_{'dark' if dark else 'light'}_{width}.png"
            )
            buttons.first.click()
            assert (
                page.get_by_test_id("sdpo-tokens").count() == 0
                and buttons.first.get_attribute("aria-expanded") == "false"
            )
            buttons.first.click()
            assert shown.selected.startswith("token 3 of"), "folded and unfolded, it is as it was"
            assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0


def test_on_the_default_model(open_page, shots, root):
    """What a reader meets: the attempts of a shipped model at one problem of its task, with the oracle."""
    model, tokenizer = lab.load_model()
    task = lab.load_task("toolcall", seed=100)
    groups = [lab.rollout(model, tokenizer, [p], 8, seed=1) for p in task.problems(12, seed=3)]
    rewards = [[task.judge(r.problem, r.text).reward for r in g] for g in groups]
    mixed = max(
        range(len(groups)),
        key=lambda n: (0 < sum(v >= 1 for v in rewards[n]) <= 4, len({r.text for r in groups[n]})),
    )
    group = group_view(model, tokenizer, groups[mixed], task=task)
    failed = [
        r
        for g in groups
        for r in g
        if task.judge(r.problem, r.text).feedback.startswith("TypeError")
    ]
    failed = list({r.text: r for r in failed}.values())
    first = failed[0]
    credits = [
        lab.credit(
            model,
            tokenizer,
            r.problem,
            r,
            feedback=task.judge(r.problem, r.text).feedback,
            task=task,
        )
        for r in failed[:2]
    ]
    assert first.text in "".join(credits[0].tokens)
    both = token_view(credits, titles=[f"Attempt {r.index}" for r in failed[:2]])
    for dark in (False, True):
        name = "dark" if dark else "light"
        for kind, text in (("", both.page()), ("group_", group.page())):
            page = open_page(text, 1000, dark)
            if kind:
                page.locator("table.group button").first.click()
            shown = Shown(page)
            shown.by("oracle")
            shown.by("advantage")
            if not kind:
                shown.root.get_by_test_id("prompts").first.locator("summary").click()
            folders = (
                [shots, root / "docs" / "images"]
                if os.environ.get("SDPO_LAB_UPDATE_DOCS")
                else [shots]
            )
            for folder in folders:
                box = page.locator("main > div").first.bounding_box()
                page.screenshot(
                    path=folder / f"token_view_{kind}{name}.png",
                    full_page=True,
                    clip=box | {"height": min(box["height"], 860)},
                )


# -- in notebooks


def notebook(folder: Path, view, name: str = "stored.ipynb") -> Path:
    """A notebook that holds the view as a stored output, as one that was run elsewhere does."""
    outputs = [
        nbformat.v4.new_output(
            "execute_result",
            {"text/html": view._repr_html_(), "text/plain": repr(view)},
            execution_count=1,
        )
    ]
    cell = nbformat.v4.new_code_cell("view", id="c0", outputs=outputs, execution_count=1)
    book = nbformat.v4.new_notebook(cells=[cell])
    book.metadata.kernelspec = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    nbformat.write(book, folder / name)
    return folder / name


@pytest.mark.parametrize("template", ["lab", "classic"])
def test_a_converted_notebook_works_without_a_kernel(view, browser, tmp_path, shots, template):
    nbconvert = pytest.importorskip("nbconvert")
    text, _ = nbconvert.HTMLExporter(template_name=template).from_filename(
        str(notebook(tmp_path, view))
    )
    (tmp_path / "converted.html").write_text(text, encoding="utf-8")
    context, errors = browser.new_context(offline=True), []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "converted.html").as_uri())
    shown = Shown(page)
    shown.by("divergence")
    shown.token(1, 3).click()
    page.keyboard.press("ArrowRight")
    assert shown.selected.startswith("token 5 of") and "divergence" in shown.selected.lower()
    cells = shown.root.locator(".list .entry").evaluate_all(
        "all => all.map((e) => [...e.children].map((c) => c.getBoundingClientRect().left))"
    )
    assert len(cells) > 9 and all(row == sorted(row) and row == cells[0] for row in cells), (
        "the page's own styles (Bootstrap has a .row) leave the columns alone"
    )
    page.screenshot(path=shots / f"token_view_nbconvert_{template}.png")
    context.close()
    assert not [e for e in errors if "require" not in e.lower() and "mathjax" not in e.lower()], (
        "the page's own loaders need a network, the view does not"
    )


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("lab")
    with server(folder, root) as address:
        yield folder, address


def test_in_jupyterlab(view, jupyter, browser, shots, root):
    folder, address = jupyter
    (folder / "view.json").write_text(json.dumps(view.data))
    cells = write(
        folder,
        "run.ipynb",
        "import json\nfrom sdpo_lab.views.tokens import TokenView\nview = TokenView(json.load(open('view.json')))\nview",
        "view",
        "1 + 1",
    )
    page, errors = browser.new_page(viewport={"width": 1600, "height": 1000}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    book = Notebook(page, address, "run.ipynb", cells)
    book.run_to(cells - 1)
    shown, again = Shown(page), Shown(page, 1)
    page.add_script_tag(content=axe())
    shown.token(0, 2).click()
    for key, at in (
        ("ArrowRight", (0, 3)),
        ("Home", (0, 0)),
        ("ArrowDown", (1, 0)),
        ("End", (1, len(view.data["attempts"][1]["tokens"]) - 1)),
        ("Enter", None),
    ):
        page.keyboard.press(key)
        assert at is None or shown.at(*at), f"{key}: JupyterLab must not take it"
    shown.by("student entropy")
    assert again.root.get_attribute("data-quantity") == "advantage", "shown twice, they are two"
    shown.token(0, 1).hover()
    assert "token 2 of" in shown.details
    shown.root.get_by_test_id("prompts").first.locator("summary").click()
    assert FEEDBACK in shown.root.get_by_test_id("prompt").nth(1).inner_text()
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells, "no key made or removed a cell"
    shown.by("advantage")
    for dark in (False, True):
        book.theme(dark)
        for width in (800, 1600):
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(300)
            assert shown.root.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), (
                "wider than its place"
            )
            assert (
                luminance(shown.root.evaluate("e => getComputedStyle(e).backgroundColor")) < 0.1
            ) == dark
            assert violations(page, "[data-testid=sdpo-tokens]") == []
            shown.root.screenshot(
                path=shots / f"token_view_jupyterlab_{'dark' if dark else 'light'}_{width}.png"
            )
    book.theme(False)
    page.close()
    assert not errors


def test_an_untrusted_notebook_has_the_coloured_text(view, jupyter, browser, shots):
    folder, address = jupyter
    notebook(folder, view)
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    Notebook(page, address, "stored.ipynb", 1)
    output = page.locator(".jp-OutputArea-output").first
    output.wait_for()
    assert TEXTS[0] in output.inner_text() and "the teacher lowers it" in output.inner_text()
    assert (
        "sdpoTokenView" not in output.inner_text()
        and page.get_by_test_id("sdpo-tokens").count() == 0
    )
    assert output.locator("span[style*=background]").count() > 3, (
        "the colours are what sanitisers let through"
    )
    page.screenshot(path=shots / "token_view_untrusted.png")
    page.close()


# -- measuring


def axe() -> str:
    """The source of axe-core, as the package axe-playwright-python brings it."""
    pytest.importorskip("axe_playwright_python")
    return next(
        p for p in files("axe_playwright_python").joinpath(".").iterdir() if p.name == "axe.min.js"
    ).read_text(encoding="utf-8")


def violations(page, place: str = "main") -> list[str]:
    """Serious and critical violations that axe finds in a part of the page."""
    found = page.evaluate("(place) => axe.run(place, { resultTypes: ['violations'] })", place)[
        "violations"
    ]
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary'][:300]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def luminance(colour: str) -> float:
    """WCAG relative luminance of "rgb(r, g, b)"."""
    parts = [float(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
