"""Be the teacher: the tokens of one attempt as buttons, and the ones you blame as a mask.

What a click does, Python can do too: `blame.blamed = [7]`, or `Blame(tokens, blamed=[7])` from
the start.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from sdpo_lab.core.checks import short_repr
from sdpo_lab.views.html import SMALL, Html, WithPicture, literal, tag
from sdpo_lab.views.page import style, widget

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 1024  # more buttons than that nobody reads
BOX = (
    "display:inline-block;margin:0 3px 4px 0;padding:1px 4px;border-radius:4px;"
    "border:1px solid rgba(128,128,128,.5);font-family:monospace;white-space:pre"
)
MARKED = (
    ";border-color:#D55E00;background:rgba(213,94,0,.25);text-decoration:line-through;"
    "font-weight:700"
)


class Blame(WithPicture, anywidget.AnyWidget):
    """The tokens of an attempt as buttons; `blamed` holds the pressed ones, synced both ways.

    tokens  1 to 1024 strings, such as `lab.credit(...).tokens`; shown literally
    blamed  positions from 0 to T - 1 that are blamed at the start. Kept sorted, each once

    Keyboard: Tab to the row, arrow keys along it, space or Enter to press. Without a kernel the
    saved output shows the tokens as they were when the cell ran (from ipywidgets 8 on). Raises
    TypeError and ValueError for other tokens and positions; assigning other positions later raises
    TraitError and changes nothing.
    """

    _esm = widget("blame")
    _css = style("blame")
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)  # the tokens as they are shown
    blamed = traitlets.List().tag(sync=True)  # `positions` says what may be in it

    def __init__(self, tokens: Sequence[str], blamed: Sequence[int] = ()) -> None:
        if not isinstance(tokens, (list, tuple)) or not all(isinstance(t, str) for t in tokens):
            raise TypeError(
                "tokens must be a list of strings, such as lab.credit(...).tokens; "
                f"got {short_repr(tokens)}"
            )
        if not 1 <= len(tokens) <= MOST_TOKENS:
            raise ValueError(f"tokens must be 1 to {MOST_TOKENS}; got {len(tokens)}")
        self.tokens = list(tokens)
        super().__init__(labels=[visible(t) for t in tokens], blamed=positions(blamed, len(tokens)))

    @traitlets.validate("blamed")
    def _check(self, proposal: Any) -> list[int]:
        try:
            return positions(proposal["value"], len(self.labels))
        except (TypeError, ValueError) as error:
            # of all errors only this one makes traitlets keep the old value
            raise traitlets.TraitError(str(error)) from error

    @property
    def mask(self) -> torch.Tensor:
        """(T,) float32: 1 where a token is blamed, else 0."""
        import torch

        mask = torch.zeros(len(self.tokens))
        mask[self.blamed] = 1
        return mask

    def __repr__(self) -> str:
        blamed = ", ".join(f"{t}: {self.tokens[t]!r}" for t in self.blamed) or "nothing"
        return f"Blame({blamed} of {len(self.tokens)} tokens)"

    def _repr_html_(self) -> Html:
        """The tokens with the blamed ones marked, for where there is no kernel."""
        boxes = [
            tag("span", label, style=BOX + MARKED * (t in self.blamed))
            for t, label in enumerate(self.labels)
        ]
        words = ", ".join(f"{self.labels[t]} (position {t})" for t in self.blamed) or "nothing"
        row = tag("div", *boxes, style="line-height:1.9")
        return tag("div", row, tag("div", f"Blamed: {words}"), style=f"{SMALL};max-width:900px")


def positions(blamed: Any, count: int) -> list[int]:
    """`blamed` sorted, each once. Raises unless they are positions among `count` tokens."""
    if isinstance(blamed, (str, numbers.Number)) or not isinstance(blamed, Iterable):
        raise TypeError(
            f"blamed must be a list of positions, such as [3]; got {short_repr(blamed)}"
        )
    for t in blamed:
        if isinstance(t, bool) or not isinstance(t, numbers.Integral):
            raise TypeError(
                f"blamed must be whole numbers, positions of tokens; got {short_repr(t)}"
            )
        if not 0 <= t < count:
            raise ValueError(
                f"blamed must be positions from 0 to {count - 1}, there are {count} tokens; "
                f"got {short_repr(t)}"
            )
    return sorted({int(t) for t in blamed})


def visible(token: str) -> str:
    """A token as one can see it: spaces and line ends as signs, "◌" for an empty one."""
    return literal(token, line_end="⏎", space="·") or "◌"
