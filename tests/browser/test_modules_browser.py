"""The scripts of the views as modules: as they stand, and as an output carries them."""

from __future__ import annotations

import pytest

from sdpo_lab.views.html import Html, fragment, tag
from sdpo_lab.views.page import STATIC, bundle

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

NAMES = sorted(path.stem for path in STATIC.glob("*.js"))
ADDRESS = "http://modules.test/"


@pytest.fixture
def site(page):
    """site(html, rules): a page of that text beside the modules, with those rules for scripts."""

    def open_page(text: str, rules: str = ""):
        headers = {"Content-Security-Policy": rules} if rules else {}

        def answer(route, request):
            name = request.url.removeprefix(ADDRESS)
            script = (STATIC / name).is_file() and name.endswith(".js")
            body = (STATIC / name).read_text(encoding="utf-8") if script else text
            kind = "text/javascript" if script else "text/html; charset=utf-8"
            route.fulfill(body=body, content_type=kind, headers=headers)

        page.route(ADDRESS + "**", answer)
        page.goto(ADDRESS)
        return page

    return open_page


def test_every_module_loads_as_it_stands_and_exports_what_its_bundle_has(site):
    page = site("<!DOCTYPE html><title>modules</title>")
    for name in NAMES:
        load = "async (name) => Object.keys(await import(`/${name}.js`)).sort()"
        exported = page.evaluate(load, name)
        assert exported == page.evaluate(f"Object.keys({bundle(name)}).sort()"), name


def test_an_output_is_drawn_where_only_inline_scripts_are_allowed(site):
    """Chromium refuses modules at data: and blob: URLs there, which is why there are bundles."""
    row = tag("tr", tag("td", "0", class_="number"), data_view=0)
    text = fragment(tag("table", row), {"attempts": [{}]}, "group_view")
    page = site(Html(f"<!DOCTYPE html><body>{text}</body>"), "script-src 'unsafe-inline'")
    assert page.get_by_role("button", name="attempt 0, token by token").count() == 1
