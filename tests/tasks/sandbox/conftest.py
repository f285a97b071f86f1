"""A sandbox, and a server of ours that nobody may reach."""

from __future__ import annotations

import socket

import pytest

from sdpo_lab.tasks.sandbox import (
    Sandbox,
)


@pytest.fixture(scope="module")
def box():
    with Sandbox(seconds=0.5, workers=2, allow_weak=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        yield listening.getsockname()[1]
        with pytest.raises(BlockingIOError):  # nobody ever came
            listening.accept()
