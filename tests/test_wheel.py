"""The wheel alone, in an empty environment and an empty folder, loads the shipped model and trains
it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

USE_IT = """
import json, socket, sys

def refuse(*arguments, **keywords):
    raise AssertionError("something opened a connection")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
import sdpo_lab as lab
widgets = [name for name in ("plotly", "ipywidgets", "anywidget") if name in sys.modules]

model, tokenizer = lab.load_model()
before = {name: p.detach().clone() for name, p in model.named_parameters()}
task = lab.load_task("toolcall")
trainer = lab.SDPOTrainer(model, tokenizer, task, lab.SDPOConfig.preset("laptop"))
record = trainer.step()
assert 0 <= record.reward <= 1 and record.loss == record.loss, record
changed = sum(not before[name].equal(p) for name, p in model.named_parameters())
models = [m["name"] for m in lab.list_models()]
print(json.dumps({"widgets": widgets, "changed": changed, "models": models, "where": lab.__file__,
                  "version": lab.__version__, "reward": record.reward}))
"""


def run(*command: object, **more) -> str:
    """What the command printed; a failing one fails the test with the end of what it said."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **more)
    assert done.returncode == 0, (
        f"{command[:6]} ended with {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}"
    )
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_what_the_wheel_holds(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    kept = [n for n in names if ".dist-info/" not in n]
    assert all(n.startswith("sdpo_lab/") for n in kept), kept
    assert not [n for n in names if n.startswith("sdpo_lab/small_models/") and n.endswith(".py")], (
        "the recipe stays in the repository"
    )
    assert not [n for n in names if n.endswith((".pyc", ".ipynb"))]
    data = [
        p for p in (ROOT / "sdpo_lab").rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    models = [
        p
        for p in (ROOT / "small_models").glob("*/*")
        if p.is_file() and "__pycache__" not in p.parts
    ]
    expected = {p.relative_to(ROOT).as_posix() for p in data} | {
        f"sdpo_lab/{p.relative_to(ROOT).as_posix()}" for p in models
    }
    assert expected <= names, expected - names
    assert "sdpo_lab/small_models/lab-1m/model.safetensors" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert wheel.stat().st_size < 25_000_000


@pytest.mark.timeout(900)  # an install of torch on a slow disk
def test_the_wheel_trains_in_an_empty_place(wheel, tmp_path):
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("PYTHON", "VIRTUAL_ENV", "HF_", "TRANSFORMERS_"))
    }
    clean |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HOME": str(tmp_path / "hub")}
    empty = tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [python, "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt"]
    run(*install, "torch", cwd=empty, env=clean)  # first and alone, as in the Makefile
    run(*install, wheel, cwd=empty, env=clean)
    said = json.loads(run(python, "-c", USE_IT, cwd=empty, env=clean).splitlines()[-1])
    assert said["widgets"] == [], "importing sdpo_lab alone must import no widget library"
    assert said["changed"] > 0, "no weight changed"
    assert "lab-1m" in said["models"]
    assert Path(said["where"]).is_relative_to(tmp_path / "venv")
