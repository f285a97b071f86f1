"""The core's random model of 40 thousand weights, and disks that are full or cannot be written."""

import signal
import subprocess

import pytest


@pytest.fixture(autouse=True)
def interruptible():
    """SIGINT as in a terminal: a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def mount(tmp_path):
    """mount(options): a folder that is a file system of its own. Skips where mounting is not
    allowed."""
    mounted = []

    def make(options: str):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    try:
        yield make
    finally:
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)
