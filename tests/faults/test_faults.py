"""What goes wrong on the way is injected: nothing is lost but the step in hand, and the message
names the cause."""

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
from sdpo_lab.core import rollouts as rollouts_module
from sdpo_lab.core import teachers
from sdpo_lab.core.resilience import halved_once, interrupts_wait
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
    (loop_module, "rollout", 1, False),
    (Vowels, "judge", 5, False),
    (loop_module, "reprompt", 2, False),
    (loop_module, "backward", 2, True),
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


CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
)


def short_of_memory(monkeypatch, most: int, error: type[RuntimeError] = RuntimeError) -> None:
    """From now on no more than `most` attempts fit into a micro-batch."""
    original = loop_module.backward

    def backward(config, hidden, student, teacher, tokens, vocabulary):
        if int(tokens.rows.max()) >= most:
            raise error(CPU)
        return original(config, hidden, student, teacher, tokens, vocabulary)

    monkeypatch.setattr(loop_module, "backward", backward)


#: As they are written by torch 2.x and numpy, but for the numbers.
SAID = [
    RuntimeError(CPU),
    RuntimeError("not enough memory: you tried to allocate 8589934592 bytes."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 40 MB, max "
        "allowed: 18.1 GB). Tried to allocate 1.9 GB on private pool."
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB."),
    MemoryError(
        "Unable to allocate 8.00 GiB for an array with shape (1024, 1048576) and data type float64"
    ),
    MemoryError(),
]


@pytest.mark.parametrize("error", SAID, ids=lambda e: f"{type(e).__name__} {e}"[:40])
def test_out_of_memory_is_known_by_what_it_says(error):
    tries, sizes = [error], []

    def work():
        if tries:
            raise tries.pop()
        return "done"

    with pytest.warns(
        RuntimeWarning, match=r"out of memory with 8 rows \([^)]+.*from now on at most 4\."
    ):
        assert halved_once(work, 8, sizes.append, False, "rows", "Take fewer") == "done"
    assert sizes == [4]
    tries.append(error)
    with pytest.raises(
        torch.OutOfMemoryError,
        match="(?s)out of memory with 4 rows, which is half of what it was. Take fewer: .+",
    ) as caught:
        halved_once(work, 4, sizes.append, True, "rows", "Take fewer")
    assert caught.value.__cause__ is error and sizes == [4]


def test_numpy_s_memory_that_runs_out_while_sampling_halves_the_groups(tiny, monkeypatch):
    clean, t = trainer(tiny), trainer(tiny)
    groups, original = clean.together, rollouts_module.noise
    most = groups // 2 * clean.config.num_generations

    def noise(keys, steps):
        if len(keys) > most:
            raise MemoryError("Unable to allocate 8.00 GiB for an array")
        return original(keys, steps)

    monkeypatch.setattr(rollouts_module, "noise", noise)
    with pytest.warns(
        RuntimeWarning,
        match=rf"out of memory with {groups} groups sampled together \(Unable to allocate.*at "
        rf"most {groups // 2}\.",
    ):
        t.step()
    clean.together = groups // 2
    clean.step()
    same(clean, t)


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_out_of_memory_halves_the_micro_batch_once_and_changes_nothing_else(
    tiny, tmp_path, monkeypatch, error
):
    clean, t = trainer(tiny), trainer(tiny)
    clean.train(3, progress=False)
    t.step()
    with monkeypatch.context() as patch:
        short_of_memory(patch, 4, error)
        with pytest.warns(
            RuntimeWarning,
            match=r"out of memory with [5-8] attempts in a micro-batch "
            r"\(per_device_train_batch_size\).*from now on at most [2-4]\.",
        ):
            t.step()
    size = t.config.per_device_train_batch_size
    assert size in (2, 3, 4) and t.history.changes == {2: {"per_device_train_batch_size": size}}
    t.save(tmp_path / "run")
    t.step()
    for mine, theirs in zip(t.history, clean.history):
        assert mine.reward == theirs.reward and mine.loss == pytest.approx(theirs.loss, rel=1e-4)
    again = trainer(tiny)
    again.train(3, changes=t.history.changes, progress=False)  # the log replays it
    assert [r.loss for r in again.history] == [r.loss for r in t.history]
    resumed = lab.SDPOTrainer.resume(tmp_path / "run", task=Vowels())
    assert resumed.halved == 1 and resumed.config.per_device_train_batch_size == size
    short_of_memory(monkeypatch, 1, error)
    before = copy.deepcopy(checkpoints.trainable(resumed.model))
    with pytest.raises(
        torch.OutOfMemoryError,
        match=r"(?s)which is half of what it was.*Lower "
        r"per_device_train_batch_size.*max_completion_length.*8589934592",
    ):
        resumed.step()
    assert len(resumed.history) == 2 and all(
        torch.equal(p, before[n]) for n, p in checkpoints.trainable(resumed.model).items()
    )
    monkeypatch.undo()
    resumed.step()
    same(resumed, t)


def test_out_of_memory_while_sampling_halves_the_groups_once_and_draws_the_same_attempts(
    tiny, monkeypatch
):
    clean, t = trainer(tiny), trainer(tiny)
    groups, original = clean.together, rollouts_module.sample
    assert groups >= 2

    def short(most):
        def sample(model, tokenizer, prompts, *rest):
            if len(prompts) > most:
                raise RuntimeError(CPU)
            return original(model, tokenizer, prompts, *rest)

        monkeypatch.setattr(rollouts_module, "sample", sample)

    short(groups // 2)
    with pytest.warns(
        RuntimeWarning,
        match=rf"out of memory with {groups} groups sampled together.*at most {groups // 2}\.",
    ):
        t.step()
    t.step()  # without another try that must fail
    monkeypatch.setattr(rollouts_module, "sample", original)
    clean.train(2, progress=False)
    for mine, theirs in zip(t.history, clean.history, strict=True):
        assert [r.completion_ids for r in mine.rollouts] == [
            r.completion_ids for r in theirs.rollouts
        ]
        assert mine.loss == pytest.approx(
            theirs.loss, rel=1e-5
        )  # entropies differ in the last bits
    short(0)
    with pytest.raises(
        torch.OutOfMemoryError,
        match=r"(?s)groups sampled together, which is half of what it "
        r"was.*max_completion_length.*8589934592",
    ):
        t.step()
    assert len(t.history) == 2 and t.history.changes == {}


def test_out_of_memory_in_the_optimiser_is_not_tried_again(tiny, monkeypatch):
    """Some weights may have moved by then."""
    t, calls = trainer(tiny), []

    def step(self, closure=None):
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        t.step()
    assert len(calls) == 1 and not t.halved


def test_another_runtime_error_is_not_taken_for_it(tiny, monkeypatch):
    t = trainer(tiny)

    def backward(*arguments):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(loop_module, "backward", backward)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        t.step()
    assert not t.halved and t.history.changes == {}


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
