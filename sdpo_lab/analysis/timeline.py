"""Rewind a run: one attempt as student and teacher saw it after every step, and the whole trainer
as it was after any of them.

A step costs two passes over one short attempt, kept as a few kilobytes of plain data (`picture`).
Every so many steps the whole run is saved; any other step is computed again from the save before
it, which gives the same numbers to the last bit.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sdpo_lab.analysis.credit import credit, shown_texts
from sdpo_lab.analysis.pictures import MOST_CHARACTERS, MOST_TOKENS, clean, picture
from sdpo_lab.analysis.probe import as_probe, failures
from sdpo_lab.analysis.snapshots import Snapshots
from sdpo_lab.core.checks import check_kind, check_range, short_repr
from sdpo_lab.core.records import StepRecord
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem

MOST_PICTURES = 1000  # of a timeline; beyond, every second one is dropped
MOST_POINTS = 400  # of a course
#: Nats at which the colour of an advantage is full: the first that no advantage exceeds, or the
#: last.
FULL = (0.5, 1.0, 2.0, 3.0, 5.0)


class Timeline:
    """What can be seen again of a run of `trainer`, from the moment it was first watched.

    probe          the attempt to look at: a judged `Rollout`, or (problem, completion, feedback).
                   None: of the first step's failed attempts with feedback the one the student was
                   surest of; it stays the same for the whole run. Its first 512 tokens are scored
                   after every step by the student and by `trainer.teacher` (without one, a GRPO
                   run: by the student in the teacher's role), which is shown the feedback, or what
                   it was shown in the run
    folder         where whole snapshots go: a new or empty folder, which stays. None: a temporary
                   one, gone with the timeline
    every          steps between two snapshots
    max_megabytes  0.1 and more, of all snapshots: beyond, every second one is dropped and `every`
                   doubles; the one of the beginning stays. While one is written the folder can be
                   larger by that one

    `watch` is to be called once with None before the first step and then with the record of every
    step, by whoever takes the steps: `LiveRun(..., watchers=[timeline.watch])` does, as does a
    dashboard that was given the timeline; in a loop of your own it is one line. Without the first
    call the timeline begins after the first record it is shown. At most 1000 pictures are kept;
    beyond, every second one is dropped, and those are computed again when asked for.

    A run that cannot be saved goes on without snapshots, with a warning; `trouble` says why.
    """

    def __init__(
        self,
        trainer: Any,
        probe: Rollout | tuple[Problem, Any, str] | None = None,
        folder: str | Path | None = None,
        every: int = 10,
        max_megabytes: float = 200,
    ) -> None:
        if not callable(getattr(trainer, "step", None)) or not hasattr(trainer, "history"):
            raise TypeError(f"trainer must be an SDPOTrainer, got {short_repr(trainer)}")
        self.trainer = trainer
        self._snapshots = Snapshots(trainer, folder, every, max_megabytes)
        #: a Rollout; None until one was chosen
        self.probe = None if probe is None else as_probe(probe)
        #: steps the trainer had taken when the timeline began; None: it has not begun
        self.start: int | None = None
        #: why the last step without a picture has none
        self.blind = ""
        # torch's threads where the steps are taken: another number rounds otherwise
        self._threads: int | None = None
        self._pictures: dict[int, bytes] = {}  # compressed JSON
        self._stride = 1  # steps between two pictures
        self._sums: dict[int, float] = {}  # of every step that was ever scored
        self._largest = 0.0  # advantage, by size
        self._lock = threading.RLock()  # pages ask on other threads than the one that steps
        self._one_past = threading.Lock()  # each past is a model of its own

    def __repr__(self) -> str:
        if self.start is None:
            return "Timeline(not begun)"
        snapshots = ", ".join(map(str, self.snapshots)) or "no step"
        kept = f"{len(self._pictures)} pictures, snapshots at {snapshots}"
        trouble = f": {self.trouble}" if self.trouble else ""
        return f"Timeline(steps {self.start} to {len(self.trainer.history)}, {kept}){trouble}"

    folder = property(lambda self: self._snapshots.folder)
    every = property(lambda self: self._snapshots.every)
    max_megabytes = property(lambda self: self._snapshots.max_megabytes)
    #: why there are no more snapshots; "" when there is nothing to say
    trouble = property(lambda self: self._snapshots.trouble)

    @property
    def snapshots(self) -> list[int]:
        """The steps that were saved whole and are still there."""
        return sorted(self._saved())

    def _saved(self) -> dict[int, Path]:
        return self._snapshots.saved()

    # while the run goes on

    def watch(self, record: StepRecord | None) -> None:
        """To be called by whoever steps, between two steps: with None before the first, then with
        each step's record."""
        what = "a step's record, as step() returns it, or None before the first step"
        check_kind("record", record, (StepRecord, type(None)), what)
        with self.trainer.lock, self._lock:
            step = len(self.trainer.history)
            self._threads = torch.get_num_threads()
            if self.start is None:
                self.start = step
            if self.probe is None and record is not None:
                self._choose(record)
            elif self.probe is not None and step not in self._pictures:
                self._look(step, required=record is None)
            self._snapshots.save_if_due(step, self.start)

    def _choose(self, record: StepRecord) -> None:
        """The first of the step's failures that can be scored becomes the probe, and is scored."""
        for candidate in failures(record, self.trainer.config.success_reward_threshold):
            self.probe = candidate
            if self._look(record.step):
                return
        self.probe = None

    def _look(self, step: int, required: bool = False) -> bool:
        """Keep the picture of this moment. False where there can be none: under a template of now,
        its prompt is longer than the model's context."""
        try:
            self._keep(step, self._score(self.trainer))
        except ValueError as error:
            if required:
                raise ValueError(f"the probe cannot be scored: {error}") from error
            self.blind = f"step {step}: {error}"
            return False
        return True

    def _keep(self, step: int, data: dict[str, Any]) -> None:
        self._sums[step] = data["sum"]
        sizes = [abs(a) for a in data["advantage"] if a is not None]
        self._largest = max([self._largest, *sizes])
        if (step - self.start) % self._stride == 0:
            self._pictures[step] = zlib.compress(json.dumps(data).encode())
        while len(self._pictures) > MOST_PICTURES:
            self._stride *= 2
            kept = {s for s in self._pictures if (s - self.start) % self._stride == 0}
            self._pictures = {s: p for s, p in self._pictures.items() if s in kept}

    def _score(self, trainer: Any) -> dict[str, Any]:
        """The picture of the probe under a trainer's weights."""
        r = self.probe
        texts = shown_texts(r) if r.shown else {"feedback": r.feedback}
        model, tokenizer, config = trainer.model, trainer.tokenizer, trainer.config
        if not r.completion_ids:  # given as text: read by the run's tokenizer, once
            whole = credit(model, tokenizer, r.problem, r.text, config=config)
            r.completion_ids = whole.completion_ids[:MOST_TOKENS]
        teacher, ids = trainer.teacher, r.completion_ids
        return picture(
            credit(model, tokenizer, r.problem, ids, teacher=teacher, config=config, **texts)
        )

    # afterwards, or at any time

    @property
    def steps(self) -> list[int]:
        """The steps whose picture is at hand or in the first snapshot; 0: before the first."""
        begun = [self.start] if self._snapshots.begun and self.probe is not None else []
        # without the lock, which a step's snapshot can hold for long: pages ask often
        return sorted({*begun, *list(self._pictures)})

    def picture(self, step: int) -> dict[str, Any]:
        """The probe as student and teacher saw it after `step`: see `picture`, and "course", the
        same for all steps of a moment: {"question", "steps", "sums" (Σ |advantage| there, thinned
        to 400), "limit" (nats of full colour), "first", "last", "trouble"}.

        Steps without a picture are computed by `at`, and kept where there is room. Raises
        ValueError for a step that is none of the timeline's, and as long as there is no probe.
        """
        self._check(step)
        if self.probe is None:
            raise ValueError(
                "there is no attempt to look at yet: no failed attempt with feedback has been "
                "watched; pass probe="
            )
        data = self.kept(step)
        if data is None:
            with self._one_past:
                data = self.kept(step) or self._again(step)
        return {**data, "course": self.course()}

    def kept(self, step: int) -> dict[str, Any] | None:
        """The picture of a step without its course; None where it would have to be computed."""
        data = self._pictures.get(step)
        return json.loads(zlib.decompress(data)) if data else None

    def _again(self, step: int) -> dict[str, Any]:
        past = self.at(step)
        with self._rounding_as_the_run():
            data = self._score(past)
        with self._lock:
            self._keep(step, data)
        return data

    def course(self) -> dict[str, Any]:
        """How the sum of |advantage| went, and what else a page needs to draw any picture."""
        sums = dict(self._sums)
        steps = sorted(sums)
        stride = math.ceil(len(steps) / MOST_POINTS)
        kept = [s for k, s in enumerate(steps) if k % stride == 0 or s == steps[-1]]
        messages = self.probe.problem.messages if self.probe else []
        question = messages[-1]["content"] if messages else ""
        return {
            "question": clean(question, MOST_CHARACTERS),
            "steps": kept,
            "sums": [sums[s] for s in kept],
            "limit": next((f for f in FULL if f >= self._largest), FULL[-1]),
            "first": self.start,
            "last": len(self.trainer.history),
            "trouble": self.trouble,
        }

    def at(self, step: int) -> Any:
        """A trainer of its own as the run's was after `step`, weights of student and teacher,
        optimiser and history, equal to the last bit on a CPU.

        Computed from the snapshot at or before it, with the changes that were made by hand; so it
        takes up to `every` steps of time, and memory for a second model. The run's own trainer is
        not touched; it may go on meanwhile. A task that has a `state_dict` is copied, any other is
        used as it is. Raises ValueError for a step that is none of the timeline's, and RuntimeError
        where no snapshot helps or where the steps, taken again, are not the same: attempts that
        were given by hand, a judge that answers otherwise.
        """
        self._check(step)
        with self._lock:
            past = self._resumed(step)
            history = self.trainer.history
            changes = {s: dict(fields) for s, fields in dict(history.changes).items()}
            records = history.records[:step]
        with self._rounding_as_the_run():
            for number in range(len(past.history) + 1, step + 1):
                past.apply(**changes.get(number, {}))
                try:
                    record = past.step()
                except FloatingPointError:  # so the run itself ended
                    record = past.history.records[-1]
                self._check_same(record, records[number - 1])
        return past

    def _resumed(self, step: int) -> Any:
        """The trainer of the last snapshot at or before `step`."""
        live = self.trainer
        saved = [s for s in self._saved() if s <= step]
        if not saved:
            trouble = f": {self.trouble}" if self.trouble else ""
            raise RuntimeError(
                f"there is no snapshot at or before step {step} to go on from{trouble}"
            )
        task = copy.deepcopy(live.task) if hasattr(live.task, "state_dict") else live.task
        with torch.random.fork_rng(devices=[]):  # building a model draws numbers
            return type(live).resume(
                self.folder, task=task, device=str(live.model.device), step=max(saved)
            )

    def _check_same(self, again: StepRecord, was: StepRecord) -> None:
        """Raise RuntimeError where a step that was taken again differs: on a CPU in any bit."""
        tolerance = 0.0 if self.trainer.model.device.type == "cpu" else 1e-3
        if not same(again, was, tolerance):
            raise RuntimeError(
                f"step {was.step} could not be taken again: its mean reward was {was.reward:g} and "
                f"its loss {was.loss:g}, now they are {again.reward:g} and {again.loss:g}. Were "
                "its attempts given by hand, or does the judge not always say the same? Snapshots "
                f"are at {', '.join(map(str, self.snapshots))}: every=1 makes one a step"
            )

    @contextlib.contextmanager
    def _rounding_as_the_run(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def _check(self, step: int) -> None:
        if self.start is None:
            raise ValueError(
                "the timeline has not begun: watch(None) before the first step, or a run with "
                "watchers=[timeline.watch], begins it"
            )
        check_range("step", step, int, self.start, len(self.trainer.history))


def same(again: StepRecord, was: StepRecord, tolerance: float) -> bool:
    pairs = (again.reward, was.reward), (again.loss, was.loss)
    return all(
        a == b or math.isnan(a) and math.isnan(b) or math.isclose(a, b, rel_tol=tolerance)
        for a, b in pairs
    )
