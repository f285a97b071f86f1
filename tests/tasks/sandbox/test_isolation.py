"""How well it isolates, what it says where it cannot, and what it refuses then."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo_lab.tasks import sandbox as module
from sdpo_lab.tasks.sandbox import (
    Isolation,
    Sandbox,
    isolation,
    levels,
    pool,
    server,
)
from tests.tasks.sandbox.common import ALONE, HONEST, HONEST_OUTCOMES, run_one, strays, strong_only

pytestmark = [
    pytest.mark.skipif(
        isolation().level == "none", reason=f"no sandbox here: {isolation().reason}"
    ),
    pytest.mark.timeout(60),
]


def test_isolation_is_printable():
    text = str(isolation())
    assert text.startswith(f"isolation: {isolation().level}")
    for promise in ("files", "network", "processes", "memory", "time", "environment"):
        assert f"{promise}: " in text
    assert isolation() == isolation()


def test_without_strong_isolation_it_refuses(monkeypatch):
    weak = levels.describe_isolation("weak", "no filter in this test")
    monkeypatch.setattr(module, "isolation", lambda: weak)
    with pytest.raises(
        RuntimeError, match="no filter in this test(.|\n)*allow_weak=True(.|\n)*NOT kept"
    ):
        Sandbox()
    with Sandbox(seconds=0.5, workers=1, allow_weak=True) as box:
        assert box.isolation is weak and isinstance(weak, Isolation)
        assert box.run([HONEST]) == [HONEST_OUTCOMES]
        assert [o.kind for o in run_one(box, "def f():\n while True: pass")] == ["Timeout"]
        assert run_one(box, "def f(): open('/etc/passwd')")[0].kind == "OSError"
        assert run_one(box, "def f(): return [0] * 10**9")[0].kind == "MemoryError"
        if sys.platform == "linux":
            assert not strays(box)


@strong_only
def test_where_filters_are_forbidden_it_notices():
    """As in a container whose own filter refuses ours: a process that may not call
    prctl(PR_SET_SECCOMP)."""
    script = f"""{ALONE}
import ctypes, struct
number = {{"x86_64": 157, "aarch64": 167}}[os.uname().machine]
code = [
    (0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, 22),
    (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000),
]
block = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *c) for c in code))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(block)))
libc = ctypes.CDLL(None)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.addressof(program), 0, 0) == 0
print(isolation().level, isolation().reason)
try:
    Sandbox()
except RuntimeError as error:
    print("refused")
with Sandbox(allow_weak=True, workers=1) as box:
    print(box.run([Program("def f(): return 42", "f", ((),))]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert (
        done.stdout.startswith("weak the system-call filter (seccomp) cannot be set here")
        and "refused\n[[Returned(value=42)]]" in done.stdout
    ), done


def test_where_nothing_can_run_it_refuses_always(monkeypatch):
    monkeypatch.setattr(module, "isolation", lambda: levels.describe_isolation("none", "no fork()"))
    with pytest.raises(RuntimeError, match=r"no fork\(\)"):
        Sandbox(allow_weak=True)


def test_a_server_that_lost_its_filter_runs_nothing(monkeypatch):
    with Sandbox(workers=1, allow_weak=True) as box:
        monkeypatch.setattr(pool.Worker, "greeting", lambda self: "lost")
        box._pool.config["strong"] = True
        with pytest.raises(RuntimeError, match="lost"):
            box.run([HONEST])
        assert not box._pool.workers


@pytest.mark.parametrize(
    "kwargs, error",
    [
        ({"seconds": 0}, ValueError),
        ({"seconds": math.nan}, ValueError),
        ({"seconds": "1"}, TypeError),
        ({"memory_mb": 1}, ValueError),
        ({"memory_mb": 64.5}, TypeError),
        ({"workers": 0}, ValueError),
        ({"workers": True}, TypeError),
    ],
)
def test_settings_are_checked(kwargs, error):
    with pytest.raises(error):
        Sandbox(allow_weak=True, **kwargs)


def test_the_smallest_memory_is_enough():
    with Sandbox(memory_mb=64, workers=1, allow_weak=True) as box:
        assert box.run([HONEST]) == [HONEST_OUTCOMES]
        assert run_one(box, "def f(): return [0] * 10**7")[0].kind == "MemoryError"


def test_the_table_of_system_calls_matches_the_headers():
    """x86_64 against this machine's headers, where there are any."""
    header = next(
        (
            p
            for p in (
                Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
                Path("/usr/include/asm/unistd_64.h"),
            )
            if p.exists()
        ),
        None,
    )
    if header is None:
        pytest.skip("no headers of x86_64 here")
    numbers = dict(
        line.split()[1:3]
        for line in header.read_text().splitlines()
        if line.startswith("#define __NR_")
    )
    for name, (number, _) in server.ALLOWED.items():
        assert int(numbers[f"__NR_{name}"]) == number
