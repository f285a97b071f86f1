"""Be the teacher: the tokens of one attempt as buttons, and the ones you blame as a mask.

What a click does, Python can do too: `blame.blamed = [7]`, or `Blame(tokens, blamed=[7])` from the start.
"""

from __future__ import annotations

import html
import numbers
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from sdpo_lab.core.checks import shown
from sdpo_lab.views.page import source

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 1024  # more buttons than that nobody reads
HIDDEN = (
    "Cc",
    "Cf",
    "Co",
    "Cs",
    "Zl",
    "Zp",
    "Zs",
)  # characters that nobody can see, or that turn the line round; by category
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # and these, which look like nothing
BOX = "display:inline-block;margin:0 3px 4px 0;padding:1px 4px;border:1px solid rgba(128,128,128,.5);border-radius:4px;font-family:monospace;white-space:pre"
MARKED = ";border-color:#D55E00;background:rgba(213,94,0,.25);text-decoration:line-through;font-weight:700"


class Blame(anywidget.AnyWidget):
    """The tokens of an attempt as buttons that can be pressed; `blamed` holds the pressed ones and is synced both ways.

    tokens  1 to 1024 strings, such as `lab.credit(...).tokens`; shown literally, whatever they hold
    blamed  positions from 0 to T - 1 that are blamed at the start. Kept sorted, each once

    Keyboard: Tab to the row, arrow keys along it, space or Enter to press. Without a kernel the saved output shows the tokens as
    they were when the cell ran (from ipywidgets 8 on). Raises TypeError and ValueError for tokens and positions that are none;
    assigning such positions later raises TraitError and changes nothing.
    """

    _esm = source("dom.js", "blame.js")
    _css = source("blame.css")
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)  # the tokens as they are shown
    blamed = traitlets.List().tag(sync=True)  # `positions` says what may be in it

    def __init__(self, tokens: Sequence[str], blamed: Sequence[int] = ()) -> None:
        if not isinstance(tokens, (list, tuple)) or not all(isinstance(t, str) for t in tokens):
            raise TypeError(
                f"tokens must be a list of strings, such as lab.credit(...).tokens; got {shown(tokens)}"
            )
        if not 1 <= len(tokens) <= MOST_TOKENS:
            raise ValueError(f"tokens must be 1 to {MOST_TOKENS}; got {len(tokens)}")
        self.tokens = list(tokens)
        super().__init__(labels=[visible(t) for t in tokens], blamed=positions(blamed, len(tokens)))

    @traitlets.validate("blamed")
    def _check(self, proposal: Any) -> list[int]:
        try:
            return positions(proposal["value"], len(self.labels))
        except (
            TypeError,
            ValueError,
        ) as error:  # of all errors only this one makes traitlets keep the old value
            raise traitlets.TraitError(str(error)) from error

    @property
    def mask(self) -> torch.Tensor:
        """(T,) float32: 1 where a token is blamed, else 0."""
        import torch

        mask = torch.zeros(len(self.tokens))
        mask[self.blamed] = 1
        return mask

    def __repr__(self) -> str:
        return f"Blame({', '.join(f'{t}: {self.tokens[t]!r}' for t in self.blamed) or 'nothing'} of {len(self.tokens)} tokens)"

    def _repr_html_(self) -> str:
        """The tokens with the blamed ones marked, for where there is no kernel."""
        boxes = "".join(
            f'<span style="{BOX}{MARKED if t in self.blamed else ""}">{html.escape(label)}</span>'
            for t, label in enumerate(self.labels)
        )
        words = ", ".join(f"{self.labels[t]} (position {t})" for t in self.blamed) or "nothing"
        return (
            f'<div style="font-family:sans-serif;font-size:13px;max-width:900px"><div style="line-height:1.9">{boxes}</div>'
            f"<div>Blamed: {html.escape(words)}</div></div>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self._repr_html_()}, metadata


def positions(blamed: Any, count: int) -> list[int]:
    """`blamed` sorted, each once; TypeError and ValueError for what is no position among `count` tokens."""
    if isinstance(blamed, (str, numbers.Number)) or not isinstance(blamed, Iterable):
        raise TypeError(f"blamed must be a list of positions, such as [3]; got {shown(blamed)}")
    for t in blamed:
        if isinstance(t, bool) or not isinstance(t, numbers.Integral):
            raise TypeError(f"blamed must be whole numbers, positions of tokens; got {shown(t)}")
        if not 0 <= t < count:
            raise ValueError(
                f"blamed must be positions from 0 to {count - 1}, there are {count} tokens; got {shown(t)}"
            )
    return sorted({int(t) for t in blamed})


def visible(token: str) -> str:
    """A token as one can see it: spaces and line ends as signs, characters nobody could see as their codes."""
    marks = {" ": "·", "\n": "⏎", "\t": "⇥"}
    signs = [
        marks.get(c)
        or (f"\\u{ord(c):04x}" if unicodedata.category(c) in HIDDEN or c in BLANK else c)
        for c in token
    ]
    alone = bool(token) and unicodedata.category(token[0]).startswith(
        "M"
    )  # a combining mark whose letter is in the token before
    return "◌" * (alone or not token) + "".join(signs)
