"""A training run that can be started, paused, single-stepped, changed, measured, saved and stopped while it runs.

The trainer works on a thread of its own and knows nothing of it; whoever calls `start`, `pause`, `set`, `save` ... only leaves a wish,
which the thread reads between two steps. So every call returns at once, and no two threads are ever inside the trainer.
Nothing here imports a widget library.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from sdpo_lab.core.checks import check_choice, check_kind, check_range, shown, unknown_names
from sdpo_lab.live import measurements as asides
from sdpo_lab.live.progress import ProgressLine
from sdpo_lab.live.worker import Worker
from sdpo_lab.runs.checkpoints import as_path

KEPT = 2  # checkpoints of a run's folder
ENDED = ("finished", "stopped", "failed")

_drivers: weakref.WeakValueDictionary[int, LiveRun] = (
    weakref.WeakValueDictionary()
)  # id(trainer) -> the run that drives it
_claiming = threading.Lock()


class LiveRun(Worker):
    """`steps` more steps of `trainer`, under live control.

    `state` is one of "ready", "running", "pausing", "paused", "stopping", "finished", "stopped", "failed". "pausing" and
    "stopping" last until the step in hand is over. A run that has ended stays so; another `LiveRun(trainer, steps)` goes on
    from there. A trainer is driven by one LiveRun at a time: a second one raises RuntimeError.

    evaluate_every  steps between two measurements on test problems, 0 for none: `asides.measure` fills in "held_out_accuracy" and, with a
                    teacher, "teacher_accuracy" among the metrics of the step's record. The last step is measured too. Neither weights nor run change
    evaluate_n      problems of a measurement, 1 to 10,000
    folder          where `save` saves, and where the run saves itself by time (`trainer.autosave`) and at its end; None: only when asked
    watchers        called on the working thread, with None before this run's first step and with the record of each step when all of it is known

    A watcher or measurement that raises ends the run as "failed"; the step it followed counts.
    """

    def __init__(
        self,
        trainer: Any,
        steps: int = 60,
        *,
        evaluate_every: int = 0,
        evaluate_n: int = 32,
        folder: str | Path | None = None,
        watchers: Iterable[Callable[[Any], None]] = (),
    ) -> None:
        super().__init__()
        if not callable(getattr(trainer, "step", None)) or not hasattr(trainer, "history"):
            raise TypeError(f"trainer must be an SDPOTrainer, got {shown(trainer)}")
        check_range("steps", steps, int, 1, 10**9)
        check_kind("watchers", watchers, Iterable, "functions of a step's record")
        check_range("evaluate_every", evaluate_every, int, 0, 10**9)
        check_range("evaluate_n", evaluate_n, int, 1, 10_000)
        self.trainer, self.steps = trainer, steps
        self.evaluate_every, self.evaluate_n, self.watchers = (
            evaluate_every,
            evaluate_n,
            tuple(watchers),
        )
        for watcher in self.watchers:
            if not callable(watcher):
                raise TypeError(f"watchers must be functions of one record; got {shown(watcher)}")
        self.folder = (
            as_path(folder)
            if folder is not None
            else trainer.autosaves.folder
            if trainer.autosaves
            else None
        )
        self._by_hand: Path | None = None  # where a hand saved last
        self.first = len(trainer.history.records)  #: records the trainer already had
        self.done = 0  #: steps this run has taken
        self.exception: BaseException | None = None  #: what ended a failed run
        self._traceback: TracebackType | None = None
        self._wish, self._owed = "pause", 0  # "run", "pause" or "stop"; single steps still to take
        self._started, self._end = False, ""  # the end is one of ENDED
        self._inside: int | None = None  # records before the step in hand; None between steps
        self._watching = False  # the watchers have been called with None
        self._pending: dict[str, Any] = {}
        self._busy, self._step_began, self._recent = 0.0, None, []
        self._refuse_second_driver()
        if folder is not None:
            trainer.autosave(
                self.folder, keep=KEPT
            )  # here, where a folder that cannot be used is an error of the caller
        self._last_save = self.folder is None  # done, or not wanted

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
                raise RuntimeError(
                    "step() takes one step of a resting run, and this one is running; call pause() first"
                )
            self._leave_wish("pause", owed=1)

    def stop(self) -> None:
        """End the run after the step in hand, for good; the trainer keeps what it has learned."""
        with self._changed:
            self._wish, self._owed = "stop", 0
            if self._thread is None and not self._end:
                if self._started and not self._last_save:
                    self._work_on()  # a run that rests saves its end too
                else:
                    self._finish("stopped")

    def set(self, **fields: Any) -> None:
        """Change knobs from the next step on. Raises ValueError or TypeError here and now for what the trainer would refuse."""
        unknown_names("a running trainer's live fields", fields, list(self.trainer.LIVE_FIELDS))
        with self._changed:
            if (
                self._end
                or self._wish == "stop"
                or self.done + (self._inside == len(self.trainer.history.records)) >= self.steps
            ):
                raise RuntimeError(
                    f"this run is {self._end or self.state} and takes no further step; {', '.join(fields)} cannot be changed any more"
                )
            together = {**self._pending, **fields}
            self.trainer.config.replace(
                live=True, quiet=True, **together
            )  # a rehearsal: it raises what `apply` would raise at the boundary, which also warns
            self._pending = together

    def save(self, folder: str | Path | None = None) -> Future:
        """Save the whole run at the next boundary, at once when the run rests; the result is the checkpoint's path, or what went wrong.

        `folder`, else the run's own, else "sdpo_run-" and the time in the working directory. A save that fails does not end the run. Raises TypeError
        or ValueError here and now for what is no folder's path.
        """
        asked = None if folder is None else as_path(folder)

        def work() -> Path:
            where = asked or self.folder or Path(time.strftime("sdpo_run-%Y%m%d-%H%M%S")).resolve()
            at = self.trainer.save(where, keep=KEPT)
            self.folder, self._by_hand = self.folder or where, where
            return at

        return self.errand(work)

    def credit_of(self, step: int, index: int) -> Future:
        """The `Credit` of attempt `index` of step `step`, scored at the next boundary by the weights of that moment; see `asides.credit_of`. Steps count from 1, attempts
        from 0; TypeError or ValueError here and now for other numbers."""
        step, index = (
            check_range("step", step, int, 1, 10**9),
            check_range("index", index, int, 0, 10**9),
        )
        return self.errand(lambda: asides.credit_of(self.trainer, step, index))

    # what anyone may read at any time

    @property
    def state(self) -> str:
        with self._changed:
            resting = self._thread is None or (
                self._wish == "pause" and not self._owed and self._inside is None
            )
            if self._end or resting:
                return self._end or ("paused" if self._started else "ready")
            return {"run": "running", "pause": "pausing", "stop": "stopping"}[self._wish]

    @property
    def count(self) -> int:
        """Records of the trainer that are whole: their measurements are in, their watchers have seen them."""
        with self._changed:
            return len(self.trainer.history.records) if self._inside is None else self._inside

    @property
    def pending(self) -> dict[str, Any]:
        """Changes that wait for the next step."""
        with self._changed:
            return dict(self._pending)

    def value(self, field: str) -> Any:
        """The value of a knob, a field of SDPOConfig, as the next step will use it. ValueError for another name."""
        check_choice("field", field, self.trainer.config.to_dict())
        with self._changed:
            return self._pending.get(field, getattr(self.trainer.config, field))

    @property
    def saved(self) -> tuple[int, Path] | None:
        """(after how many steps of the trainer, in which folder) the run was saved last, by hand or by time."""
        known = [
            (f.newest, path)
            for path in (self._by_hand, self.folder)
            if path and (f := self.trainer.folders.get(path)) and f.newest is not None
        ]
        return max(known, key=lambda found: found[0], default=None)

    @property
    def seconds(self) -> float:
        """Time spent in steps and what belongs to them; pauses do not count."""
        with self._changed:
            return self._busy + (time.monotonic() - self._step_began if self._step_began else 0.0)

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of the last ten steps; None before the first."""
        with self._changed:
            return sum(self._recent) / len(self._recent) if self._recent else None

    def records_since(self, index: int) -> list[Any]:
        """Records of the trainer's history from `index`, 0 or more, on, earlier runs included."""
        return self.trainer.history.records[check_range("index", index, int, 0) :]

    def result(
        self,
        *,
        every: float = 0.3,
        progress: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """Wait until the run has ended and return `trainer.history`.

        A run nobody started is started, a paused one goes on. Raises what ended the run in the worker, with its traceback;
        RuntimeError when the history is shorter than asked although nobody stopped the run. Interrupting the wait pauses
        the run after the step in hand, so nothing is lost. `meanwhile` is called every `every` seconds, 0.001 to 3600; `progress` False shows no line.
        TypeError or ValueError for other arguments, before anything is started.
        """
        check_range("every", every, float, 0.001, 3600)
        check_choice("progress", progress, (False, True))
        check_kind(
            "meanwhile", meanwhile, (Callable, type(None)), "a function without arguments, or None"
        )
        line = ProgressLine(self, enabled=progress)
        try:
            with self._changed:  # it must not end in between
                state = self.state
                if state in ("ready", "pausing", "paused"):
                    self.start()
            if state in ("pausing", "paused"):
                line.say(f"The run was paused after {self.done} of {self.steps} steps; it goes on.")
            ended = False
            while not ended:
                with self._changed:
                    ended = self._changed.wait_for(lambda: self._end, every)
                line.update()
                if meanwhile:
                    meanwhile()
        except KeyboardInterrupt:
            self.pause()
            self.wait()
            if meanwhile:
                meanwhile()
            if not self._end:
                line.say(
                    f"Interrupted: the run is paused after {self.done} of {self.steps} steps. Nothing is lost; run this again to go on."
                )
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
            raise RuntimeError(
                f"the run ended in {type(self.exception).__name__}: {self.exception}"
            ) from self.exception
        history = self.trainer.history
        if self._end == "stopped":
            line.say(f"The run was stopped by hand after {self.done} of {self.steps} steps.")
        elif len(history.records) < self.first + self.steps:
            raise RuntimeError(
                f"the history holds {len(history.records) - self.first} of the {self.steps} steps asked for"
            )
        return history

    def _refuse_second_driver(self) -> None:
        other = _drivers.get(id(self.trainer))
        if other is not None and other is not self and not other._end:
            raise RuntimeError(
                f"another run drives this trainer: {other!r}; stop() that one first, or build a trainer of its own"
            )

    def _leave_wish(self, wish: str, owed: int = 0) -> None:
        with self._changed:
            if self._end:
                raise RuntimeError(
                    f"this run is {self._end} after {self.done} of {self.steps} steps; a new one goes on from here"
                )
            if self._wish == "stop":
                raise RuntimeError("this run is about to stop; a new one goes on from there")
            with _claiming:
                self._refuse_second_driver()
                _drivers[id(self.trainer)] = self
            self._started, self._wish, self._owed = (
                True,
                wish,
                self._owed + owed if wish == "pause" else 0,
            )
            self._work_on()

    def _next(self) -> Callable[[], None] | None:
        """At a boundary: what to do now. None ends the thread."""
        with self._changed:
            if errand := self._next_errand():
                return errand
            if self._end or self._wish == "stop" or self.done >= self.steps:
                if (
                    self._started and not self._last_save and self._end != "failed"
                ):  # of a step cut short nothing is saved
                    self._last_save = True
                    return self._save_the_end
                self._finish(self._end or ("finished" if self.done >= self.steps else "stopped"))
            elif self._wish == "run" or self._owed:
                self._owed -= self._wish != "run"
                self._inside, self._step_began = len(self.trainer.history.records), time.monotonic()
                return self._step
            else:
                self._rest()
            return None

    def _step(self) -> None:
        before, error = self.done, None
        number = self._inside + 1
        try:
            if pending := self.pending:
                self.trainer.apply(**pending)
                with self._changed:  # what was chosen meanwhile waits for the next boundary
                    self._pending = {
                        field: v
                        for field, v in self._pending.items()
                        if (field, v) not in pending.items()
                    }
            if not self._watching:
                self._watching = True
                for watcher in self.watchers:
                    watcher(None)
            measured = self.evaluate_every and (
                number % self.evaluate_every == 0 or self.done + 1 == self.steps
            )
            with unsaved(self.trainer) if measured else contextlib.nullcontext():
                record = self.trainer.step()
                self.done += 1
                if measured:
                    record.metrics.update(asides.measure(self.trainer, self.evaluate_n))
            for watcher in self.watchers:
                watcher(record)
        except BaseException as caught:  # whatever it is, the reader must see it; a silent thread would look like a hang
            error = caught
        with self._changed:
            took = time.monotonic() - self._step_began
            self._busy, self._step_began, self._inside = self._busy + took, None, None
            if error is not None and len(self.trainer.history) >= number:
                self.done = before + 1  # the step is whole, what followed it was not
            if self.done > before:
                self._recent = [*self._recent[-9:], took]
            if error is not None:
                self._fail(error)
            self._changed.notify_all()

    def _save_the_end(self) -> None:
        try:
            if self.trainer.autosaves:
                self.trainer.autosaves.last = -math.inf  # due now
                self.trainer.autosave_if_due()
        except BaseException as error:
            with self._changed:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.exception, self._traceback, self._end = error, error.__traceback__, "failed"
        cause: BaseException | None = error
        while (
            cause is not None
        ):  # what the step held, tensors above all, must not live as long as this run
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__

    def _finish(self, end: str) -> None:
        """Called with the lock held; frees the trainer for another run."""
        self._end, self._pending = end, {}
        if _drivers.get(id(self.trainer)) is self:
            del _drivers[id(self.trainer)]
        self._rest()


@contextlib.contextmanager
def unsaved(trainer: Any) -> Iterator[None]:
    """A step inside saves itself when this is over: a line of the saved history is written once, and what is measured after the step belongs there."""
    with trainer.lock:  # nor does anybody else save it, or change where it is saved
        trainer.autosaves, held = None, trainer.autosaves
        try:
            yield
        finally:
            trainer.autosaves = held
        trainer.autosave_if_due()
