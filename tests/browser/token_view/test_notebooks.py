"""The token view in notebooks: converted, in JupyterLab, untrusted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest

import sdpo_lab as lab
from sdpo_lab.views.groups import group_view
from sdpo_lab.views.tokens import token_view
from tests.browser.jupyterlab import Notebook, server, write
from tests.browser.token_view.common import FEEDBACK, TEXTS, Shown, axe, luminance, violations

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_on_the_default_model(open_page, shots, root):
    """What a reader meets: the attempts of a shipped model at one problem of its task, with the
    oracle."""
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
        "import json\nfrom sdpo_lab.views.tokens import TokenView\n"
        "view = TokenView(json.load(open('view.json')))\nview",
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
        "tokenView" not in output.inner_text() and page.get_by_test_id("sdpo-tokens").count() == 0
    )
    assert output.locator("span[style*=background]").count() > 3, (
        "the colours are what sanitisers let through"
    )
    page.screenshot(path=shots / "token_view_untrusted.png")
    page.close()
