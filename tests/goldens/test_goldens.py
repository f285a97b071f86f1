"""What the code of ff4735b drew, sampled and learnt, to the last digit: see `make`."""

from __future__ import annotations

import json
import math

import pytest

from tests.goldens import make

GOLDENS = json.loads(make.FILE.read_text(encoding="utf-8"))
#: The last digit is that of one kind of machine; elsewhere numbers are compared to four.
SAME_MACHINE = GOLDENS["machine"] == make.machine()
DRAWN = ("worlds", "ids", "draws", "verdicts")


def differences(found, golden, where: str = "") -> list[str]:
    """Where two parts differ, with both values."""
    if isinstance(golden, dict) and isinstance(found, dict):
        if found.keys() != golden.keys():
            return [f"{where}: {sorted(found.keys() ^ golden.keys())} on one side only"]
        return [d for key in golden for d in differences(found[key], golden[key], f"{where}/{key}")]
    if isinstance(golden, list) and isinstance(found, list) and len(found) == len(golden):
        return [
            d
            for i, pair in enumerate(zip(found, golden))
            for d in differences(*pair, f"{where}[{i}]")
        ]
    return [] if found == golden or near(found, golden) else [f"{where}: {found!r} for {golden!r}"]


def near(found, golden) -> bool:
    if SAME_MACHINE or not (isinstance(found, str) and isinstance(golden, str)):
        return False
    try:
        return math.isclose(float.fromhex(found), float.fromhex(golden), rel_tol=1e-4, abs_tol=1e-6)
    except ValueError:
        return False


@pytest.mark.parametrize("name", make.PARTS)
def test_nothing_has_moved(name, tmp_path):
    if name != "resumed":
        found = make.PARTS[name]()
    else:  # a copy: what is resumed may lock its folder
        import shutil

        found = make.resumed(shutil.copytree(make.RUN, tmp_path / "run"))
    found = json.loads(json.dumps(found))
    golden = GOLDENS[name]
    if not SAME_MACHINE and name not in DRAWN:
        found, golden = without_digests(found), without_digests(golden)
    assert not differences(found, golden)[:5]


def without_digests(value):
    """A digest of floats says nothing on another machine."""
    if isinstance(value, dict):
        return {
            k: without_digests(v)
            for k, v in value.items()
            if k not in ("entropies", "rollouts", "teacher_messages")
        }
    return [without_digests(v) for v in value] if isinstance(value, list) else value


def test_problems_of_reasoning_gym_have_not_moved():
    pytest.importorskip("reasoning_gym")
    assert make.gym() == GOLDENS["gym"]
