"""Attempts as running text, every token coloured by what student and self-teacher think of it.

One piece of HTML that needs nothing else. `token_data` makes plain data of a credit, and
`token_view.js` draws it. Where no script runs, in a mail, an untrusted notebook or a viewer of
files, a plain coloured text stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sdpo_lab.analysis.credit import Credit
from sdpo_lab.core.checks import check_kind, short_repr
from sdpo_lab.views.html import (
    BLUE,
    GREEN,
    ORANGE,
    SMALL,
    Html,
    Saved,
    coloured_span,
    fragment,
    joined,
    tag,
    visible,
)
from sdpo_lab.views.token_data import page_data, values, view_data

SIGNED = ("advantage", "oracle")
CREDIT = "credits must be a Credit, as lab.credit returns, or a list of them"


class TokenView(Saved):
    """One attempt or several on one scale.

    In a notebook its repr; `page()` is a whole document, `save(path)` writes it.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data  #: what the page knows, see `page_data`

    @property
    def page_title(self) -> str:
        return "Tokens of " + (self.data["attempts"][0]["title"] or "an attempt")

    def _repr_html_(self) -> str:
        return fragment(static_view(self.data), self.data, "token_view")

    def __repr__(self) -> str:
        sizes = [len(a["tokens"]) for a in self.data["attempts"]]
        attempts = f"{len(sizes)} attempt{'s' * (len(sizes) > 1)}"
        return f"TokenView({attempts}, {sum(sizes)} tokens, by {self.data['color_by']})"


def token_view(
    credits: Credit | Sequence[Credit],
    *,
    titles: str | Sequence[str] | None = None,
    color_by: str = "advantage",
    scale: float | None = None,
    k: int = 8,
) -> TokenView:
    """The token view of one `Credit`, or of several, one above the other on one scale.

    titles    a line above each attempt; for a single one a string will do
    color_by  what colours the tokens at first: "advantage", "divergence", "student", "teacher"
              (their probabilities), "student entropy", "teacher entropy", or "oracle" (the
              teacher's log-probability minus the oracle's); the reader can switch
    scale     nats, 0.01 to 100, at which the colour of a log-ratio is full. Give several views the
              same one to compare them. None: 1, 2, 3, 5, 7 or 10, so that 97 in 100 of the values
              lie within; one alone widens it to 5 at most
    k         alternatives kept of each role at every position, 1 to 64

    Raises TypeError for what is no Credit, ValueError for an empty list, an unknown colouring, and
    unless there are as many titles as attempts.
    """
    if not isinstance(credits, (Credit, list, tuple)):
        raise TypeError(f"{CREDIT}; got {short_repr(credits)}")
    if not isinstance(credits, Credit) and not credits:
        raise ValueError(
            f"there is no attempt to show: credits must hold one or more; got {short_repr(credits)}"
        )
    listed = [credits] if isinstance(credits, Credit) else list(credits)
    for credit in listed:
        if not isinstance(credit, Credit):
            raise TypeError(f"{CREDIT}; got {type(credit).__name__}: {short_repr(credit)}")
    titles = checked_titles(titles, len(listed))
    attempts = [view_data(c, k, title) for c, title in zip(listed, titles)]
    return TokenView(page_data(attempts, color_by, scale))


def checked_titles(titles: str | Sequence[str] | None, count: int) -> list[str]:
    """A title for each of `count` attempts."""
    allowed = (str, list, tuple, type(None))
    check_kind("titles", titles, allowed, "a string, a list of one for each attempt, or None")
    if titles is None:
        return [""] * count
    listed = [titles] if isinstance(titles, str) else list(titles)
    if len(listed) != count:
        raise ValueError(
            f"titles must be one for each attempt: there are {count} attempts and "
            f"{len(listed)} titles, {short_repr(listed)}"
        )
    for title in listed:
        check_kind("titles", title, str, "strings, one for each attempt")
    return listed


def static_view(data: dict[str, Any]) -> Html:
    """The view without scripts: coloured text and a line that says what the colours mean."""
    parts = []
    for attempt in data["attempts"]:
        if attempt["title"]:
            title = visible(attempt["title"], "")
            parts.append(tag("div", title, style="font-weight:600;padding:4px 0"))
        text = "font-family:monospace;white-space:pre-wrap;line-height:1.7"
        parts.append(tag("div", coloured(attempt, data), style=text))
    return tag("div", *parts, tag("div", legend(data), style="padding:4px 0"), style=SMALL)


def full_at(data: dict[str, Any]) -> float:
    """The value at which the colour of the chosen quantity is full."""
    name = data["color_by"]
    if name in ("student", "teacher"):
        return 1.0
    return data["limits"]["entropy" if "entropy" in name else name]


def coloured(attempt: dict[str, Any], data: dict[str, Any]) -> Html:
    """One attempt as coloured text."""
    name, most, spans = data["color_by"], full_at(data), []
    for t, token in enumerate(attempt["tokens"]):
        partial = attempt["partial"].get(str(t))
        text = visible(token) if partial is None else joined(f"<{partial}>")
        value = values(attempt, name, t)
        strength = 0.0 if value != value else min(abs(value) / most, 1.0) * 0.55
        colour = GREEN if name not in SIGNED else BLUE if value > 0 else ORANGE
        spans.append(coloured_span(text, colour, strength) if strength >= 0.02 else text)
    return joined(*spans)


def legend(data: dict[str, Any]) -> Html:
    """What the colours of `coloured` mean, in a line."""
    name, most = data["color_by"], full_at(data)
    ends = {
        "advantage": ("the teacher lowers it", "raises it"),
        "oracle": ("the teacher below the oracle", "above"),
    }
    if name in ends:
        low, high = ends[name]
        lowest = coloured_span(Html(f"−{most:g}"), ORANGE, 0.55)
        highest = coloured_span(Html(f"+{most:g}"), BLUE, 0.55)
        return joined(f"{low} ", lowest, " 0 ", highest, f" {high}, in nats")
    unit = "probability" if name in ("student", "teacher") else "nats"
    return joined(f"{name}: 0 ", coloured_span(Html(f"{most:g}"), GREEN, 0.55), f" {unit}")
