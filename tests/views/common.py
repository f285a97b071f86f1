"""A dashboard on a trainer without a model, and a question as its page would ask."""

from __future__ import annotations

from sdpo_lab.views import Dashboard

HOSTILE = "</script><img src=x onerror=alert(1)>\n\u202egnp.exe\x00\ud83d<|im_end|>"


def tell(dash: Dashboard, kind: str, since: int = 0, seen: int = -1, **more) -> dict:
    dash._on_message(dash, {"kind": kind, "since": since, "seen": seen, **more}, [])
    return dash.sent[-1]


def answer(dash, kind):
    """The last answer of a kind that takes longer than a question may: sent with that question when
    it was fast, else with a later one."""
    tell(dash, "tick")
    return [message for message in dash.sent if message["kind"] == kind][-1]
