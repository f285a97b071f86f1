"""What nobody reads fails a test all the same: an exception on a thread, and one in a finaliser."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

ON_A_THREAD = """
import threading
def test_it():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
"""
IN_A_FINALISER = """
import gc
class Broken:
    def __del__(self):
        raise ValueError("in __del__")
def test_it():
    Broken()
    gc.collect()
"""


@pytest.mark.parametrize(
    "code, cause",
    [
        (ON_A_THREAD, "PytestUnhandledThreadExceptionWarning"),
        (IN_A_FINALISER, "PytestUnraisableExceptionWarning"),
    ],
    ids=["thread", "finaliser"],
)
def test_an_exception_nobody_reads_fails_the_test(code, cause, tmp_path):
    (tmp_path / "test_it.py").write_text(code)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            str(ROOT / "pyproject.toml"),
            "--rootdir",
            str(tmp_path),
            str(tmp_path / "test_it.py"),
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1 and "1 failed" in run.stdout and cause in run.stdout, run.stdout[
        -3000:
    ]
