"""What all tests share: where the repository is, no network, and a browser or a reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that needs the Hub is a test of the Hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


def find_chromium() -> str:
    """The path of a Chromium. Without one: skip with the reason, but fail where CI=true, where a skip would go unseen."""
    names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    ]
    if named := os.environ.get("SDPO_LAB_CHROMIUM"):
        names = [named]
    for name in names:
        if path := shutil.which(name):
            return path
    reason = f"no Chromium found (looked for {', '.join(names)}); tools/install_chromium.sh says how to get one"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    return find_chromium()


@pytest.fixture(scope="module")
def one_thread():
    """Small matrices gain nothing from a second thread, and lose much where something else uses the cores; and equal to the
    last bit means equal only where a sum is always cut the same way."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
