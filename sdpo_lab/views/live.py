"""A training run that can be started, paused, single-stepped, changed and stopped while it runs.

The trainer works on a thread of its own and knows nothing of it; whoever calls `start`, `pause`, `set` ... only leaves a wish,
which the thread reads between two steps. So every call returns at once, and no two threads are ever inside the trainer.
Nothing here imports a widget library.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from sdpo_lab.errors import check_range, unknown_names
from sdpo_lab.views.progress import ProgressLine

RESTING = ("ready", "paused", "finished", "stopped", "failed")  # states in which nothing is being computed
ENDED = ("finished", "stopped", "failed")

_drivers: weakref.WeakValueDictionary[int, LiveRun] = weakref.WeakValueDictionary()  # id(trainer) -> the run that drives it
_claiming = threading.Lock()


class LiveRun:
    """`steps` more steps of `trainer`, under live control.

    `state` is one of "ready", "running", "pausing", "paused", "stopping", "finished", "stopped", "failed". "pausing" and
    "stopping" last until the step in hand is over. A run that has ended stays so; another `LiveRun(trainer, steps)` goes on
    from there. A trainer is driven by one LiveRun at a time: a second one raises RuntimeError.
    """

    def __init__(self, trainer: Any, steps: int = 60) -> None:
        check_range("steps", steps, int, 1, 10**9)
        self.trainer, self.steps = trainer, steps
        self.first = len(trainer.history.records)  #: records the trainer already had
        self.done = 0  #: steps this run has taken
        self.exception: BaseException | None = None  #: what ended a failed run
        self._traceback: TracebackType | None = None
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None  # exists only while steps are being taken
        self._wish, self._owed = "pause", 0  # "run", "pause" or "stop"; single steps still to take
        self._started, self._end = False, ""  # the end is one of ENDED
        self._pending: dict[str, Any] = {}
        self._busy, self._step_began, self._recent = 0.0, None, []
        self._refuse_second_driver()

    # what a hand may do; each call returns at once

    def start(self) -> None:
        """Run until finished, paused or stopped. Raises RuntimeError when the run has ended."""
        self._leave_wish("run")

    def pause(self) -> None:
        """Rest after the step in hand; nothing when the run rests already."""
        with self._changed:
            if not self._end:
                self._wish, self._owed = ("pause" if self._wish == "run" else self._wish), 0
                self._changed.notify_all()

    def step(self) -> None:
        """Take exactly one step and rest. Raises RuntimeError while running: pause first."""
        with self._changed:
            if self.state == "running":
                raise RuntimeError("step() takes one step of a resting run, and this one is running; call pause() first")
            self._leave_wish("pause", owed=1)

    def stop(self) -> None:
        """End the run after the step in hand, for good; the trainer keeps what it has learned."""
        with self._changed:
            self._wish, self._owed = "stop", 0
            if self._thread is None and not self._end:
                self._finish("stopped")

    def set(self, **fields: Any) -> None:
        """Change knobs from the next step on. Raises ValueError or TypeError here and now for what the trainer would refuse."""
        unknown_names("a running trainer's live fields", fields, list(self.trainer.LIVE_FIELDS))
        with self._changed:
            if self._end:
                raise RuntimeError(f"this run is {self._end}; {', '.join(fields)} cannot be changed any more")
            together = {**self._pending, **fields}
            with warnings.catch_warnings():  # a rehearsal: it raises what `apply` would raise at the boundary, which also warns
                warnings.simplefilter("ignore")
                self.trainer.config.replace(live=True, **together)
            self._pending = together

    # what anyone may read at any time

    @property
    def state(self) -> str:
        with self._changed:
            if self._end or self._thread is None:
                return self._end or ("paused" if self._started else "ready")
            return {"run": "running", "pause": "pausing", "stop": "stopping"}[self._wish]

    @property
    def pending(self) -> dict[str, Any]:
        """Changes that wait for the next step."""
        with self._changed:
            return dict(self._pending)

    def value(self, field: str) -> Any:
        """The value of a knob as the next step will use it."""
        with self._changed:
            return self._pending.get(field, getattr(self.trainer.config, field))

    @property
    def seconds(self) -> float:
        """Time spent in steps; pauses do not count."""
        with self._changed:
            return self._busy + (time.monotonic() - self._step_began if self._step_began else 0.0)

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of the last ten steps; None before the first."""
        with self._changed:
            return sum(self._recent) / len(self._recent) if self._recent else None

    def records_since(self, index: int) -> list[Any]:
        """Records of the trainer's history from `index` on, earlier runs included."""
        return self.trainer.history.records[max(0, index):]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being computed; False when that took more than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, timeout)

    def result(self, *, every: float = 0.3, progress: bool = True, meanwhile: Callable[[], None] | None = None) -> Any:
        """Wait until the run has ended and return `trainer.history`.

        A run nobody started is started, a paused one goes on. Raises what ended the run in the worker, with its traceback;
        RuntimeError when the history is shorter than asked although nobody stopped the run. Interrupting the wait pauses
        the run after the step in hand, so nothing is lost. `meanwhile` is called every `every` seconds.
        """
        line = ProgressLine(self, enabled=progress)
        try:
            state = self.state
            if state in ("pausing", "paused"):
                line.say(f"The run was paused after {self.done} of {self.steps} steps; it goes on.")
            if state in ("ready", "pausing", "paused"):
                self.start()
            while not self._end:
                with self._changed:
                    self._changed.wait_for(lambda: self._end, every)
                line.update()
                if meanwhile:
                    meanwhile()
        except KeyboardInterrupt:
            self.pause()
            self.wait()
            if meanwhile:
                meanwhile()
            if not self._end:
                line.say(f"Interrupted: the run is paused after {self.done} of {self.steps} steps. Nothing is lost; run this again to go on.")
            raise
        line.update(last=True)
        return self._outcome(line)

    def __repr__(self) -> str:
        return f"LiveRun({self.state}, step {self.done} of {self.steps})"

    # inside

    def _outcome(self, line: ProgressLine) -> Any:
        if self.exception is not None:
            if isinstance(self.exception, Exception):
                raise self.exception.with_traceback(self._traceback)
            # SystemExit in a judge must not end the reader's kernel, nor pass for success
            raise RuntimeError(f"the run ended in {type(self.exception).__name__}: {self.exception}") from self.exception
        history = self.trainer.history
        if self._end == "stopped":
            line.say(f"The run was stopped by hand after {self.done} of {self.steps} steps.")
        elif len(history.records) < self.first + self.steps:
            raise RuntimeError(f"the history holds {len(history.records) - self.first} of the {self.steps} steps asked for")
        return history

    def _refuse_second_driver(self) -> None:
        other = _drivers.get(id(self.trainer))
        if other is not None and other is not self and not other._end:
            raise RuntimeError(f"another run drives this trainer: {other!r}; stop() that one first, or build a trainer of its own")

    def _leave_wish(self, wish: str, owed: int = 0) -> None:
        with self._changed:
            if self._end:
                raise RuntimeError(f"this run is {self._end} after {self.done} of {self.steps} steps; a new one goes on from here")
            if self._wish == "stop":
                raise RuntimeError("this run is about to stop; a new one goes on from there")
            with _claiming:
                self._refuse_second_driver()
                _drivers[id(self.trainer)] = self
            self._started, self._wish, self._owed = True, wish, self._owed + owed if wish == "pause" else 0
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, args=(torch_threads(),), daemon=True, name="sdpo_lab-live-run")
                self._thread.start()

    def _work(self, threads: int | None) -> None:
        if threads is not None and torch_threads() != threads:
            sys.modules["torch"].set_num_threads(threads)  # fewer here than elsewhere would change speed and rounding
        while self._may_step():
            try:
                self.trainer.step()
            except BaseException as error:  # whatever it is, the reader must see it; a silent thread would look like a hang
                self._after_step(error)
            else:
                self._after_step()

    def _may_step(self) -> bool:
        """At a boundary: decide, apply what was changed, and note the time. False ends the thread."""
        with self._changed:
            if self._end or self._wish == "stop" or self.done >= self.steps:
                self._finish(self._end or ("finished" if self.done >= self.steps else "stopped"))
            elif self._wish == "run" or self._owed:
                self._owed -= self._wish != "run"
                try:
                    if self._pending:
                        self.trainer.apply(**self._pending)
                        self._pending = {}
                except BaseException as error:
                    self.exception, self._traceback = error, error.__traceback__
                    self._finish("failed")
                    return False
                self._step_began = time.monotonic()
                return True
            else:
                self._thread = None
                self._changed.notify_all()
            return False

    def _after_step(self, error: BaseException | None = None) -> None:
        with self._changed:
            took = time.monotonic() - self._step_began
            self._busy, self._step_began = self._busy + took, None
            if error is None:
                self.done += 1
                self._recent = [*self._recent[-9:], took]
            else:
                self.exception, self._traceback, self._end = error, error.__traceback__, "failed"
            self._changed.notify_all()

    def _finish(self, end: str) -> None:
        """Called with the lock held; frees the trainer for another run."""
        self._end, self._thread, self._pending = end, None, {}
        if _drivers.get(id(self.trainer)) is self:
            del _drivers[id(self.trainer)]
        self._changed.notify_all()


def torch_threads() -> int | None:
    """Threads torch would use in the calling thread; None where torch is not loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


@atexit.register
def _rest_before_exit() -> None:
    """A thread inside torch while the interpreter shuts down can crash it; two seconds are enough for most steps."""
    for run in list(_drivers.values()):
        run.stop()
        run.wait(2.0)
