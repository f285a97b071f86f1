"""A training run that can be paused, single-stepped, changed, measured and saved while it goes on.

The trainer works on a thread of its own and knows nothing of it. Whoever calls `start`, `pause`,
`set`, `save` ... only leaves a request, which the thread reads between two steps. So every call
returns at once, and no two threads are ever inside the trainer. Nothing here imports a widget
library.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from sdpo_lab.core.checks import check_choice, check_kind, check_range, short_repr, unknown_names
from sdpo_lab.live import measurements
from sdpo_lab.live.control import Clock, Control, check_free, drive, let_go
from sdpo_lab.live.progress import ProgressLine
from sdpo_lab.live.worker import Worker, clear_frames
from sdpo_lab.runs.checkpoints import as_path

CHECKPOINTS_KEPT = 2  # of a run's folder
ENDED = ("finished", "stopped", "failed")


class LiveRun(Worker):
    """`steps` more steps of `trainer`, under live control.

    `state` is one of "ready", "running", "pausing", "paused", "stopping", "finished", "stopped",
    "failed". "pausing" and "stopping" last until the step in hand is over. A run that has ended
    stays so; another `LiveRun(trainer, steps)` goes on from there. A trainer is driven by one
    LiveRun at a time: a second one raises RuntimeError.

    evaluate_every  steps between two measurements on test problems, 0 for none:
                    `measurements.measure` fills in "held_out_accuracy" and, with a teacher,
                    "teacher_accuracy" among the metrics of the step's record. The last step is
                    measured too. Neither weights nor run change
    evaluate_n      problems of a measurement, 1 to 10,000
    folder          where `save` saves, and where the run saves itself by time (`trainer.autosave`)
                    and at its end; None: only when asked
    watchers        called on the working thread, with None before this run's first step and with
                    the record of each step when all of it is known

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
            raise TypeError(f"trainer must be an SDPOTrainer, got {short_repr(trainer)}")
        check_range("steps", steps, int, 1, 10**9)
        check_kind("watchers", watchers, Iterable, "functions of a step's record")
        check_range("evaluate_every", evaluate_every, int, 0, 10**9)
        check_range("evaluate_n", evaluate_n, int, 1, 10_000)
        self.trainer, self.steps = trainer, steps
        self.evaluate_every, self.evaluate_n = evaluate_every, evaluate_n
        self.watchers = tuple(watchers)
        for watcher in self.watchers:
            if not callable(watcher):
                raise TypeError(
                    f"watchers must be functions of one record; got {short_repr(watcher)}"
                )

        self.first = len(trainer.history.records)  #: records the trainer already had
        self.done = 0  #: steps this run has taken
        self.exception: BaseException | None = None  #: what ended a failed run
        self._traceback: TracebackType | None = None
        self._control, self._clock = Control(), Clock()
        self._started = False
        self._end = ""  # one of ENDED; "" while the run can go on
        self._records_before: int | None = None  # the step in hand; None between steps
        self._watching = False  # the watchers have been called with None
        self._pending: dict[str, Any] = {}  # changes that wait for the next step
        check_free(self)

        self._saved_by_hand: Path | None = None  # where, last
        autosaved = trainer.autosaves.folder if trainer.autosaves else None
        self.folder = autosaved if folder is None else as_path(folder)
        if folder is not None:  # now, so that a folder that cannot be used is the caller's error
            trainer.autosave(self.folder, keep=CHECKPOINTS_KEPT)
        self._end_saved = self.folder is None  # done, or not wanted

    # what may be asked for; each call returns at once

    def start(self) -> None:
        """Run until finished, paused or stopped. Raises RuntimeError when the run has ended."""
        self._request(self._control.run)

    def pause(self) -> None:
        """Rest after the step in hand; nothing when the run rests already."""
        with self._changed:
            if not self._end:
                self._control.pause()
                self._changed.notify_all()

    def step(self) -> None:
        """Take exactly one step and rest. Raises RuntimeError while running: pause first."""
        with self._changed:
            if self.state == "running":
                raise RuntimeError(
                    "step() takes one step of a resting run, and this one is running; call pause() "
                    "first"
                )
            self._request(self._control.step)

    def stop(self) -> None:
        """End the run after the step in hand, for good; the trainer keeps what it has learned."""
        with self._changed:
            self._control.stop()
            if self._thread is None and not self._end:
                if self._started and not self._end_saved:
                    self._ensure_thread()  # a run that rests saves its end too
                else:
                    self._finish("stopped")

    def set(self, **fields: Any) -> None:
        """Change knobs from the next step on. Raises here and now what the trainer would raise."""
        unknown_names("a running trainer's live fields", fields, list(self.trainer.LIVE_FIELDS))
        with self._changed:
            in_hand = self._records_before == len(self.trainer.history.records)
            is_last = self.done + in_hand >= self.steps
            if self._end or self._control.goal == "stop" or is_last:
                raise RuntimeError(
                    f"this run is {self._end or self.state} and takes no further step; "
                    f"{', '.join(fields)} cannot be changed any more"
                )
            pending = {**self._pending, **fields}
            # a rehearsal: it raises what `apply` would raise between two steps, which also warns
            self.trainer.config.replace(live=True, quiet=True, **pending)
            self._pending = pending

    def save(self, folder: str | Path | None = None) -> Future:
        """Save the whole run at the next boundary, at once when the run rests; the result is the
        checkpoint's path, or what went wrong.

        `folder`, else the run's own, else "sdpo_run-" and the time in the working directory. A save
        that fails does not end the run. Raises TypeError or ValueError here and now for what is no
        folder's path.
        """
        given = None if folder is None else as_path(folder)

        def work() -> Path:
            path = given or self.folder or Path(time.strftime("sdpo_run-%Y%m%d-%H%M%S")).resolve()
            checkpoint = self.trainer.save(path, keep=CHECKPOINTS_KEPT)
            self.folder, self._saved_by_hand = self.folder or path, path
            return checkpoint

        return self.call_between_steps(work)

    def credit_of(self, step: int, index: int) -> Future:
        """The `Credit` of attempt `index` of step `step`, scored at the next boundary by the
        weights of that moment; see `measurements.credit_of`. Steps count from 1, attempts from 0;
        TypeError or ValueError here and now for other numbers."""
        step = check_range("step", step, int, 1, 10**9)
        index = check_range("index", index, int, 0, 10**9)
        return self.call_between_steps(lambda: measurements.credit_of(self.trainer, step, index))

    # what anyone may read at any time

    @property
    def ended(self) -> bool:
        return bool(self._end)

    @property
    def state(self) -> str:
        with self._changed:
            between = self._records_before is None
            resting = self._thread is None or (self._control.resting and between)
            if self._end or resting:
                return self._end or ("paused" if self._started else "ready")
            return {"run": "running", "pause": "pausing", "stop": "stopping"}[self._control.goal]

    @property
    def count(self) -> int:
        """Records of the trainer that are whole: measured, and seen by the watchers."""
        with self._changed:
            before = self._records_before
            return len(self.trainer.history.records) if before is None else before

    @property
    def pending(self) -> dict[str, Any]:
        """Changes that wait for the next step."""
        with self._changed:
            return dict(self._pending)

    def value(self, field: str) -> Any:
        """The value of a knob as the next step will use it. ValueError for another name."""
        check_choice("field", field, self.trainer.config.to_dict())
        with self._changed:
            return self._pending.get(field, getattr(self.trainer.config, field))

    @property
    def saved(self) -> tuple[int, Path] | None:
        """(after how many of the trainer's steps, in which folder) the run was saved last."""
        known = []
        for path in (self._saved_by_hand, self.folder):
            folder = self.trainer.folders.get(path) if path else None
            if folder and folder.newest is not None:
                known.append((folder.newest, path))
        return max(known, key=lambda saved: saved[0], default=None)

    @property
    def seconds(self) -> float:
        """Time spent in steps and what belongs to them; pauses do not count."""
        with self._changed:
            return self._clock.seconds

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of the last ten steps; None before the first."""
        with self._changed:
            return self._clock.seconds_per_step

    def records_since(self, index: int) -> list[Any]:
        """Records of the trainer's history from `index`, 0 or more, on, earlier runs included."""
        return self.trainer.history.records[check_range("index", index, int, 0) :]

    def __repr__(self) -> str:
        return f"LiveRun({self.state}, step {self.done} of {self.steps})"

    # waiting for the end

    def result(
        self,
        *,
        every: float = 0.3,
        progress: bool = True,
        meanwhile: Callable[[], None] | None = None,
    ) -> Any:
        """Wait until the run has ended and return `trainer.history`.

        A run nobody started is started, a paused one goes on. Raises what ended the run in the
        worker, with its traceback; RuntimeError when the history is shorter than asked although
        nobody stopped the run. Interrupting the wait pauses the run after the step in hand, so
        nothing is lost. `meanwhile` is called every `every` seconds, 0.001 to 3600; `progress`
        False shows no line. TypeError or ValueError for other arguments, before anything is
        started.
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
                    f"Interrupted: the run is paused after {self.done} of {self.steps} steps. "
                    "Nothing is lost; run this again to go on."
                )
            raise
        line.update(last=True)
        return self._outcome(line)

    def _outcome(self, line: ProgressLine) -> Any:
        if self.exception is not None:
            if isinstance(self.exception, Exception):
                raise self.exception.with_traceback(self._traceback)
            # SystemExit in a judge must not end the reader's kernel, nor pass for success
            name = type(self.exception).__name__
            raise RuntimeError(f"the run ended in {name}: {self.exception}") from self.exception
        history = self.trainer.history
        if self._end == "stopped":
            line.say(f"The run was stopped by hand after {self.done} of {self.steps} steps.")
        elif len(history.records) < self.first + self.steps:
            raise RuntimeError(
                f"the history holds {len(history.records) - self.first} of the {self.steps} steps "
                "asked for"
            )
        return history

    # requests: the calling thread

    def _request(self, request: Callable[[], None]) -> None:
        """Make a request for steps. Raises RuntimeError when there will be none."""
        with self._changed:
            if self._end:
                raise RuntimeError(
                    f"this run is {self._end} after {self.done} of {self.steps} steps; a new one "
                    "goes on from here"
                )
            if self._control.goal == "stop":
                raise RuntimeError("this run is about to stop; a new one goes on from there")
            drive(self)
            self._started = True
            request()
            self._ensure_thread()

    # steps: the working thread

    def _next(self) -> Callable[[], None] | None:
        """Between two steps: what to do now. None ends the thread."""
        with self._changed:
            if call := self._next_call():
                return call
            if self._end or self._control.goal == "stop" or self.done >= self.steps:
                # of a step that was cut short nothing is saved
                if self._started and not self._end_saved and self._end != "failed":
                    self._end_saved = True
                    return self._save_the_end
                self._finish(self._end or ("finished" if self.done >= self.steps else "stopped"))
                return None
            if self._control.resting:
                self._thread_ends()
                return None
            self._control.begin_step()
            self._clock.begin_step()
            self._records_before = len(self.trainer.history.records)
            return self._take_step

    def _take_step(self) -> None:
        done, number, error = self.done, self._records_before + 1, None
        try:
            self._apply_pending()
            if not self._watching:
                self._watching = True
                for watcher in self.watchers:
                    watcher(None)
            record = self._measured_step(number)
            for watcher in self.watchers:
                watcher(record)
        except (
            BaseException
        ) as caught:  # the reader must see any: a silent thread looks like a hang
            error = caught
        with self._changed:
            if error is not None and len(self.trainer.history) >= number:
                self.done = done + 1  # the step is whole, what followed it was not
            self._clock.end_step(whole=self.done > done)
            self._records_before = None
            if error is not None:
                self._fail(error)
            self._changed.notify_all()

    def _apply_pending(self) -> None:
        if applied := self.pending:
            self.trainer.apply(**applied)
            with self._changed:  # what was chosen meanwhile waits for the next step
                left = [item for item in self._pending.items() if item not in applied.items()]
                self._pending = dict(left)

    def _measured_step(self, number: int) -> Any:
        """One step of the trainer, measured where that is due."""
        is_last = self.done + 1 == self.steps
        measured = self.evaluate_every and (number % self.evaluate_every == 0 or is_last)
        with measurements.autosave_after(self.trainer) if measured else contextlib.nullcontext():
            record = self.trainer.step()
            self.done += 1
            if measured:
                record.metrics.update(measurements.measure(self.trainer, self.evaluate_n))
        return record

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
        clear_frames(error)

    def _finish(self, end: str) -> None:
        """With the lock held; frees the trainer for another run."""
        self._end, self._pending = end, {}
        let_go(self)
        self._thread_ends()
