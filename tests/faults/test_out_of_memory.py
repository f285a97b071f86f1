"""Memory that runs out: halves what is done at once, and changes nothing else."""

from __future__ import annotations

import copy

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core import loop as loop_module
from sdpo_lab.core import rollouts as rollouts_module
from sdpo_lab.core import sampling as sampling_module
from sdpo_lab.core.resilience import halved_once
from sdpo_lab.runs import checkpoints
from tests.shared.runs import same, trainer
from tests.shared.tasks import Vowels

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"
)


def short_of_memory(monkeypatch, most: int, error: type[RuntimeError] = RuntimeError) -> None:
    """From now on no more than `most` attempts fit into a micro-batch."""
    original = loop_module.loss_and_backward

    def backward(config, hidden, student, teacher, tokens, vocabulary):
        if int(tokens.rows.max()) >= most:
            raise error(CPU)
        return original(config, hidden, student, teacher, tokens, vocabulary)

    monkeypatch.setattr(loop_module, "loss_and_backward", backward)


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
    groups, original = clean.groups_at_once, sampling_module.noise
    most = groups // 2 * clean.config.num_generations

    def noise(keys, steps):
        if len(keys) > most:
            raise MemoryError("Unable to allocate 8.00 GiB for an array")
        return original(keys, steps)

    monkeypatch.setattr(sampling_module, "noise", noise)
    with pytest.warns(
        RuntimeWarning,
        match=rf"out of memory with {groups} groups sampled together \(Unable to allocate.*at "
        rf"most {groups // 2}\.",
    ):
        t.step()
    clean.groups_at_once = groups // 2
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
    groups, original = clean.groups_at_once, rollouts_module.sample
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

    monkeypatch.setattr(loop_module, "loss_and_backward", backward)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        t.step()
    assert not t.halved and t.history.changes == {}
