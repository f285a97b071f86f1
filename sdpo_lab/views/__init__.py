"""The room that may import widgets and plotly. Everything is loaded when it is first asked for."""

from __future__ import annotations

import importlib
from typing import Any

from sdpo_lab.analysis import credit

_WHERE = {
    "Dashboard": "views.dashboard",
    "LiveRun": "live.run",
    "Chart": "views.charts",
    "Line": "views.charts",
    "Bars": "views.charts",
    "compare": "views.comparison",
    "smooth": "views.charts",
    "curve": "views.curves",
    "TokenView": "views.tokens",
    "token_view": "views.tokens",
    "GroupView": "views.groups",
    "group_view": "views.groups",
    "Playground": "views.playground",
    "Blame": "views.blame",
    "Rewind": "views.rewind",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(
            f"module 'sdpo_lab.views' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(f"sdpo_lab.{_WHERE[name]}"), name)


def _credit_html(shown: credit.Credit) -> str:
    return __getattr__("token_view")(shown)._repr_html_()


credit.html_of = _credit_html  # so that a credit shows itself as the token view


def __dir__() -> list[str]:
    return __all__
