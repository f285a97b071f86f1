"""Conventions are registered: a sealed one is opened once, and every opening is written down."""

import json
import re
from pathlib import Path

import pytest

from sdpo_lab.experiments import register

ROOT = Path(__file__).parents[2]


def test_no_two_sets_share_a_convention_nor_serve_elsewhere():
    sets = {**register.OPEN, **register.SEALED}
    every = [seed for seeds in sets.values() for seed in seeds]
    assert len(every) == len(set(every))
    assert not set(every) & {*range(300)}  # notebooks, tests, cards and the runs recorded so far
    assert all(len(seeds) in (10, 20) for seeds in sets.values())


def test_the_sealed_ones_follow_from_their_names():
    """The rule is committed: these three seeds are what it gives, today and later."""
    assert register.drawn("sealed A", 3) == register.SEALED["sealed A"][:3]
    assert register.drawn("a", 3) != register.drawn("b", 3)
    assert all(1_000_000 <= s < 2_000_000 for seeds in register.SEALED.values() for s in seeds)


def test_a_sealed_set_opens_for_a_recorded_comparison_alone(tmp_path):
    log = tmp_path / "openings.json"
    assert register.conventions("gate") == tuple(range(2000, 2020))
    with pytest.raises(PermissionError, match="is sealed"):
        register.conventions("sealed A")
    with pytest.raises(ValueError, match="sealed Z"):
        register.conventions("sealed Z")
    for _ in range(2):  # the second time goes on with the first
        with register.opening("sealed A", "headline", log) as seeds:
            assert register.conventions("sealed A") == seeds
    with pytest.raises(PermissionError):
        register.conventions("sealed A")
    with register.opening("sealed A", "another", log):
        pass
    written = json.loads(log.read_text())
    assert [(o["set"], o["comparison"]) for o in written] == [
        ("sealed A", "headline"),
        ("sealed A", "another"),
    ]


def test_tests_and_notebooks_name_no_sealed_convention():
    sealed = {str(seed) for seeds in register.SEALED.values() for seed in seeds}
    files = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("notebooks/*.py"), *ROOT.glob("tools/*.py")]
    assert len(files) > 50
    for file in files:
        named = sealed & set(re.findall(r"\b1\d{6}\b", file.read_text(encoding="utf-8")))
        assert not named, (file.name, named)
