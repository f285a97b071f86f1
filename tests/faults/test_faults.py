"""Interrupts, faults of a save, a judge that raises or hangs, gradients, disks: nothing is lost."""

from __future__ import annotations

import copy
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core import loop as loop_module
from sdpo_lab.core import teachers
from sdpo_lab.core.resilience import interrupts_wait
from sdpo_lab.runs import checkpoints
from sdpo_lab.runs import folder as run_folder
from sdpo_lab.runs.folder import RunFolder
from tests.shared.runs import same, trainer
from tests.shared.tasks import Vowels


def interrupting(function, when=1):
    """The function, with a SIGINT in the middle of its call number `when`."""
    calls = []

    def called(*arguments, **settings):
        calls.append(1)
        if len(calls) == when:
            signal.raise_signal(signal.SIGINT)
        return function(*arguments, **settings)

    return called


#: (module or class, its function, how often it is called before the interrupt, whether the step is
#: whole when the interrupt is raised)
MOMENTS = [
    (loop_module, "sample_rollouts", 1, False),
    (Vowels, "judge", 5, False),
    (loop_module, "reprompt", 2, False),
    (loop_module, "loss_and_backward", 2, True),
    (torch.optim.AdamW, "step", 1, True),
    (torch.nn.utils, "clip_grad_norm_", 1, True),
    (teachers.Teacher, "update", 1, True),
    (loop_module, "summary", 1, True),
]


def test_an_interrupt_at_any_moment_of_a_step_loses_at_most_that_step(tiny, monkeypatch):
    fields = dict(teacher_update_rate=0.1, per_device_train_batch_size=2, steps_per_generation=2)
    clean, broken = trainer(tiny, **fields), trainer(tiny, **fields)
    before = signal.getsignal(signal.SIGINT)
    for where, name, when, whole in MOMENTS:
        taken = len(broken.history)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(where, name, interrupting(getattr(where, name), when))
            broken.step()
        assert len(broken.history) == taken + whole, name
        assert signal.getsignal(signal.SIGINT) is before
    broken.train(1, progress=False)
    clean.train(len(broken.history), progress=False)
    same(clean, broken)


def test_a_second_interrupt_is_not_held_back_and_other_threads_are_left_alone():
    seen = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts_wait():
            signal.raise_signal(signal.SIGINT)
            seen.append("went on")
            signal.raise_signal(signal.SIGINT)
            seen.append("never")
    assert seen == ["went on"]

    def work():
        with interrupts_wait():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[-1] is signal.getsignal(signal.SIGINT)


def points(t, folder, monkeypatch) -> int:
    """How many times a save into a folder that holds the run puts something on the disk for
    good."""
    calls = []
    t.save(folder)
    with monkeypatch.context() as patch:
        for module in (checkpoints, run_folder):
            patch.setattr(module, "sync", lambda path: calls.append(path))
        t.save(folder, keep=2)
    return len(calls)


@pytest.mark.parametrize("fault", ["interrupt", "full disk"])
def test_a_fault_at_any_point_of_a_save_leaves_a_whole_run_and_the_next_save_works(
    tiny, tmp_path, monkeypatch, fault
):
    t = trainer(tiny, lora=2)
    t.train(2, folder=tmp_path / "run", progress=False)
    count = points(t, tmp_path / "other", monkeypatch)
    t.step()
    assert count > 10
    original, cut = run_folder.sync, []

    for point in range(count):
        left = [point]

        def sync(path, left=left):
            left[0] -= 1
            if left[0] == -1:
                cut.append(path)
                if fault == "interrupt":
                    raise KeyboardInterrupt
                raise OSError(28, "No space left on device", str(path))
            original(path)

        with monkeypatch.context() as patch:
            for module in (checkpoints, run_folder):
                patch.setattr(module, "sync", sync)
            try:
                t.save(tmp_path / "run", keep=2)
            except (KeyboardInterrupt, OSError) as error:
                assert (
                    isinstance(error, KeyboardInterrupt)
                    or "No space left on device" in str(error)
                    and "make room" in str(error)
                )
        at, state = RunFolder(tmp_path / "run").open()  # checks every byte
        assert state["step"] in (2, 3)
        assert len([*RunFolder(tmp_path / "run").there(RunFolder(tmp_path / "run").pointer())]) >= 1
    assert len(cut) >= count - 1
    t.step()
    t.save(tmp_path / "run", keep=2)
    same(lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels()), t)
    assert not [*(tmp_path / "run").glob("*.partial")]


