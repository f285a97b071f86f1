"""Every view that stands in a notebook without a kernel, of texts that would like to be a script:
shown in a browser, nothing of them runs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

import sdpo_lab as lab
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem
from sdpo_lab.views import Bars, Chart, Line, compare, curve, group_view, token_view
from tests.hostile.texts import CORPUS
from tests.shared.fake_trainer import FakeTrainer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PIECES = [text for text in CORPUS if any(c in text for c in "<>&$`{'\"\\\x1b\u202e\u2028")]
NASTY = (
    "".join(PIECES[:45]),
    "".join(PIECES[45:]),
)  # in two: all at once is longer than the model's context
SHOWN = (
    "<script>window.hacked=1</script>",
    '<img src=x onerror="window.hacked=1">',
    "<svg/onload=window.hacked=1>",
    "&lt;b&gt;",
    "&#60;script&#62;",
    "{{ 7*7 }}",
)


def test_every_kind_of_text_is_tried_and_each_is_looked_for():
    assert all(any(text in nasty for nasty in NASTY) for text in PIECES) and all(
        any(s in nasty for nasty in NASTY) for s in SHOWN
    )


def outputs(tiny_original, text: str) -> dict[str, str]:
    """The HTML of every static view, with the text wherever one can stand."""
    problem = Problem("p", [{"role": "user", "content": text}])
    scored = lab.credit(
        *tiny_original, problem, text[:300], feedback=text[300:], solution=text[:100]
    )
    attempts = [
        Rollout(problem, i, text, [5 + i, 6], reward=float(i), feedback=text) for i in range(3)
    ]
    trainer = FakeTrainer(text=text, feedback=text, seconds=0)
    for _ in range(3):
        trainer.step()
    return {
        "token view": token_view(scored, titles=text)._repr_html_(),
        "group view": group_view(*tiny_original, attempts)._repr_html_(),
        "chart": Chart(
            text, [Line(text, [0, 1], [0, 1])], text, text, note=text, marks={0.5: text}
        )._repr_html_(),
        "bars": Bars(text, {text: 1.0}, text, text, colour=text)._repr_html_(),
        "compare": compare({text: trainer.history}, "reward", note=text)._repr_html_(),
        "curve": curve(trainer.history, text, text)._repr_html_(),
    }


def exported(found: dict[str, str], folder: Path) -> str:
    """The same as a notebook with outputs, converted: what is put on a web page."""
    nbconvert = pytest.importorskip("nbconvert")
    cells = [
        nbformat.v4.new_code_cell(
            "",
            outputs=[
                nbformat.v4.new_output("display_data", {"text/html": text, "text/plain": name})
            ],
        )
        for name, text in found.items()
    ]
    notebook = folder / "hostile.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    return nbconvert.HTMLExporter().from_filename(str(notebook))[0]


@pytest.fixture
def visit(browser, tmp_path, shots, request):
    """visit(html, name) -> (page, addresses it asked for, what it said in dialogs, errors thrown);
    nothing of it reaches a network."""
    contexts = []

    def visit(text: str, name: str):
        path = tmp_path / f"{name}.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": 1000, "height": 1200}, reduced_motion="reduce"
        )
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        contexts.append(context)
        page, asked, said, thrown = context.new_page(), set(), [], []
        page.on("request", lambda r: asked.add(r.url) if r.url != path.as_uri() else None)
        page.on("dialog", lambda d: said.append(d.message) or d.dismiss())
        page.on("pageerror", lambda e: thrown.append(str(e)))
        page.goto(path.as_uri(), wait_until="load")
        for handle in page.query_selector_all("button, summary, [role=tab], [tabindex='0']")[
            :12
        ]:  # what is drawn on demand, too
            if handle.is_visible():
                handle.click(force=True, timeout=2000)
        page.mouse.move(300, 300)
        page.wait_for_timeout(300)
        page.screenshot(path=shots / f"{request.node.name}_{name}.png".replace("/", "_"))
        assert page.url.split("#")[0] == path.as_uri(), "it leads nowhere"
        return page, asked, said, thrown

    yield visit
    for context in contexts:
        context.close()


def test_the_browser_would_notice(visit):
    """The test's own eyes: the same texts, put into a page as they are, do run."""
    page, asked, _, _ = visit(
        "<body>" + "".join(SHOWN) + "<script>window.hacked=1</script>", "broken"
    )
    assert page.evaluate("window.hacked") == 1 and asked


def test_static_views(visit, tiny_original):
    for n, name, text in [
        (n, *pair)
        for n, nasty in enumerate(NASTY)
        for pair in outputs(tiny_original, nasty).items()
    ]:
        page, asked, said, thrown = visit(
            f"<!doctype html><meta charset=utf-8><body>{text}", f"{name.replace(' ', '_')}_{n}"
        )
        assert (
            page.evaluate("typeof window.hacked") == "undefined"
            and not asked
            and not said
            and not thrown
        ), name
        words = page.evaluate("document.body.innerText")
        missing = [
            s for s in SHOWN if s in NASTY[n] and "".join(s.split()) not in "".join(words.split())
        ]
        assert not missing, f"{name} does not show {missing} as they are"
        assert (
            page.locator(
                "[onerror], [onload], [onmouseover], iframe, object, base, form, "
                "meta[http-equiv], link"
            ).count()
            == 0
        ), name


def test_a_converted_notebook(visit, tiny_original, tmp_path):
    """What nbconvert makes of it asks for no more than what it makes of plain words."""
    plain = visit(exported(outputs(tiny_original, "plain words, " * 40), tmp_path), "plain")
    both = {
        f"{name} {n}": text
        for n, nasty in enumerate(NASTY)
        for name, text in outputs(tiny_original, nasty).items()
    }
    page, asked, said, thrown = visit(exported(both, tmp_path), "hostile")
    assert (
        page.evaluate("typeof window.hacked") == "undefined"
        and not said
        and asked <= plain[1]
        and set(thrown) <= set(plain[3])
    )
    assert (
        not any("evil.example" in url for url in asked)
        and page.locator("a[href*='evil.example'], a[href^='javascript:']").count() == 0
    )
    assert "<script>window.hacked=1</script>" in page.evaluate("document.body.innerText")
