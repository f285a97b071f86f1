"""The kernels besides the environment's own, which `make test` puts into .venv/kernels
(tools/kernels.py), and how Jupyter comes to know them."""

from __future__ import annotations

import os
import runpy

import pytest

from tests.conftest import ROOT

TOOL = runpy.run_path(str(ROOT / "tools" / "kernels.py"))
#: The kernels a page must work with: the environment's own, with subshells, and the last one
#: without.
KERNELS = ("python3", "ipykernel6")


def need(*names: str) -> None:
    """Return when these kernels are there; python3 always is. Else skip with the reason, or fail
    where CI=true, where a skip would go unseen."""
    for name in names:
        if name != "python3" and not TOOL["stamp"](name).exists():
            reason = f"no kernel {name!r} in {TOOL['home'](name)}; `make kernels` puts it there"
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(reason)
            pytest.skip(reason)


def environment(*names: str) -> dict[str, str]:
    """What the environment of a Jupyter server must hold beyond `os.environ` to offer `names`
    besides its own python3; skips or fails as `need` does."""
    need(*names)
    paths = [str(TOOL["share"](name)) for name in names if name != "python3"]
    return {
        "JUPYTER_PATH": os.pathsep.join(
            p for p in (*paths, os.environ.get("JUPYTER_PATH", "")) if p
        )
    }
