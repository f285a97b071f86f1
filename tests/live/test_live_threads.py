"""LiveRun among other threads: interrupts, the end of the interpreter, two runs at once, and its
progress line."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest
import torch

from sdpo_lab.live.progress import ProgressLine, describe, duration
from sdpo_lab.views import LiveRun


def test_a_real_interrupt_wakes_the_wait(root):
    code = """
import os, signal, sys, threading, time
from tests.shared.fake_trainer import FakeTrainer
from sdpo_lab.views import LiveRun
run = LiveRun(FakeTrainer(seconds=0.05), 1000)
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    run.result(progress=False)
except KeyboardInterrupt:
    print(run.state, run.done == len(run.trainer.history.records) > 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "paused True", done.stderr


def test_leaving_the_interpreter_in_the_middle_of_a_run(root):
    code = """
import sys
import torch
from tests.shared.fake_trainer import FakeTrainer
from sdpo_lab.views import LiveRun
trainer = FakeTrainer(seconds=0.01)
step = trainer.step
trainer.step = lambda: (torch.randn(300, 300) @ torch.randn(300, 300), step())[1]
LiveRun(trainer, 10**6).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_one_run_a_trainer(fake):
    trainer = fake()
    first, idle = LiveRun(trainer, 100), LiveRun(trainer, 5)  # not yet started: nobody is disturbed
    first.start()
    with pytest.raises(RuntimeError, match=r"another run drives this trainer: LiveRun\(running"):
        LiveRun(trainer, 5)
    with pytest.raises(RuntimeError, match="another run drives"):
        idle.start()
    first.stop()
    first.wait()
    done = len(trainer.history)
    assert len(idle.result(progress=False)) == done + 5 and trainer.most_inside == 1
    assert LiveRun(trainer, 2).first == done + 5


def test_two_runs_do_not_disturb_each_other(fake, until):
    a, b = LiveRun(fake(), 20), LiveRun(fake(fail_at=7), 20)
    a.start()
    b.start()
    until(lambda: b.state == "failed")
    a.pause()
    a.wait()
    a.set(learning_rate=1e-2)
    assert b.pending == {} and b.done == 6
    assert len(a.result(progress=False)) == 20
    with pytest.raises(ValueError, match="the judge broke"):
        b.result(progress=False)


def test_hammering_from_many_threads(fake):
    """Whatever is pressed, in any order: one thread in the trainer, and the count is right."""
    trainer = fake(seconds=0.001)
    run, errors = LiveRun(trainer, 200), []

    def press(k: int) -> None:
        for n in range(60):
            try:
                (run.start, run.pause, run.step, lambda: run.set(learning_rate=1e-4 * (1 + n)))[
                    (n * 7 + k) % 4
                ]()
            except RuntimeError:
                pass
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=press, args=(k,)) for k in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(run.result(progress=False)) == run.done == 200
    assert trainer.most_inside == 1 and not errors


def test_torch_uses_as_many_threads_in_the_worker(fake, monkeypatch):
    trainer, seen = fake(), []
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda: (seen.append(torch.get_num_threads()), step())[1])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            LiveRun(trainer, 1).result(progress=False)
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_a_paused_run_nobody_holds_is_freed(fake):
    trainer = fake()
    run = LiveRun(trainer, 5)
    run.step()
    run.wait()
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None
    LiveRun(trainer, 2).result(progress=False)


def test_progress_line(fake, capsys):
    run = LiveRun(fake(rewards=[0.25] * 9), 9)
    run.step()
    run.wait()
    words = describe(run)
    assert words.startswith(
        "paused · 1 of 9 steps · mean reward 0.25 (last step) · 0 s, about 0 s left · "
    )
    run.result()
    out = capsys.readouterr().out.splitlines()
    assert (
        len(out) <= 4
        and out[-1].startswith("finished · 9 of 9 steps · mean reward 0.25 (last 5 steps)")
        and "left" not in out[-1]
    )
    ProgressLine(run, enabled=False).update(last=True)
    assert not capsys.readouterr().out
    assert [duration(s) for s in (0.4, 59.4, 59.6, 125, 3725)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "2 min 05 s",
        "1 h 02 min",
    ]


def test_views_are_loaded_when_asked_for(root):
    code = """
import sys, sdpo_lab
import sdpo_lab.views
assert not {"anywidget", "ipywidgets", "plotly", "IPython"} & set(sys.modules)
sdpo_lab.views.LiveRun
assert not {"anywidget", "ipywidgets", "plotly", "IPython"} & set(sys.modules)
try: sdpo_lab.views.Dashbord
except AttributeError as error: print(error)
print(dir(sdpo_lab.views))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert "'Dashbord'" in done.stdout and "'Dashboard'" in done.stdout, done.stderr
