"""Attempts that every test of a step may be given."""

from __future__ import annotations

import pytest

from tests.shared.steps import trainer


@pytest.fixture
def rollouts(tiny):
    """Two groups of four, judged, of different length."""
    found = trainer(tiny).sample(1)
    for r, n, reward in zip(found, (2, 12, 5, 12, 7, 3, 12, 9), (1, 0, 0, 1, 0, 0, 0, 1)):
        r.completion_ids, r.reward, r.feedback = r.completion_ids[:n], float(reward), f"{n} vowels"
    return found
