"""What a step does not fall over: an interrupt at the wrong moment, and memory that runs out."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """An interrupt from the keyboard (SIGINT) in the block is handled at its end; a second one at once. Other threads than the main one get none."""
    handler, came = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return

    def wait(number: int, frame: Any) -> None:
        if came:
            handler(number, frame)
        came.append((number, frame))

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if len(came) == 1:
        handler(*came[0])


#: What is said where memory ran out and the exception is a RuntimeError like any other: torch's allocators of the CPU, a GPU's driver, MPS, and cuBLAS or
#: cuDNN, which want memory of their own.
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
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or isinstance(error, RuntimeError)
        and any(words in str(error) for words in OUT_OF_MEMORY)
    )


def halved_once(
    work: Callable[[], Any],
    size: int,
    halve: Callable[[int], None],
    already: bool,
    what: str,
    advice: str,
) -> Any:
    """work(), whose memory grows with `size`; where it runs out, once more after halve(size // 2), said in a warning. Where that has happened
    before (`already`), or `size` is 1, raises torch.OutOfMemoryError with the `advice`. Any other error of work() is raised as it is."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:  # numpy's is a MemoryError
        if not is_out_of_memory(error):
            raise
        said = str(error) or type(error).__name__
        if already or size == 1:
            raise torch.OutOfMemoryError(
                f"out of memory with {size} {what}{', which is half of what it was' * already}. {advice}: {said}"
            ) from error
        warnings.warn(
            f"out of memory with {size} {what} ({said}); from now on at most {size // 2}. The result is the same up to rounding, the step takes longer",
            RuntimeWarning,
            stacklevel=5,
        )
    halve(size // 2)  # here, where nothing holds on to the tensors of the first try any more
    return work()
