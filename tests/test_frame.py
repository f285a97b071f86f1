"""The frame around the package: one truth for versions and addresses, a light import, nothing of a
machine in a file."""

from __future__ import annotations

import ast
import importlib.metadata
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sdpo_lab._repo import REPO_URL
from sdpo_lab._version import __version__
from tests.conftest import ROOT, find_chromium

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = {
    canonicalize_name(r.name): r
    for r in map(
        Requirement,
        PROJECT["dependencies"] + EXTRAS["notebooks"] + EXTRAS["tasks"] + EXTRAS["tests"],
    )
}
CONSTRAINTS = [
    line
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
PINNED = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1]
    for line in CONSTRAINTS
    if "==" in line
}
# torch brings them on machines with a GPU; setuptools belongs to the environment
OF_THE_MACHINE = re.compile(r"(nvidia|cuda|triton|setuptools|pip)\b")


def files() -> list[Path]:
    """Every text file that is, or is about to be, in the repository."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [
            p
            for p in ROOT.rglob("*")
            if not {".venv", "build", "dist", "__pycache__"} & set(p.parts)
        ]
    return [
        p for p in paths if p.is_file() and p.suffix not in (".png", ".safetensors", ".gif", ".pyc")
    ]


def test_constraints_are_exact_versions_and_nothing_else():
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert CONSTRAINTS == sorted(CONSTRAINTS, key=str.lower)
    assert len(PINNED) == len(CONSTRAINTS)


@pytest.mark.parametrize("name", DIRECT)
def test_constraints_lie_in_the_ranges(name):
    assert name in PINNED, f"{name} is missing in constraints.txt"
    assert PINNED[name] in DIRECT[name].specifier, (
        f"constraints.txt has {name} {PINNED[name]}, pyproject.toml wants {DIRECT[name].specifier}"
    )


def test_constraints_hold_all_that_the_direct_ones_need():
    seen, todo = set(), [(name, tuple(r.extras)) for name, r in DIRECT.items()]
    missing = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen or OF_THE_MACHINE.match(name):
            continue
        seen.add((name, extras))
        if name not in PINNED:
            missing.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an environment of one's own need not hold everything
        for r in map(Requirement, requires):
            if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in ("", *extras)):
                todo.append((canonicalize_name(r.name), tuple(r.extras)))
    assert not missing, f"constraints.txt lacks {', '.join(sorted(missing))}"


def test_environment_yml_describes_the_same_set():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"] and "conda-forge" in environment["channels"]
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert "--constraint constraints.txt" in pip and "--editable ." in pip
    listed = dict(line.split("==") for line in pip if not line.startswith("--"))
    compiled = {
        canonicalize_name(Requirement(r).name) for r in EXTRAS["tasks"]
    }  # needs a C compiler, so it is not part of all
    assert listed == {name: PINNED[name] for name in DIRECT if name not in compiled}
    (python,) = [d.split("=")[1] for d in conda if d.startswith("python=")]
    assert f"{python}.99" in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_extras():
    assert EXTRAS["all"] == [f"{PROJECT['name']}[notebooks,tests]"]
    core = {canonicalize_name(Requirement(r).name) for r in PROJECT["dependencies"]}
    assert not core & {"plotly", "ipywidgets", "anywidget", "jupyterlab"}, (
        "the core knows no notebook"
    )
    assert str(DIRECT["nbval"].specifier) == "==0.11.0"


def test_one_version():
    import sdpo_lab

    assert sdpo_lab.__version__ == __version__
    assert (
        f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
        or "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
    )


def test_one_address():
    """Badges, install cells and project links all name REPO_URL; a fork changes one constant and
    sees the rest here."""
    owner_and_name = REPO_URL.removeprefix("https://github.com/")
    assert all(url.startswith(REPO_URL) for url in PROJECT["urls"].values())
    for path in files():
        if path.suffix not in (".md", ".py", ".ipynb", ".toml", ".yml", ".cff"):
            continue
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"github(?:\.com)?/([\w-]+/sdpo[-_]lab)\b", text):
            assert found == owner_and_name, f"{path.relative_to(ROOT)} names {found}"
        for found in re.findall(r"colab\.research\.google\.com/github/([\w-]+/[\w-]+)", text):
            assert found == owner_and_name, f"{path.relative_to(ROOT)} opens {found} in Colab"


def test_no_file_knows_the_machine_it_was_made_on():
    # in two parts, so that this file does not find itself
    marks = [
        a + b
        for a, b in (
            ("/wo", "rk/"),
            ("/opt/", "pypi"),
            ("/opt/", "wheels"),
            ("index", "-url"),
            ("find", "-links"),
            ("trusted", "-host"),
        )
    ]
    found = [
        f"{p.relative_to(ROOT)}: {mark}"
        for p in files()
        for mark in marks
        if mark in p.read_text(encoding="utf-8", errors="replace")
    ]
    assert not found


def test_readme_names_only_what_is_there():
    readme = (ROOT / "README.md").read_text()
    tree = re.search(r"```text\n(.*?)```", readme, re.S)[1]
    folder, missing = "", []
    for line in filter(str.strip, tree.splitlines()):
        if line.startswith(" " * 10):  # goes on with the line before
            continue
        name = line.split()[0]
        path = name if not line.startswith(" ") else folder + name
        folder = name if not line.startswith(" ") else folder
        if not (ROOT / path).exists():
            missing.append(path)
    assert not missing
    links = [link for link in re.findall(r"\]\(([^)#]+)", readme) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_code_runs_on_names_that_exist():
    import sdpo_lab as lab

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "lab"
            ):
                assert hasattr(lab, node.attr), f"README uses lab.{node.attr}"


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize(
    "target",
    [
        "lab",
        "test",
        "test-full",
        "test-colab",
        "kernels",
        "lint",
        "notebooks",
        "small-models",
        "clean",
    ],
)
def test_make_knows_its_targets(target):
    printed = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    if target in ("test", "test-full"):
        for part in (
            "ruff check",
            "install_chromium.sh",
            "pytest",
            "--nbval-lax",
            "--nbval-cell-timeout=600",
            "-n 2 --dist loadfile",
            "notebooks tests",
        ):
            assert part in printed.stdout, part


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize(
    "target, never", [("test", {"slow"}), ("test-full", set())], ids=["test", "test-full"]
)
def test_every_mark_is_run_by_exactly_one_of_the_two_stages(target, never):
    """Side by side, then alone: between them they leave out nothing but what is slow."""
    from _pytest.mark.expression import Expression

    printed = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    stages = re.findall(r'--nbval-current-env .*?-m "(.*?)" (.*)', printed.stdout)
    assert [paths for _, paths in stages] == ["notebooks tests", "tests"]
    for marks in itertools.chain.from_iterable(
        itertools.combinations(("slow", "browser", "timing", "notebook"), k) for k in range(5)
    ):
        runs = [
            Expression.compile(words).evaluate(lambda m, **_: m in marks) for words, _ in stages
        ]
        assert sum(runs) == (0 if never & set(marks) else 1), marks


def test_ci_runs_make_test_and_nothing_cleverer():
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert (
        script[0].startswith("#!")
        and "set -e" in script
        and script[-1] == "make test"
        and len(script) <= 5
    )


def test_a_missing_browser_is_a_skip_at_home_and_a_failure_in_ci(monkeypatch):
    monkeypatch.setenv("SDPO_LAB_CHROMIUM", "/nowhere/chromium")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="/nowhere/chromium.*install_chromium.sh"):
        find_chromium()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="/nowhere/chromium"):
        find_chromium()


LIGHT_IMPORT = """
import json, socket, sys
def refuse(*arguments, **keywords):
    raise AssertionError("the import of sdpo_lab opened a connection")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
