"""HTML of texts that may hold anything: every text is escaped, and no page needs the network."""

from __future__ import annotations

import html
import json
import secrets
import unicodedata
from pathlib import Path
from typing import Any

from sdpo_lab.core.checks import check_kind, short_repr
from sdpo_lab.views.page import bundle, style

#: Characters that nobody can see, or that turn the line round: by category, and one by one.
HIDDEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs")
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
#: Of pictures without scripts, as red, green, blue: colour-blind safe, read on white and on black.
BLUE, ORANGE, GREEN = "0,114,178", "213,94,0", "0,158,115"

SMALL = "font-family:sans-serif;font-size:13px"
PAGE_STYLE = """body { margin: 16px; background: #fff; color: #1c2430 }
@media (prefers-color-scheme: dark) { body { background: #0f1216; color: #e6eaf0 } }"""
VIEWPORT = "width=device-width, initial-scale=1"


class Html(str):
    """A piece of HTML that may stand as it is. Every other string is a text."""

    __slots__ = ()


def storable(text: Any) -> str:
    """As a text that a file can hold: half of a surrogate pair becomes its code."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def escape(text: Any, quote: bool = False) -> Html:
    """A text as HTML; with `quote` as the value of an attribute too."""
    return Html(html.escape(storable(text), quote))


def joined(*pieces: str) -> Html:
    """Pieces one after the other; those that are no `Html` are texts."""
    return Html("".join(p if isinstance(p, Html) else escape(p) for p in pieces))


def tag(name: str, *inside: str, **attributes: Any) -> Html:
    """An element. `_` in the name of an attribute stands for `-`, and is dropped at its end."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value, quote=True)}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{words}>{joined(*inside)}</{name}>")


def is_hidden(character: str) -> bool:
    """Can nobody see it, or does it turn the line round? The space is not among them."""
    if character == " ":
        return False
    return unicodedata.category(character) in HIDDEN or character in BLANK


def literal(text: str, line_end: str = "⏎\n", space: str = " ") -> str:
    """A text as one can see it: signs for what has one, codes for what nobody could see.

    A combining mark at its start, whose letter stands before it, gets a circle to stand on.
    """
    signs = {" ": space, "\n": line_end, "\t": "⇥"}
    seen = [signs.get(c) or (f"\\u{ord(c):04x}" if is_hidden(c) else c) for c in text]
    alone = text and unicodedata.category(text[0]).startswith("M")
    return "◌" * bool(alone) + "".join(seen)


def visible(text: str, mark: str = "⏎") -> Html:
    """`literal` as HTML, with `mark` at the ends of lines; as `literal` of dom.js draws it."""
    return Html(html.escape(literal(text, f"{mark}\n")))


def coloured_span(text: Html, colour: str, strength: float) -> Html:
    """A text on a colour, whose style stands in it, where sanitisers leave it."""
    return Html(f'<span style="background:rgba({colour},{strength:.2f})">{text}</span>')


def fragment(inside: Html, data: Any, module: str) -> Html:
    """A piece of HTML: `inside` where no script runs, else what a module of `static/` draws.

    Its `draw` finds the place by the id (in JupyterLab a script has no place of its own), and
    draws every copy of it there is, each once.
    """
    place = f"sdpo-{secrets.token_hex(6)}"
    # ASCII without "<", so that no character can do anything else
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Html(
        f'<div id="{place}">{inside}<script type="application/json">{text}</script></div>'
        f'<style>{style("token_view")}</style><script>{bundle(module)}.draw("{place}");</script>'
    )


def document(inside: Html, title: str) -> Html:
    """A whole page that needs no network and no kernel."""
    return Html(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="{VIEWPORT}">'
        f"<title>{visible(title)}</title><style>{PAGE_STYLE}</style></head>\n"
        f"<body><main>{inside}</main></body></html>\n"
    )


def write_page(path: str | Path, page: str) -> Path:
    """Write a page to the file at `path`, and return that."""
    check_kind("path", path, (str, Path), "the path of the file to write, such as 'view.html'")
    path = Path(path)
    if path == Path() or path.is_dir():
        raise ValueError(
            "path must be the path of a file, such as 'view.html', and "
            f"{short_repr(str(path))} is a folder"
        )
    path.write_text(page, encoding="utf-8")
    return path


class Saved:
    """What has a `_repr_html_` and a `title` can be a page of its own, and a file."""

    page_title = ""

    def page(self) -> str:
        """A whole HTML document that needs no network and no kernel."""
        return document(self._repr_html_(), self.page_title)

    def save(self, path: str | Path) -> Path:
        """Write `page()` to a file and return its path.

        Raises TypeError or ValueError for what is no file's path, OSError where it cannot be
        written.
        """
        return write_page(path, self.page())


class WithPicture:
    """A widget whose `_repr_html_` stands in its saved output, for where there is no kernel."""

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self._repr_html_()}, metadata
