"""The token view in a browser: hover, click, keys, labels, alternatives, quantities."""

from __future__ import annotations

import json
import math
import re

import pytest

from sdpo_lab.views.page import bundle, style
from sdpo_lab.views.tokens import token_view
from tests.browser.token_view.common import FEEDBACK, QUANTITIES, TEXTS, Shown, scored

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


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
        r"student [\d.e−]+, rank \d+; teacher [\d.e−]+, rank \d+\. Most likely for the "
        r"student: .+; for the teacher: .+\.$",
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
            else f"teacher {'lowers' if advantage < 0 else 'raises'} it by {abs(advantage):.2f} "
            f"nats"
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
                    "all => all.map((e) => getComputedStyle(e).backgroundColor + "
                    "getComputedStyle(e).backgroundImage)"
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


def test_update_select_and_destroy(view, tiny_original, open_page, root):
    script, styles = bundle("token_view"), style("token_view")
    page = open_page(
        f"<!DOCTYPE html><meta charset=utf-8><style>{styles}</style><div "
        f"id=here></div><script>const {{ tokenView }} = {script};</script>"
    )
    other = token_view(scored(tiny_original, TEXTS[0] + "!", 9), color_by="student").data
    page.evaluate(
        """([data]) => {
        window.told = [];
        here.addEventListener("tokenselect", (e) => told.push(e.detail));
        window.view = tokenView(here, data);
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
    assert (
        page.evaluate("here.children.length") == 0
        and page.evaluate(
            "Object.keys(window).filter((k) => /token|sdpo/i.test(k) && k !== 'told')"
        )
        == []
    )
