"""What a step survives: an interrupt at the wrong moment, and memory that runs out."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from sdpo_lab.core.batch import Batch
from sdpo_lab.core.checks import warn_caller
from sdpo_lab.core.config import SDPOConfig

T = TypeVar("T")

# -- interrupts -----------------------------------------------------------------------------------


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """An interrupt from the keyboard (SIGINT) in the block is handled at its end.

    A second one at once. Other threads than the main one get none.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return

    held: list[tuple[int, Any]] = []

    def hold(number: int, frame: Any) -> None:
        if held:
            handler(number, frame)
        held.append((number, frame))

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if len(held) == 1:
        handler(*held[0])


# -- memory ---------------------------------------------------------------------------------------

#: What is said where memory ran out and the exception is a RuntimeError like any other: torch's
#: allocators of the CPU, a GPU's driver, MPS, and cuBLAS or cuDNN, which want memory of their own.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "HIP error: out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU, on a CPU, or in numpy."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in OUT_OF_MEMORY)


def halved_once(
    work: Callable[[], T],
    size: int,
    halve: Callable[[int], None],
    already: bool,
    what: str,
    advice: str,
) -> T:
    """work(), whose memory grows with `size`; where it runs out, once more after halve(size // 2).

    That is said in a warning. Where it has happened before (`already`), or `size` is 1, raises
    torch.OutOfMemoryError with the `advice`. Any other error of work() is raised as it is.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:  # numpy's is a MemoryError
        if not is_out_of_memory(error):
            raise
        said = str(error) or type(error).__name__
        if already or size == 1:
            before = ", which is half of what it was" if already else ""
            raise torch.OutOfMemoryError(
                f"out of memory with {size} {what}{before}. {advice}: {said}"
            ) from error
        warn_caller(
            f"out of memory with {size} {what} ({said}); from now on at most {size // 2}. The "
            "result is the same up to rounding, the step takes longer",
            RuntimeWarning,
        )
    halve(size // 2)  # here, where nothing holds on to the tensors of the first try any more
    return work()


class UsesMemory(Protocol):
    """What the two decorators know of the loop."""

    config: SDPOConfig
    groups_at_once: int
    halved: int

    def apply(self, **fields: Any) -> None: ...


def retry_with_fewer_groups(stage: Callable[..., T]) -> Callable[..., T]:
    """Decorates stage(loop, problems, ...), which samples.

    Where memory runs out it is done again with half as many groups at once, which give the same
    attempts. That happens once a run, the second time raises.
    """

    @functools.wraps(stage)
    def retried(loop: UsesMemory, problems: list, *arguments: Any) -> T:
        return halved_once(
            functools.partial(stage, loop, problems, *arguments),
            size=min(loop.groups_at_once, len(problems)),
            halve=functools.partial(setattr, loop, "groups_at_once"),
            already=loop.groups_at_once < len(problems),
            what="groups sampled together",
            advice="Lower num_generations or max_completion_length, or take a smaller model",
        )

    return retried


def retry_with_smaller_micro_batch(stage: Callable[..., T]) -> Callable[..., T]:
    """Decorates stage(loop, batch, ...), which reads attempts and changes no weight.

    Where memory runs out it is done again with micro-batches of half the size, which stay for the
    rest of the run. That happens once a run, the second time raises.
    """

    @functools.wraps(stage)
    def retried(loop: UsesMemory, batch: Batch, *arguments: Any) -> T:
        def halve(size: int) -> None:
            loop.halved = 1
            loop.apply(per_device_train_batch_size=size)

        micro_batches = batch.micro_batches(loop.config.per_device_train_batch_size)
        return halved_once(
            functools.partial(stage, loop, batch, *arguments),
            size=max(map(len, micro_batches), default=1),
            halve=halve,
            already=bool(loop.halved),
            what="attempts in a micro-batch (per_device_train_batch_size)",
            advice="Lower per_device_train_batch_size (apply() can, and the run goes on), "
            "max_completion_length, max_reprompt_len or distillation_topk, or train an adapter "
            "(lora=)",
        )

    return retried
