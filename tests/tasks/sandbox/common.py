"""What the tests of the sandbox share: an honest program, and who is alive."""

from __future__ import annotations

import math
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sdpo_lab.tasks import sandbox as module
from sdpo_lab.tasks.sandbox import (
    Program,
    Returned,
    Sandbox,
    isolation,
)

strong_only = pytest.mark.skipif(
    isolation().level != "strong", reason=f"no strong isolation here: {isolation().reason}"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

HONEST = Program("def double(x):\n    return x + x\n", "double", ((2,), ("ab",), ([1],)))
HONEST_OUTCOMES = [Returned(4), Returned("abab"), Returned([1, 1])]


def run_one(box: Sandbox, code: str, *inputs: tuple) -> list:
    return box.run([Program(textwrap.dedent(code), "f", inputs or ((),))])[0]


def same(a: object, b: object) -> bool:
    """Equal, of equal types all the way down, nan equal to nan and 0.0 different from -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (
            a == b and math.copysign(1, a) == math.copysign(1, b)
        )
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, set):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    return a == b


def processes() -> dict[int, tuple[int, int, str]]:
    """pid: (parent, session, state) of everything that runs."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, _, session = (
                    (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
                )
                found[int(entry.name)] = (int(parent), int(session), state)
            except (OSError, ValueError):  # gone in between
                pass
    return found


def descendants(of: int) -> set[int]:
    found, everything = {of}, processes()
    while more := {pid for pid, (parent, _, _) in everything.items() if parent in found} - found:
        found |= more
    return found - {of}


def servers(box: Sandbox) -> set[int]:
    return {w.process.pid for w in box._pool.workers}


def strays(box: Sandbox) -> set[int]:
    """Processes below the servers, or in their sessions, that are not servers."""
    mine = servers(box)
    return (
        {pid for pid, (_, session, _) in processes().items() if session in mine}
        | set().union(*map(descendants, mine))
    ) - mine


def wait_until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def warm_up(box: Sandbox) -> None:
    """Until every server has tried its filter, which takes a process."""
    assert wait_until(
        lambda: (
            box.run([HONEST] * 2) == [HONEST_OUTCOMES] * 2
            and all(w.greeted for w in box._pool.workers)
        ),
        30,
    )


# the module without what its packages import, which takes seconds
ALONE = f"""
import os, sys, types
for name in ("sdpo_lab", "sdpo_lab.tasks"):
    sys.modules[name] = types.ModuleType(name)
    root = {str(Path(module.__file__).parents[3])!r}
    sys.modules[name].__path__ = [os.path.join(root, *name.split("."))]
from sdpo_lab.tasks.sandbox import Program, Sandbox, isolation
"""