import sdpo_lab
heavy = ("plotly", "ipywidgets", "anywidget", "IPython", "matplotlib")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""


def test_the_import_is_light():
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    run = subprocess.run(
        [sys.executable, "-c", LIGHT_IMPORT],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []


#: Lines of code (no blanks, comments, docstrings) of what a step touches. `config.py` is counted
#: apart: it is a table of settings with what is known of each beside it.
CORE, CONFIG = 2_010, 500
#: All lines of Python, JavaScript and CSS. The design asks for 17,000; a formatter that puts one
#: argument a line, and docstrings at 100 columns, take more (docs/architecture.md has the numbers).
PACKAGE = 21_100


def test_the_core_stays_small_enough_to_read():
    count = runpy.run_path(str(ROOT / "tools" / "lines.py"))["count"]
    lines = count(ROOT / "sdpo_lab" / "core")
    config = sum(n for path, n in lines.items() if str(path).endswith("config.py"))
    assert 0 < config <= CONFIG, lines
    assert sum(lines.values()) - config <= CORE, lines


def test_the_package_stays_small():
    files = [p for p in (ROOT / "sdpo_lab").rglob("*") if p.suffix in (".py", ".js", ".css")]
    lines = sum(len(p.read_text(encoding="utf-8").splitlines()) for p in files)
    assert lines <= PACKAGE, lines


def test_scripts_and_styles_keep_to_100_columns():
    """Ruff holds this for Python."""
    static = ROOT / "sdpo_lab" / "views" / "static"
    files = [*static.glob("*.js"), *static.glob("*.css")]
    long = [(p.name, line) for p in files for line in p.read_text().splitlines() if len(line) > 100]
    assert len(files) > 20 and not long


def test_the_readmes_numbers_are_those_of_the_records(root):
    """`python tools/measured.py` writes them."""
    measured = runpy.run_path(str(root / "tools" / "measured.py"))
    for name, write in measured["PARTS"].items():
        text = (root / name).read_text(encoding="utf-8")
        assert text.split(measured["START"])[1].split(measured["END"])[0] == write(), name


def test_no_test_file_is_long():
    """Above 500 lines it is divided by subject."""
    lengths = {
        str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines())
        for p in (ROOT / "tests").rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > 500} == {}
