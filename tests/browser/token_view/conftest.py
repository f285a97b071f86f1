"""A view of several attempts, and a page that shows a view."""

from __future__ import annotations

import pytest

from sdpo_lab.views.tokens import token_view
from tests.browser.token_view.common import TEXTS, scored


@pytest.fixture(scope="module")
def view(tiny_original):
    return token_view(
        [scored(tiny_original, text, n) for n, text in enumerate(TEXTS)],
        titles=["Attempt 0", "Attempt 1"],
    )


@pytest.fixture
def open_page(browser, shots, tmp_path, request):
    """open_page(html, width, dark): a page from a file in a browser without network; what it asks
    of the network or throws fails the test."""
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
