"""Its own processes: interrupted, killed, forked, closed; nothing of ours is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sdpo_lab.tasks.sandbox import (
    Program,
    Returned,
    Sandbox,
    isolation,
    pool,
    server,
)
from tests.tasks.sandbox.common import (
    ALONE,
    HONEST,
    HONEST_OUTCOMES,
    descendants,
    linux_only,
    processes,
    servers,
    strays,
    wait_until,
    warm_up,
)

pytestmark = [
    pytest.mark.skipif(
        isolation().level == "none", reason=f"no sandbox here: {isolation().reason}"
    ),
    pytest.mark.timeout(60),
]


@linux_only
def test_an_interrupt_leaves_nothing_and_the_sandbox_works_again(request):
    old = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell that runs this in the background has it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, old))
    with Sandbox(seconds=20, workers=2, allow_weak=True) as box:
        box.run([HONEST])
        before = descendants(os.getpid()) - servers(box)
        timer = threading.Timer(
            0.4, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        )
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            box.run([Program("def f():\n while True: pass", "f", ((),))] * 3)
        timer.join()
        assert wait_until(lambda: descendants(os.getpid()) == before)
        assert box.run([HONEST] * 3) == [HONEST_OUTCOMES] * 3
    assert wait_until(lambda: descendants(os.getpid()) == before)


@linux_only
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_server_that_is_killed_or_stopped_is_replaced(sig, monkeypatch):
    monkeypatch.setattr(pool, "GRACE_SECONDS", 0.3)
    with Sandbox(seconds=0.5, workers=2, allow_weak=True) as box:
        warm_up(box)
        old = servers(box)
        for pid in old:
            os.kill(pid, sig)
        assert wait_until(
            lambda: all(state in "ZT" for pid, (_, _, state) in processes().items() if pid in old)
        )  # so that writing to them fails at once
        assert box.run([HONEST] * 4) == [HONEST_OUTCOMES] * 4
        assert not servers(box) & old
        # while it works, and the child must not outlive it
        victim = min(servers(box))
        threading.Timer(0.1, os.kill, (victim, sig)).start()
        sleeper = Program("import time\ndef f(): time.sleep(0.3); return 1", "f", ((),))
        assert box.run([sleeper] * 2 + [HONEST]) == [[Returned(1)]] * 2 + [HONEST_OUTCOMES]
        assert wait_until(lambda: not strays(box) and victim not in descendants(os.getpid()))
        assert wait_until(
            lambda: not [p for p, (_, session, _) in processes().items() if session == victim]
        )


@linux_only
def test_a_job_at_which_two_servers_die_is_killed(monkeypatch):
    with Sandbox(seconds=5, workers=1, allow_weak=True) as box:
        box.run([HONEST])
        stop = threading.Event()

        def killer():
            while not stop.wait(0.05):
                for worker in list(box._pool.workers):
                    if worker.job and b"while" in worker.job[1]:
                        os.kill(worker.process.pid, signal.SIGKILL)

        thread = threading.Thread(target=killer)
        thread.start()
        try:
            outcomes = box.run([Program("def f():\n while True: pass", "f", ((), ())), HONEST])
        finally:
            stop.set()
            thread.join()
        assert [o.kind for o in outcomes[0]] == ["Killed"] * 2 and outcomes[1] == HONEST_OUTCOMES


def test_servers_that_cannot_live_are_an_error(monkeypatch):
    with Sandbox(workers=1, allow_weak=True) as box:
        monkeypatch.setattr(server, "__file__", "/nowhere/nothing.py")
        with pytest.raises(RuntimeError, match="keep dying"):
            box.run([HONEST])


def test_threads_take_turns(box):
    results: dict[int, list] = {}

    def use(i: int) -> None:
        results[i] = [
            box.run([Program(f"def f(x): return x * {i}", "f", ((j,),)) for j in range(8)])
            for _ in range(3)
        ]

    threads = [threading.Thread(target=use, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [[[Returned(i * j)] for j in range(8)]] * 3 for i in range(4)}


@linux_only
def test_a_fork_has_servers_of_its_own(box):
    """Also while another thread holds the lock; and its end does not end ours."""
    box.run([HONEST] * 2)
    mine = servers(box)
    busy = threading.Thread(
        target=box.run, args=([Program("import time\ndef f(): time.sleep(0.3)", "f", ((),))],)
    )
    busy.start()
    time.sleep(0.1)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            right = box.run([HONEST] * 2) == [HONEST_OUTCOMES] * 2
            status = 0 if right and not servers(box) & mine else 2
            box.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    busy.join()
    assert servers(box) == mine and box.run([HONEST]) == [HONEST_OUTCOMES]


@linux_only
def test_closing_and_collecting_leave_nothing():
    before = descendants(os.getpid())
    box = Sandbox(workers=2, allow_weak=True)
    assert descendants(os.getpid()) == before, "servers start with the first run"
    box.run([HONEST] * 2)
    assert len(servers(box)) == 2
    box.close()
    box.close()
    assert descendants(os.getpid()) == before
    with pytest.raises(RuntimeError, match="closed"):
        box.run([HONEST])
    box = Sandbox(workers=1, allow_weak=True)
    box.run([HONEST])
    del box
    gc.collect()
    assert wait_until(lambda: descendants(os.getpid()) == before)


@linux_only
@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "raise SystemExit(3)",
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
        "os.kill(os.getpid(), 15)",
    ],
)
def test_the_end_of_the_interpreter_leaves_nothing(end, tmp_path):
    script = f"""{ALONE}if True:
        import threading, time
        box = Sandbox(seconds=30, workers=2, allow_weak=True)
        box.run([Program("def f(): return 1", "f", ((),))] * 2)
        endless = [Program("def f():\\n while True: pass", "f", ((),))]
        threading.Thread(target=box.run, args=(endless,), daemon=True).start()
        time.sleep(0.2)
        print(*[w.process.pid for w in box._pool.workers], flush=True)
        {end}
        """
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    pids = {int(p) for p in done.stdout.split()}
    assert len(pids) == 2, done.stderr
    assert wait_until(
        lambda: (
            not [
                p
                for p, (_, session, state) in processes().items()
                if session in pids and state != "Z"
            ]
        )
    )
    assert not list(tmp_path.iterdir())
