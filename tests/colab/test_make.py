"""What `make` runs at Colab's versions, and that it makes the kernels first."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make here")
SIDE_BY_SIDE = "-n 2 --dist loadfile --no-loadscope-reorder"
VIEWS = (
    f'.venv/kernels/colab/bin/python -m pytest {SIDE_BY_SIDE} -m "not slow" tests/live tests/views'
)
NBVAL = f"{SIDE_BY_SIDE} --nbval-lax --nbval-cell-timeout=600 --nbval-kernel-name=colab "
TWO = "notebooks/00_quickstart.ipynb notebooks/05_live_training.ipynb"


@pytest.mark.parametrize(
    "target, notebooks",
    [("test", TWO), ("test-full", "notebooks"), ("test-colab", "notebooks")],
)
def test_make_runs_at_colabs_versions(target, notebooks):
    printed = subprocess.run(
        ["make", "-n", "-W", "tools/kernels.py", target], cwd=ROOT, capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    lines = printed.stdout.splitlines()
    (here,) = [i for i, line in enumerate(lines) if line.endswith(NBVAL + notebooks)]
    assert lines[here].startswith(f'JUPYTER_PATH="{ROOT}/.venv/kernels/colab/share/jupyter" ')
    made = [
        lines.index(f".venv/bin/python tools/kernels.py {name}") for name in ("ipykernel6", "colab")
    ]
    assert max(made) < lines.index(VIEWS) < here
    tests = [i for i, line in enumerate(lines) if "--nbval-current-env" in line]
    assert all(max(made) < i < here for i in tests) and bool(tests) == (target != "test-colab")
