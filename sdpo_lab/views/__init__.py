"""The rooms that may import widget and plotting libraries. Everything here is loaded when it is first asked for."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {"Dashboard": "dashboard", "LiveRun": "live", "Chart": "charts", "Line": "charts", "Bars": "charts", "compare": "comparison", "smooth": "charts", "curve": "curves",
          "TokenView": "tokens", "token_view": "tokens", "GroupView": "groups", "group_view": "groups", "Playground": "playground", "Blame": "blame", "Rewind": "rewind"}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sdpo_lab.views' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"sdpo_lab.views.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
