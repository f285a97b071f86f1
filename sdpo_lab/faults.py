"""What a step does not fall over: an interrupt at the wrong moment, and memory that runs out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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
