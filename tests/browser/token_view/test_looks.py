"""How the token view looks: themes, widths, colours, many of them, without scripts."""

from __future__ import annotations

import html

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Verdict
from sdpo_lab.views.groups import group_view
from sdpo_lab.views.html import document, visible
from sdpo_lab.views.page import bundle, style
from sdpo_lab.views.tokens import token_view
from tests.browser.token_view.common import (
    FEEDBACK,
    PROBLEM,
    QUANTITIES,
    TEXTS,
    Shown,
    axe,
    contrast,
    luminance,
    scored,
    violations,
)
from tests.views.test_tokens import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_the_colour_is_as_strong_as_the_value(view, open_page):
    shown, most = Shown(open_page(view.page())), view.data["limits"]["advantage"]
    for t, advantage in enumerate(view.data["attempts"][0]["advantage"]):
        strength = float(shown.token(0, t).evaluate("e => e.style.getPropertyValue('--v')"))
        assert strength == pytest.approx(min(1, abs(advantage) / most), abs=1e-3)
        assert ("down" in shown.token(0, t).get_attribute("class").split()) == (advantage < 0)


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


def test_a_long_attempt_is_drawn_at_once(tiny_original, open_page, root):
    model, tokenizer = tiny_original
    ids = torch.randint(10, 400, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    short = lab.credit(model, tokenizer, PROBLEM, ids[:400], feedback=FEEDBACK)
    data = token_view(short).data
    a = data["attempts"][0]
    for name, values in list(a.items()):  # on to 512 tokens
        if isinstance(values, list) and len(values) == len(short.tokens):
            a[name] = (values * 2)[:512]
    script, styles = bundle("token_view"), style("token_view")
    page = open_page(
        f"<!DOCTYPE html><meta charset=utf-8><style>{styles}</style><div "
        f"id=here></div><script>const {{ tokenView }} = {script};</script>"
    )
    times = page.evaluate(
        """([data]) => [0, 1, 2, 3, 4].map(() => {
        const began = performance.now();
        tokenView(here, data);
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
