"""What the browser tests share: a JupyterLab, a Chromium, a page that fails its test when something
throws in it, and where pictures go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.jupyterlab import CHROMIUM_ARGUMENTS, server


@pytest.fixture(scope="module")
def lab(tmp_path_factory, root):
    """(folder, address) of a running JupyterLab."""
    folder = tmp_path_factory.mktemp("lab")
    with server(folder, root) as address:
        yield folder, address


@pytest.fixture(scope="module")
def browser(chromium):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, shots, request):
    """A page 1600 pixels wide; an uncaught error in it fails the test. Its last sight is kept."""
    page, errors = browser.new_page(viewport={"width": 1600, "height": 1000}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.screenshot(path=shots / f"{request.node.name}.png")
    page.close()
    assert not errors


@pytest.fixture
def shots(root) -> Path:
    folder = root / "test-output"
    folder.mkdir(exist_ok=True)
    return folder
