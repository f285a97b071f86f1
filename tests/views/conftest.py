"""A dashboard on a trainer without a model."""

from __future__ import annotations

import json

import pytest

from sdpo_lab.views import Dashboard


@pytest.fixture
def dashboard(fake, monkeypatch):
    """dashboard(steps=..., **fake trainer): a Dashboard whose messages land in its `.sent`, as JSON
    that must be valid."""

    def build(steps: int = 5, seconds_between_news: float = 1.0, **trainer) -> Dashboard:
        dash = Dashboard(fake(**trainer), steps, seconds_between_news, evaluate_every=0)
        dash.sent = []
        monkeypatch.setattr(
            dash,
            "send",
            lambda m: dash.sent.append(
                json.loads(json.dumps(m, allow_nan=False, ensure_ascii=False).encode())
            ),
        )
        return dash

    return build
