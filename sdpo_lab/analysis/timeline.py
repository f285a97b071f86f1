"""Rewind a run: one attempt as student and teacher saw it after every step, and the whole trainer as it was after any of them.

A step costs two passes over one short attempt, kept as a few kilobytes of plain data (`picture`). Every so many steps the whole
run is saved; any other step is computed again from the save before it, which gives the same numbers to the last bit.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import shutil
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdpo_lab.analysis.credit import credit
from sdpo_lab.analysis.pictures import MOST_CHARACTERS, MOST_TOKENS, clean, picture
from sdpo_lab.core.checks import check_kind, check_range, shown
from sdpo_lab.core.records import StepRecord
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import Problem

MOST_PICTURES = 1000  # of a timeline; beyond, every second one is dropped
MOST_POINTS = 400  # of a course
FULL = (
    0.5,
    1.0,
    2.0,
    3.0,
    5.0,
)  # nats at which the colour of an advantage is full: the first that no advantage exceeds, or the last


class Timeline:
    """What can be seen again of a run of `trainer`, from the moment it was first watched.

    probe          the attempt to look at: a judged `Rollout`, or (problem, completion, feedback). None: of the first step's failed attempts with feedback the
                   one the student was surest of; it stays the same for the whole run. Its first 512 tokens are scored after every step by the
                   student and by `trainer.teacher` (without one, a GRPO run: by the student in the teacher's role), which is shown the feedback, or what
                   it was shown in the run
    folder         where whole snapshots go: a new or empty folder, which stays. None: a temporary one, gone with the timeline
    every          steps between two snapshots
    max_megabytes  0.1 and more, of all snapshots: beyond, every second one is dropped and `every` doubles; the one of the beginning stays. While one is
                   written the folder can be larger by that one

    `watch` is to be called once with None before the first step and then with the record of every step, by whoever takes the steps:
    `LiveRun(..., watchers=[timeline.watch])` does, as does a dashboard that was given the timeline; in a loop of your own it is one line. Without the
    first call the timeline begins after the first record it is shown. At most 1000 pictures are kept; beyond, every second one is dropped, and those
    are computed again when asked for.

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
            raise TypeError(f"trainer must be an SDPOTrainer, got {shown(trainer)}")
        check_kind(
            "folder",
            folder,
            (str, Path, type(None)),
            "a folder's path, or None for a temporary one",
        )
        check_range("every", every, int, 1, 10**6)
        check_range("max_megabytes", max_megabytes, float, 0.1, 10**7)
        if folder is not None and (
            Path(folder).is_file() or Path(folder).is_dir() and any(Path(folder).iterdir())
        ):
            raise ValueError(
                f"folder must be a new or an empty one, for this timeline's snapshots alone; {str(folder)!r} is not"
            )
        self.trainer, self.every, self.max_megabytes = trainer, every, max_megabytes
        self._temporary = (
            tempfile.TemporaryDirectory(prefix="sdpo-timeline-") if folder is None else None
        )
        self.folder = Path(self._temporary.name if folder is None else folder)
        self.probe = (
            None if probe is None else as_probe(probe)
        )  #: a Rollout; None until one was chosen
        self.start: int | None = (
            None  #: steps the trainer had taken when the timeline began; None: it has not begun
        )
        self.trouble = ""  #: why there are no more snapshots; "" when there is nothing to say
        self.blind = ""  #: why the last step without a picture has none
        self._threads: int | None = (
            None  # torch's, where the steps are taken: another number rounds otherwise
        )
        self._stride, self._begun = (
            1,
            False,
        )  # steps between two pictures; is there a snapshot of the beginning
        self._pictures: dict[int, bytes] = {}
        self._sums: dict[int, float] = {}  # of every step that was ever scored
        self._largest = 0.0
        self._one = threading.Lock()  # one past at a time
        self._lock = threading.RLock()  # pages ask on other threads than the one that steps

    def __repr__(self) -> str:
        if self.start is None:
            return "Timeline(not begun)"
        kept = f"{len(self._pictures)} pictures, snapshots at {', '.join(map(str, self.snapshots)) or 'no step'}"
        return f"Timeline(steps {self.start} to {len(self.trainer.history)}, {kept})" + (
            f": {self.trouble}" if self.trouble else ""
        )

    # while the run goes on

    def watch(self, record: StepRecord | None) -> None:
        """To be called by whoever steps, between two steps: with None before the first, then with each step's record."""
        check_kind(
            "record",
            record,
            (StepRecord, type(None)),
            "a step's record, as step() returns it, or None before the first step",
        )
        with self.trainer.lock, self._lock:
            step = len(self.trainer.history)
            self._threads = torch.get_num_threads()
            if self.start is None:
                self.start = step
            if self.probe is None and record is not None:
                self._choose(record)
            elif self.probe is not None and step not in self._pictures:
                self._look(step, required=record is None)
            self._snapshot(step)

    def _choose(self, record: StepRecord) -> None:
        """The first of the step's failures that can be scored becomes the probe, and is."""
        for candidate in failures(record, self.trainer.config.success_reward_threshold):
            self.probe = candidate
            if self._look(record.step):
                return
        self.probe = None

    def _look(self, step: int, required: bool = False) -> bool:
        """Keep the picture of this moment. False where there can be none: under a template of now, its prompt is longer than the model's context."""
        try:
            self._keep(step, self._score(self.trainer))
        except ValueError as error:
            if required:
                raise ValueError(f"the probe cannot be scored: {error}") from error
            self.blind = f"step {step}: {error}"
            return False
        return True

    def _keep(self, step: int, found: dict[str, Any]) -> None:
        self._sums[step] = found["sum"]
        self._largest = max([self._largest, *(abs(a) for a in found["advantage"] if a is not None)])
        if (step - self.start) % self._stride == 0:
            self._pictures[step] = zlib.compress(json.dumps(found).encode())
        while len(self._pictures) > MOST_PICTURES:
            self._stride *= 2
            self._pictures = {
                s: p for s, p in self._pictures.items() if (s - self.start) % self._stride == 0
            }

    def _score(self, trainer: Any) -> dict[str, Any]:
        r = self.probe
        shown = (
            {"solution": r.shown_solution, "feedback": r.shown_feedback, "attempt": r.shown_attempt}
            if r.shown
            else {"feedback": r.feedback}
        )
        if not r.completion_ids:  # given as text: read by the run's tokenizer, once
            r.completion_ids = credit(
                trainer.model, trainer.tokenizer, r.problem, r.text, config=trainer.config
            ).completion_ids[:MOST_TOKENS]
        return picture(
            credit(
                trainer.model,
                trainer.tokenizer,
                r.problem,
                r.completion_ids,
                **shown,
                teacher=trainer.teacher,
                config=trainer.config,
            )
        )

    @property
    def snapshots(self) -> list[int]:
        """The steps that were saved whole and are still there."""
        return sorted(self._saved())

    def _saved(self) -> dict[int, Path]:
        return {
            int(p.name.split("-")[1]): p
            for p in self.folder.glob("checkpoint-*")
            if p.is_dir() and not p.name.endswith(".partial")
        }

    def _snapshot(self, step: int) -> None:
        """Save the run where it is due, and keep the folder under the cap."""
        cap, saved = self.max_megabytes * 1e6, self._saved()
        if self.trouble or step in saved or (step - self.start) % self.every:
            return
        if saved and self.start not in saved:
            return self._give_up(
                f"the snapshot of the beginning is gone from {str(self.folder)!r}: somebody else saves there"
            )
        if saved and size(self.folder, saved[self.start]) + weight_bytes(self.trainer) > cap:
            return self._give_up(
                f"max_megabytes={self.max_megabytes:g} has no room for a second snapshot ({cap / 1e6:g} MB); steps are computed from the first"
            )
        try:
            self.trainer.save(self.folder, keep=None)
        except (
            OSError,
            ValueError,
        ) as error:  # a full disk, an optimiser nobody can save: the run is worth more than its past
            return self._give_up(f"the run could not be saved: {error}")
        self._begun = True
        while True:
            saved = self._saved()
            off = [s for s in saved if (s - self.start) % self.every and s != step]
            for s in off:
                shutil.rmtree(saved.pop(s))
            if size(self.folder, *saved.values()) <= cap or set(saved) <= {self.start, step}:
                return
            self.every *= 2

    def _give_up(self, why: str) -> None:
        self.trouble = why
        warnings.warn(f"the timeline makes no more snapshots: {why}", stacklevel=4)

    # afterwards, or at any time

    @property
    def steps(self) -> list[int]:
        """The steps whose picture is at hand, in order: 0 is before the first step. The beginning counts: its snapshot is."""
        begun = [self.start] if self._begun and self.probe is not None else []
        return sorted(
            {*begun, *list(self._pictures)}
        )  # without the lock, which a step's snapshot can hold for long: pages ask often

    def picture(self, step: int) -> dict[str, Any]:
        """The probe as student and teacher saw it after `step`: see `picture`, and "course", the same for all steps of a moment: {"question",
        "steps", "sums" (Σ |advantage| there, thinned to 400), "limit" (nats of full colour), "first", "last", "trouble"}.

        Steps without a picture are computed by `at`, and kept where there is room. Raises ValueError for a step that is none of the timeline's, and as long as there is no probe.
        """
        self._check(step)
        if self.probe is None:
            raise ValueError(
                "there is no attempt to look at yet: no failed attempt with feedback has been watched; pass probe="
            )
        found = self.kept(step)
        if found is None:
            with self._one:  # pages ask on several threads: each would build a model of its own
                found = self.kept(step) or self._again(step)
        return {**found, "course": self.course()}

    def kept(self, step: int) -> dict[str, Any] | None:
        """The picture of a step without its course; None where it would have to be computed."""
        found = self._pictures.get(step)
        return json.loads(zlib.decompress(found)) if found else None

    def _again(self, step: int) -> dict[str, Any]:
        past = self.at(step)
        with self._rounding_as_the_run():
            found = self._score(past)
        with self._lock:
            self._keep(step, found)
        return found

    def course(self) -> dict[str, Any]:
        """How the sum of |advantage| went, and what else a page needs to draw any picture of this timeline."""
        sums = dict(self._sums)
        steps = sorted(sums)
        kept = [
            s
            for k, s in enumerate(steps)
            if k % math.ceil(len(steps) / MOST_POINTS) == 0 or s == steps[-1]
        ]
        question = (
            self.probe.problem.messages[-1]["content"]
            if self.probe and self.probe.problem.messages
            else ""
        )
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
        """A trainer of its own as the run's was after `step`, weights of student and teacher, optimiser and history, equal to the last bit on a CPU.

        Computed from the snapshot at or before it, with the changes that were made by hand; so it takes up to `every` steps of time, and memory for a
        second model. The run's own trainer is not touched; it may go on meanwhile. A task that has a `state_dict` is copied, any other is used as it is.
        Raises ValueError for a step that is none of the timeline's, and RuntimeError where no snapshot helps or where the steps, taken
        again, are not the same: attempts that were given by hand, a judge that answers otherwise.
        """
        self._check(step)
        live = self.trainer
        with self._lock:
            saved = [s for s in self._saved() if s <= step]
            if not saved:
                raise RuntimeError(
                    f"there is no snapshot at or before step {step} to go on from"
                    + (f": {self.trouble}" if self.trouble else "")
                )
            task = copy.deepcopy(live.task) if hasattr(live.task, "state_dict") else live.task
            with torch.random.fork_rng(devices=[]):  # building a model draws numbers
                past = type(live).resume(
                    self.folder, task=task, device=str(live.model.device), step=max(saved)
                )
            changes, records = (
                {s: dict(fields) for s, fields in dict(live.history.changes).items()},
                live.history.records[:step],
            )
        with self._rounding_as_the_run():
            for number in range(len(past.history) + 1, step + 1):
                past.apply(**changes.get(number, {}))
                try:
                    record = past.step()
                except FloatingPointError:  # so the run itself ended
                    record = past.history.records[-1]
                if not same(
                    record, records[number - 1], 0.0 if live.model.device.type == "cpu" else 1e-3
                ):
                    raise RuntimeError(
                        f"step {number} could not be taken again: its mean reward was {records[number - 1].reward:g} and its loss {records[number - 1].loss:g}, now "
                        f"they are {record.reward:g} and {record.loss:g}. Were its attempts given by hand, or does the judge not always say the same? "
                        f"Snapshots are at {', '.join(map(str, self.snapshots))}: every=1 makes one a step"
                    )
        return past

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
                "the timeline has not begun: watch(None) before the first step, or a run with watchers=[timeline.watch], begins it"
            )
        check_range("step", step, int, self.start, len(self.trainer.history))