def test_an_exception_in_the_judge_loses_nothing(tiny):
    class Breaking(Vowels):
        broken = False

        def judge(self, problem, completion):
            if self.broken:
                raise ZeroDivisionError("the judge divided by the number of vowels")
            return super().judge(problem, completion)

    clean, t = trainer(tiny), trainer(tiny, task=Breaking())
    t.step()
    Breaking.broken = True
    with pytest.raises(ZeroDivisionError, match="number of vowels"):
        t.train(3, progress=False)
    assert len(t.history) == 1
    Breaking.broken = False
    t.train(2, progress=False)
    clean.train(3, progress=False)
    same(clean, t)


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_gradient_that_is_not_finite_is_not_applied_and_the_run_stops_with_a_diagnosis(
    tiny, tmp_path, monkeypatch, bad
):
    t = trainer(tiny)
    t.step()
    t.autosave(tmp_path / "run", seconds=0)
    before = copy.deepcopy(checkpoints.trainable(t.model))
    original = torch.nn.utils.clip_grad_norm_

    def clip(parameters, most):
        parameters = list(parameters)
        next(p for p in parameters if p.grad is not None).grad.fill_(float(bad))
        return original(parameters, most)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    t.step()
    t.step()
    assert [r.metrics["not_finite"] for r in t.history] == [0, 1, 1] and t.bad_steps == 2
    resumed = lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels())
    for stopped in (t, resumed):  # the count goes on after a resume
        with pytest.raises(
            FloatingPointError,
            match=r"not finite in 3 steps in a row, up to step 4; none was applied. Usually the "
            r"learning rate \(0.01\) is too high",
        ):
            stopped.step()
        assert all(
            torch.equal(p, before[n]) for n, p in checkpoints.trainable(stopped.model).items()
        )
    monkeypatch.undo()
    assert t.step().metrics["not_finite"] == 0 and t.bad_steps == 0


def refuses(t, folder, cause):
    """A save fails and names `cause`; a run that saves itself goes on, says so, and saves again
    when it can."""
    with pytest.raises(
        OSError, match=rf"(?s)could not be saved in .*{cause}.*the trainer holds all of its steps"
    ):
        t.save(folder)
    with pytest.warns(
        RuntimeWarning,
        match=rf"(?s)step {len(t.history) + 1} could not be saved, the run goes on: .*{cause}",
    ):
        t.step()
    assert cause in t.autosaves.trouble


def recovers(t, folder):
    t.step()
    assert t.autosaves.trouble == ""
    same(lab.SDPOTrainer.resume(folder, task=Vowels()), t)


def test_a_disk_that_is_full_is_named_and_costs_nothing(tiny, mount):
    disk = mount("size=2m")
    t = trainer(tiny)
    t.autosave(disk / "run", seconds=0)
    t.step()
    taken = disk / "filler"
    with pytest.raises(OSError), taken.open("wb") as f:
        while True:
            f.write(bytes(4096))
            f.flush()
    refuses(t, disk / "run", "No space left on device")
    assert RunFolder(disk / "run").open()[1]["step"] == 1
    taken.unlink()
    recovers(t, disk / "run")


def test_a_file_that_may_not_grow_is_named_and_costs_nothing(tiny, tmp_path):
    t = trainer(tiny)
    t.autosave(tmp_path / "run", seconds=0)
    t.step()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # less than the weights
    try:
        refuses(t, tmp_path / "run", "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert RunFolder(tmp_path / "run").open()[1]["step"] == 1
    recovers(t, tmp_path / "run")


def test_a_read_only_disk_is_named(tiny, mount):
    disk = mount("size=8m,ro")
    t = trainer(tiny)
    t.autosave(disk / "run", seconds=0)
    refuses(t, disk / "run", "Read-only file system")


def test_a_folder_that_may_not_be_written_is_named(tiny, tmp_path, monkeypatch):
    """Injected: the superuser, whom containers run as, may write anywhere."""
    t = trainer(tiny)
    t.autosave(tmp_path / "run", seconds=0)
    original = Path.mkdir

    def mkdir(self, *arguments, **settings):
        if tmp_path in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **settings)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    refuses(t, tmp_path / "run", "Permission denied")
    monkeypatch.undo()
    recovers(t, tmp_path / "run")


def test_a_judge_that_hangs_can_be_interrupted_and_nothing_is_lost(tiny):
    class Hanging(Vowels):
        hangs = False

        def judge(self, problem, completion):
            if self.hangs:
                threading.Timer(
                    0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
                ).start()
                time.sleep(60)
            return super().judge(problem, completion)

    clean, t = trainer(tiny), trainer(tiny, task=Hanging())
    t.step()
    Hanging.hangs, began = True, time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        t.step()
    assert time.monotonic() - began < 30
    Hanging.hangs = False
    t.step()
    clean.train(2, progress=False)
    same(clean, t)


def test_a_sandbox_that_cannot_start_is_named(tiny, monkeypatch):
    from sdpo_lab.tasks import sandbox, tinycode

    monkeypatch.setattr(tinycode, "_sandboxes", {})
    usual = sandbox.isolation()
    sandbox.levels.why_not_kept.cache_clear()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    t = trainer(tiny, task=lab.load_task("tinycode"))
    before = copy.deepcopy(checkpoints.trainable(t.model))
    with pytest.raises(
        (OSError, RuntimeError),
        match=r"programs cannot be run in isolation here: the server does not start here "
        r"\(FileNotFoundError.*/nowhere/python",
    ):
        t.step()
    assert len(t.history) == 0 and all(
        torch.equal(p, before[n]) for n, p in checkpoints.trainable(t.model).items()
    )
    monkeypatch.undo()
    assert sandbox.isolation() == usual  # the fault has passed
