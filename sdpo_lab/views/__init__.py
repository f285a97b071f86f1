"""The rooms that may import widget and plotting libraries. Everything here is loaded when it is first asked for."""

from __future__ import annotations

import importlib
from typing import Any

from sdpo_lab.analysis import credit

_WHERE = {
    "Dashboard": "dashboard",
    "LiveRun": "sdpo_lab.live.run",
    "Chart": "charts",
    "Line": "charts",
    "Bars": "charts",
    "compare": "comparison",
    "smooth": "charts",
    "curve": "curves",
    "TokenView": "tokens",
    "token_view": "tokens",
    "GroupView": "groups",
    "group_view": "groups",
    "Playground": "playground",
    "Blame": "blame",
    "Rewind": "rewind",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(
            f"module 'sdpo_lab.views' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(
        importlib.import_module(
            f"sdpo_lab.views.{_WHERE[name]}" if name != "LiveRun" else _WHERE[name]
        ),
        name,
    )


def _credit_html(shown: credit.Credit) -> str:
    return importlib.import_module("sdpo_lab.views.tokens").token_view(shown)._repr_html_()


credit.html_of = _credit_html  # so that a credit shows itself as the token view


def __dir__() -> list[str]:
    return __all__
