"""One thread that works on what it is told to, exists only while there is something to do, and can be waited for."""

from __future__ import annotations

import atexit
import collections
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sdpo_lab.core.checks import check_kind, check_range

_at_work: weakref.WeakSet[Worker] = weakref.WeakSet()  # those whose thread exists


class Worker:
    """Does what `_next` gives it, piece by piece, on a thread of its own, and errands in between.

    A kind of it overrides `_next` and, so that it can be ended, `stop`. All of its state is guarded by `_changed`, which tells of every change.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None  # exists only while there is work
        self._errands: collections.deque[tuple[Callable[[], Any], Future]] = collections.deque()

    def errand(self, work: Callable[[], Any]) -> Future:
        """Have `work` done at the next boundary, where nobody else is inside the trainer; at once when the run rests. What it raises is
        in the Future and does not end the run. Raises TypeError for what is no function."""
        check_kind("work", work, Callable, "a function without arguments")
        done: Future = Future()
        with self._changed:
            self._errands.append((work, done))
            self._work_on()
        return done

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being computed; False when that took more than `timeout` seconds, 0 to a billion; None waits as long as it takes."""
        if timeout is not None:
            check_range("timeout", timeout, float, 0, 10**9)
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def stop(self) -> None:
        """Do no more than what is in hand."""
        raise NotImplementedError

    def _next(self) -> Callable[[], None] | None:
        """What to do now; None, after `_rest`, ends the thread."""
        raise NotImplementedError

    def _next_errand(self) -> Callable[[], None] | None:
        """Called with the lock held."""
        if not self._errands:
            return None
        work, done = self._errands.popleft()
        return lambda: run_errand(work, done)

    def _work_on(self) -> None:
        """Called with the lock held: see that there is a thread."""
        if self._thread is None:
            thread = threading.Thread(
                target=self._work, args=(torch_threads(),), daemon=True, name="sdpo_lab-live-run"
            )
            thread.start()  # it waits for the lock; one that could not be started must not count as at work
            self._thread = thread
            _at_work.add(self)

    def _work(self, threads: int | None) -> None:
        if threads is not None and torch_threads() != threads:
            sys.modules["torch"].set_num_threads(
                threads
            )  # fewer here than elsewhere would change speed and rounding
        while todo := self._next():
            todo()

    def _rest(self) -> None:
        """Called with the lock held, by the thread that ends."""
        self._thread = None
        _at_work.discard(self)
        self._changed.notify_all()


def run_errand(work: Callable[[], Any], done: Future) -> None:
    if done.set_running_or_notify_cancel():
        try:
            done.set_result(work())
        except BaseException as error:  # whoever asked is told
            done.set_exception(error)


def torch_threads() -> int | None:
    """Threads torch would use in the calling thread; None where torch is not loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


@atexit.register
def _rest_before_exit() -> None:
    """A thread inside torch while the interpreter shuts down can crash it; two seconds are enough for most steps."""
    for run in list(_at_work):
        run.stop()
        run.wait(2.0)
