"""One thread that exists only while there is something to do, and can be waited for."""

from __future__ import annotations

import atexit
import collections
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sdpo_lab.core.checks import check_kind, check_range

_at_work: weakref.WeakSet[Worker] = weakref.WeakSet()  # those whose thread exists


class Worker:
    """Does what `_next` gives it, piece by piece, on a thread of its own, and calls in between.

    A subclass overrides `_next` and, so that it can be ended, `stop`. All of its state is guarded
    by `_changed`, a condition that is notified of every change.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None  # exists only while there is work
        self._calls: collections.deque[tuple[Callable[[], Any], Future]] = collections.deque()

    def call_between_steps(self, work: Callable[[], Any]) -> Future:
        """Have `work` called at the next boundary, where nobody else is inside the trainer; at once
        when the run rests. What it returns or raises is in the Future, and does not end the run.
        Raises TypeError for what is no function."""
        check_kind("work", work, Callable, "a function without arguments")
        future: Future = Future()
        with self._changed:
            self._calls.append((work, future))
            self._ensure_thread()
        return future

    errand = call_between_steps  # its name before 0.2

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being computed; False when that took more than `timeout` seconds,
        0 to a billion; None waits as long as it takes."""
        if timeout is not None:
            check_range("timeout", timeout, float, 0, 10**9)
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def stop(self) -> None:
        """Do no more than what is in hand."""
        raise NotImplementedError

    def _next(self) -> Callable[[], None] | None:
        """What to do now; None, after `_thread_ends`, ends the thread."""
        raise NotImplementedError

    def _next_call(self) -> Callable[[], None] | None:
        """With the lock held: the oldest call that waits, ready to be made."""
        if not self._calls:
            return None
        work, future = self._calls.popleft()
        return lambda: call_into(work, future)

    def _ensure_thread(self) -> None:
        """With the lock held: see that there is a thread."""
        if self._thread is None:
            thread = threading.Thread(
                target=self._work, args=(torch_threads(),), daemon=True, name="sdpo_lab-live-run"
            )
            thread.start()  # first: one that could not be started must not count as at work
            self._thread = thread
            _at_work.add(self)

    def _work(self, threads: int | None) -> None:
        # another number of threads than in the rest of the program would change speed and rounding
        if threads is not None and torch_threads() != threads:
            sys.modules["torch"].set_num_threads(threads)
        while work := self._next():
            work()

    def _thread_ends(self) -> None:
        """With the lock held, by the thread that ends."""
        self._thread = None
        _at_work.discard(self)
        self._changed.notify_all()


def call_into(work: Callable[[], Any], future: Future) -> None:
    """Call `work`, unless it was cancelled; the result or the exception goes into the future."""
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)


def clear_frames(error: BaseException) -> None:
    """What the frames of an error held, tensors above all, must not live as long as the error."""
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__


def torch_threads() -> int | None:
    """Threads torch would use in the calling thread; None where torch is not loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


@atexit.register
def _rest_before_exit() -> None:
    """A thread inside torch can crash an interpreter that shuts down; most steps take < 2 s."""
    for worker in list(_at_work):
        worker.stop()
        worker.wait(2.0)
