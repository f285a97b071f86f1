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


def is_out_of_memory(error: RuntimeError) -> bool:
    """On a GPU, and what the allocators of the CPU say, which have no exception of their own."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in ("can't allocate memory", "not enough memory"))


def halved_once(work: Callable[[], Any], size: int, halve: Callable[[int], None], already: bool, what: str, advice: str) -> Any:
    """work(), whose memory grows with `size`; where it runs out, once more after halve(size // 2), said in a warning. Where that has happened
    before (`already`), or `size` is 1, raises torch.OutOfMemoryError with the `advice`. Any other error of work() is raised as it is."""
    try:
        return work()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if already or size == 1:
            raise torch.OutOfMemoryError(f"out of memory with {size} {what}{', which is half of what it was' * already}. {advice}: {error}") from error
        warnings.warn(f"out of memory with {size} {what} ({error}); from now on at most {size // 2}. The result is the same up to rounding, the step takes longer",
                      RuntimeWarning, stacklevel=5)
    halve(size // 2)  # here, where nothing holds on to the tensors of the first try any more
    return work()