def as_probe(probe: Any) -> Rollout:
    """A Rollout that can be scored, with something for its teacher to read."""
    if isinstance(probe, Rollout):
        found = replace(probe, completion_ids=list(probe.completion_ids[:MOST_TOKENS]))
    elif (
        isinstance(probe, tuple)
        and len(probe) == 3
        and isinstance(probe[0], Problem)
        and isinstance(probe[2], str)
    ):
        problem, completion, feedback = probe
        if isinstance(completion, Rollout):
            completion = completion.completion_ids
        found = Rollout(
            problem,
            0,
            completion if isinstance(completion, str) else "",
            [] if isinstance(completion, str) else list(completion)[:MOST_TOKENS],
            feedback=feedback,
        )
    else:
        raise TypeError(
            f"probe must be a Rollout or (problem, completion, feedback), feedback a text; got {type(probe).__name__}"
        )
    if not (found.text or found.completion_ids):
        raise ValueError("probe is an empty attempt: there is no token to look at")
    if not (found.shown or found.feedback):
        raise ValueError(
            "probe has no feedback, and its teacher was shown nothing else: student and teacher would read the same"
        )
    return found


def failures(record: StepRecord, threshold: float) -> list[Rollout]:
    """The failed attempts with feedback, those first that the student was surest of: habits, not accidents of sampling. Where there are none, those
    whose teacher was shown something else."""
    failed = [r for r in record.rollouts if r.completion_ids and (r.reward or 0) < threshold]
    found = [r for r in failed if r.feedback] or [r for r in failed if r.shown]
    return [
        as_probe(r)
        for r in sorted(found, key=lambda r: r.entropy if math.isfinite(r.entropy) else math.inf)
    ]


def same(again: StepRecord, was: StepRecord, tolerance: float) -> bool:
    return all(
        a == b or math.isnan(a) and math.isnan(b) or math.isclose(a, b, rel_tol=tolerance)
        for a, b in ((again.reward, was.reward), (again.loss, was.loss))
    )


def weight_bytes(trainer: Any) -> int:
    """What a snapshot takes that it shares with no other: the trainable weights, two moments of each, and the teacher's own."""

    def total(tensors: Any) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    return 3 * total(p for p in trainer.model.parameters() if p.requires_grad) + (
        total(trainer.teacher.copies().values()) if trainer.teacher else 0
    )


def size(run: Path, *checkpoints: Path) -> int:
    """Bytes of some of a run's checkpoints and of what all share; a file with several names counts once."""
    files = [p for p in run.iterdir() if p.is_file()] + [
        p for c in checkpoints for p in c.rglob("*") if p.is_file()
    ]
    return sum({(s.st_dev, s.st_ino): s.st_size for s in map(Path.stat, files)}.values())
