"""What all tests share: one thread, no network, the small models, and a browser or a reason."""

from __future__ import annotations

import copy
import os
import random
import shutil
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that needs the Hub is a test of the Hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Equal to the last bit means equal only where a sum is always cut the same way. And small
    matrices gain nothing from a second thread, and lose much where the other core is in use."""
    import torch

    torch.set_num_threads(1)


# -- models


@pytest.fixture(scope="session")
def tiny_original():
    """(model, tokenizer): a random model that no test may change."""
    from tests.shared.models import random_tiny

    return random_tiny()


@pytest.fixture
def tiny(tiny_original):
    """(model, tokenizer): a copy of both, and Python's random numbers from the start.

    Of the tokenizer too: a test that sets its end token would else change those after it.
    """
    random.seed(0)
    return copy.deepcopy(tiny_original)


# -- runs on a thread


@pytest.fixture
def fake():
    """The class `FakeTrainer`."""
    from tests.shared.fake_trainer import FakeTrainer

    return FakeTrainer


@pytest.fixture
def until():
    """until(condition, seconds): wait for another thread; fails after `seconds`."""

    def wait(condition, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    return wait


# -- a browser


def find_chromium() -> str:
    """The path of a Chromium. Without one: skip with the reason; where CI=true, fail, for there a
    skip would go unseen."""
    named = os.environ.get("SDPO_LAB_CHROMIUM")
    names = [named] if named else CHROMIUM
    for name in names:
        if path := shutil.which(name):
            return path
    reason = (
        f"no Chromium found (looked for {', '.join(names)}); "
        "tools/install_chromium.sh says how to get one"
    )
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    return find_chromium()
