"""An install on Colab adds sdpo_lab and changes nothing of Colab's own: the declared ranges against
the versions Colab has."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.browser.kernels import TOOL
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = [Requirement(r) for r in PROJECT["dependencies"] + EXTRAS["widgets"]]
LINES = [
    line
    for line in (ROOT / "tests" / "colab" / "versions.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
COLAB = {canonicalize_name(name): version for name, version in (line.split("==") for line in LINES)}


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda r: r.name)
def test_colab_has_what_is_needed(requirement):
    """Every one of them, in the range: so pip has nothing to fetch there, nothing to replace, and
    the needs of needs play no part."""
    name = canonicalize_name(requirement.name)
    assert name in COLAB, f"Colab does not have {requirement}"
    assert COLAB[name] in requirement.specifier, (
        f"Colab has {name} {COLAB[name]}, pyproject.toml wants {requirement.specifier}"
    )


def test_widgets_are_the_notebooks_without_the_house():
    assert [r for r in EXTRAS["notebooks"] if r not in EXTRAS["widgets"]] == ["jupyterlab>=4.2"]
    assert set(EXTRAS["widgets"]) < set(EXTRAS["notebooks"])


def test_the_second_environment_has_colabs_versions():
    own = {canonicalize_name(name): version for name, version in TOOL["pinned"]("colab").items()}
    assert own == {name: COLAB[name] for name in own}
    issue = {
        "ipykernel": "6.17.1",
        "ipython": "7.34.0",
        "ipywidgets": "7.7.1",
        "plotly": "5.24.1",
        "anywidget": "0.9.21",
    }
    assert {name: own[name] for name in issue} == issue
    assert not {canonicalize_name(r.name) for r in NEEDED} - set(own) - {"torch"}, (
        "all that sdpo_lab needs stands there at Colab's version, torch aside"
    )


@pytest.mark.parametrize("name", ["colab", "ipykernel6"])
def test_constraints_of_a_kernel_are_exact_and_sorted(name):
    lines = [
        line
        for line in (ROOT / f"constraints-{name}.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines), lines
    assert lines == sorted(lines, key=str.lower)


# -- the same asked of pip itself


def distribution(folder: Path, name: str, version: str) -> None:
    """An installed package as pip sees it: its name and version, nothing in it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("")


@pytest.fixture(scope="module")
def hollow(tmp_path_factory) -> Path:
    """The Python of an environment that holds Colab's packages in name only."""
    home = tmp_path_factory.mktemp("colab")
    venv.create(home, symlinks=os.name != "nt", with_pip=False)
    folder = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    for name, version in COLAB.items():
        distribution(folder, name, version)
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of what pyproject.toml declares, without the package: it is for the resolver
    alone."""
    folder = tmp_path_factory.mktemp("wheel")
    with contextlib.chdir(ROOT):
        info = importlib.import_module("hatchling.build").prepare_metadata_for_build_wheel(
            str(folder)
        )
    name, version = info.removesuffix(".dist-info").split("-")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((folder / info).rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def resolve(python: Path, asked: str, home: Path) -> subprocess.CompletedProcess:
    """What pip would install for `asked`, from nothing but this machine: whatever else it wanted,
    it would fail to find."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))} | {
        "PIP_CONFIG_FILE": os.devnull,
        "HOME": str(home),
    }
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "--disable-pip-version-check",
            "install",
            "--dry-run",
            "--no-index",
            "--quiet",
            "--report",
            "-",
            asked,
        ],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_pip_would_add_this_package_and_nothing_else(hollow, wheel, tmp_path):
    done = resolve(hollow, f"{wheel}[widgets]", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [p["metadata"]["name"] for p in json.loads(done.stdout)["install"]] == [PROJECT["name"]]


def test_the_resolver_would_notice(hollow, wheel, tmp_path):
    """The other half of the proof: with JupyterLab, which Colab does not have, the same call fails
    for want of it."""
    done = resolve(hollow, f"{wheel}[notebooks]", tmp_path)
    assert done.returncode == 1 and "jupyterlab>=4.2" in done.stderr
