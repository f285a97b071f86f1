"""A JupyterLab with a second kernel: both are offered, and python3 is still the environment's
own."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.browser.jupyterlab import server
from tests.browser.kernels import KERNELS, environment

pytestmark = pytest.mark.browser


def test_both_kernels_are_offered(tmp_path, root):
    with (
        server(tmp_path, root, **environment(*KERNELS)) as address,
        urllib.request.urlopen(address.format("api/kernelspecs"), timeout=30) as answer,
    ):
        offered = json.load(answer)
    assert offered["default"] == "python3" and set(KERNELS) <= set(offered["kernelspecs"])
    python = {name: Path(offered["kernelspecs"][name]["spec"]["argv"][0]) for name in KERNELS}
    assert "kernels" not in python["python3"].parts and python["python3"].name.startswith("python")
    assert python["ipykernel6"].is_relative_to(Path(sys.prefix) / "kernels" / "ipykernel6")
