"""Attacks end in outcomes and leave no trace."""

from __future__ import annotations

import os
import platform
import random
import tempfile
import time
from pathlib import Path

import pytest

from sdpo_lab.tasks.sandbox import (
    Program,
    Raised,
    Returned,
    isolation,
    server,
)
from tests.tasks.sandbox.attacks import C
from tests.tasks.sandbox.attacks_on_processes import ATTACKS
from tests.tasks.sandbox.common import (
    HONEST,
    HONEST_OUTCOMES,
    descendants,
    run_one,
    servers,
    strays,
    strong_only,
    warm_up,
)

pytestmark = [
    pytest.mark.skipif(
        isolation().level == "none", reason=f"no sandbox here: {isolation().reason}"
    ),
    pytest.mark.timeout(60),
]


def tree(folder: Path) -> dict[str, tuple]:
    return {
        str(p.relative_to(folder)): (
            p.lstat().st_mode,
            p.lstat().st_mtime_ns,
            p.read_bytes() if p.is_file() else b"",
        )
        for p in sorted(folder.rglob("*"))
    }


def check_outcome(outcome: object, expected: object) -> None:
    if isinstance(expected, (Returned, Raised)):
        assert outcome == expected
    else:
        kind = "Returned" if isinstance(outcome, Returned) else outcome.kind
        assert kind in ((expected,) if isinstance(expected, str) else expected), outcome


@strong_only
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_end_in_outcomes_and_leave_no_trace(box, port, name, tmp_path, monkeypatch):
    code, expected = ATTACKS[name]
    canary = tmp_path / "canary.py"
    canary.write_text("alive = True\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = (str(tmp_path), str(canary), os.getpid(), port)
    warm_up(box)
    before = (tree(tmp_path), dict(os.environ), servers(box), descendants(os.getpid()))
    start = time.monotonic()
    attacked, honest = box.run([Program(code, "f", (arguments, arguments)), HONEST])
    assert time.monotonic() - start < 0.5 + 3
    assert honest == HONEST_OUTCOMES
    assert len(attacked) == 2
    each = (
        expected
        if isinstance(expected, tuple) and isinstance(expected[0], Returned)
        else (expected, expected)
    )
    for outcome, wanted in zip(attacked, each):
        check_outcome(outcome, wanted)
    assert not strays(box)
    assert before == (tree(tmp_path), dict(os.environ), servers(box), descendants(os.getpid()))
    assert box.run([HONEST, HONEST]) == [HONEST_OUTCOMES] * 2


def test_there_are_many_attacks():
    assert len(ATTACKS) >= 120


@strong_only
@pytest.mark.skipif(platform.machine() not in server.MACHINES, reason="numbers of system calls")
def test_every_other_system_call_is_refused(box):
    """All numbers, not only those we thought of; once more with the bit of x32, which names other
    calls by the same numbers."""
    column = server.MACHINES[platform.machine()][0]
    allowed = {n[column] for n in server.ALLOWED.values()}
    allowed |= (
        {335, 336} if platform.machine() == "x86_64" else set()
    )  # u(ret)probe: Linux leaves them out of every filter; the kernel itself calls them
    numbers = [n for n in range(600) if n not in allowed] + (
        [n + 0x40000000 for n in range(600)] if platform.machine() == "x86_64" else []
    )
    code = (
        C + "def f(numbers): return [n for n in numbers if (libc.syscall(n, 0, 0, 0, 0, 0, 0), "
        "ctypes.get_errno()) != (-1, 1)]"
    )
    assert run_one(box, code, (numbers,)) == [Returned([])]


@strong_only
@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
def test_calls_of_another_architecture_kill(box):
    """`int 0x80` reaches the 32-bit calls, where 5 is open and not fstat."""
    code = (
        C
        + """
libc.mmap.restype = ctypes.c_void_p
def f():
    page = libc.mmap(None, 4096, 7, 0x22, -1, 0)
    # mov eax, getpid; int 0x80; ret
    ctypes.memmove(page, bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]), 8)
    return ctypes.CFUNCTYPE(ctypes.c_int)(page)()
"""
    )
    assert run_one(box, code)[0].kind == "Killed"


@strong_only
def test_right_after_attacks(box):
    rng = random.Random(0)
    pairs = [(rng.randrange(1000), rng.randrange(1000)) for _ in range(300)]
    quick = [
        a
        for a in (
            "fork",
            "segfault",
            "flooding the report",
            "patched json",
            "closing the report",
            "os._exit(0)",
            "gigabytes",
        )
        for _ in range(3)
    ]
    programs = [Program(ATTACKS[name][0], "f", (("/", "/", 1, 1),)) for name in quick]
    programs += [
        Program(f"def add(x):\n    return x + {b}", "add", ((a,), (str(a),))) for a, b in pairs
    ]
    outcomes = box.run(programs)[len(quick) :]
    assert [o[0] for o in outcomes] == [Returned(a + b) for a, b in pairs]
    assert all(o[1].kind == "TypeError" and o[1].line == 2 for o in outcomes)
