"""What was asked of a run, how long it has worked, and which run drives which trainer."""

from __future__ import annotations

import collections
import threading
import time
import weakref
from typing import Any

#: {id(trainer): the run that drives it}
_drivers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_drivers_lock = threading.Lock()


def check_free(run: Any) -> None:
    """Raise RuntimeError when another run, which has not ended, drives this one's trainer."""
    other = _drivers.get(id(run.trainer))
    if other not in (None, run) and not other.ended:
        raise RuntimeError(
            f"another run drives this trainer: {other!r}; stop() that one first, or build a "
            "trainer of its own"
        )


def drive(run: Any) -> None:
    """From now on `run` alone drives its trainer. Raises RuntimeError as `check_free`."""
    with _drivers_lock:
        check_free(run)
        _drivers[id(run.trainer)] = run


def let_go(run: Any) -> None:
    """Free the trainer for another run."""
    if _drivers.get(id(run.trainer)) is run:
        del _drivers[id(run.trainer)]


class Control:
    """Whether a run is to go on, to rest or to end, and how many single steps it is to take."""

    def __init__(self) -> None:
        self.goal = "pause"  #: "run", "pause" or "stop"
        self.single_steps = 0  #: still to be taken while the goal is "pause"

    def run(self) -> None:
        self.goal, self.single_steps = "run", 0

    def step(self) -> None:
        self.goal, self.single_steps = "pause", self.single_steps + 1

    def pause(self) -> None:
        """Single steps not yet taken are given up; a stop stays a stop."""
        self.goal, self.single_steps = "stop" if self.goal == "stop" else "pause", 0

    def stop(self) -> None:
        self.goal, self.single_steps = "stop", 0

    @property
    def resting(self) -> bool:
        return self.goal == "pause" and not self.single_steps

    def begin_step(self) -> None:
        """A step is being taken: one of those that were asked for, unless all were."""
        self.single_steps -= self.goal == "pause"


class Clock:
    """Time spent in steps and what belongs to them; pauses do not count."""

    def __init__(self) -> None:
        self._spent = 0.0  # in steps that are over
        self._began: float | None = None  # when the step in hand began; None between steps
        self._recent: collections.deque[float] = collections.deque(maxlen=10)  # of whole steps

    def begin_step(self) -> None:
        self._began = time.monotonic()

    def end_step(self, whole: bool) -> None:
        seconds = time.monotonic() - self._began
        self._spent, self._began = self._spent + seconds, None
        if whole:
            self._recent.append(seconds)

    @property
    def seconds(self) -> float:
        return self._spent + (time.monotonic() - self._began if self._began else 0.0)

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of the last ten steps; None before the first."""
        return sum(self._recent) / len(self._recent) if self._recent else None
