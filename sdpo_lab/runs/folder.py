"""The folder of a run as files: what is in it, whether it is whole, and what of it may be replaced.

    run/ latest.json       {"format", "checkpoint": the newest, "kept": {name: sha256 of its
    state.json}} what it does not name is no part of the run history.jsonl     one line a step, its
    numbers and attempts: written once, only ever added to checkpoint-000012/ state.json      all
    that is no tensor; size and sha256 of every other file, and of the part of history.jsonl that
    belongs to the checkpoint ...

So the checksum of every file is in one that is written after it, and `latest.json`, which changes
by a rename, is written last of all. Nothing here knows a trainer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdpo_lab.core.checks import short_repr
from sdpo_lab.runs import files as run_files
from sdpo_lab.runs.files import (
    BASE,
    FORMAT,
    HISTORY,
    LATEST,
    NAME,
    STATE,
    UNFINISHED,
    UNREADABLE,
    Damaged,
    NewerFormat,
    checksum,
    history_of,
    link,
    number,
    sync,
)
from sdpo_lab.runs.json import to_json

Pointer = dict[str, Any]  #: {"checkpoint": the newest, "kept": {name: checksum of its state.json}}


class RunFolder:
    """A run's folder as one trainer knows it: what it wrote or read there, and so may add to."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        #: checksums of the state.json files that this trainer wrote, or read as its own past
        self.mine: set[str] = set()
        #: the history file, and how much of it is this trainer's: steps, bytes, their sha256
        self.history = self.path / HISTORY
        self.steps, self.bytes, self.digest = 0, 0, hashlib.sha256()
        #: the step of its last whole checkpoint
        self.newest: int | None = None
        #: {"bytes", "sha256"} of the weights that never change; {} until they are written
        self.base: dict[str, Any] = {}

    # reading

    def open(self, step: int | None = None) -> tuple[Path, dict[str, Any]]:
        """(the newest checkpoint, or the one at `step`; its state), every byte of it checked, and
        of its part of the history.

        Raises ValueError for anything else; the message names the file at fault and what of the run
        is whole.
        """
        at = self.path
        try:
            pointer = self.pointer()
            if pointer is None:
                raise ValueError(
                    f"folder {str(self.path)!r} holds no saved run (no {LATEST}); "
                    f"trainer.save({str(self.path)!r}) makes one"
                )
            if pointer["checkpoint"] is None:
                raise ValueError(
                    f"{str(self.path)!r} holds no whole checkpoint: the first save was cut short"
                )
            at = self.path / (pointer["checkpoint"] if step is None else self.find(step, pointer))
            if not at.is_dir():
                raise Damaged(f"{at.name}, which {LATEST} names, is missing in {str(self.path)!r}")
            state = run_files.check(at, pointer["kept"][at.name])
            self.history = history_of(at)
            self.digest = run_files.check_history(self.history, state["history"])
        except Damaged as error:
            raise ValueError(f"{error}; {self.salvage(at)}") from error
        # later checkpoints are a future that this trainer will not have
        past = [n for n in self.there(pointer) if number(n) <= number(at.name)]
        self.mine = {pointer["kept"][n] for n in past}
        self.steps, self.bytes = state["history"]["steps"], state["history"]["bytes"]
        self.base = state["files"][BASE]
        self.newest = number(at.name)
        return at, state

    def find(self, step: int, pointer: Pointer) -> str:
        """The name of the checkpoint at `step`. Raises ValueError where there is none."""
        kept = self.there(pointer)
        for name in kept:
            if number(name) == step:
                return name
        steps = ", ".join(str(number(name)) for name in kept)
        raise ValueError(
            f"{str(self.path)!r} holds no checkpoint at step {step!r}; it holds those at {steps}"
        )

    def lines(self) -> Iterator[str]:
        """The lines of the history that belong to the checkpoint opened."""
        with self.history.open("rb") as f:
            while f.tell() < self.bytes:
                yield f.readline().decode("utf-8")

    def pointer(self) -> Pointer | None:
        """What latest.json says; None where there is none. Raises Damaged, and NewerFormat."""
        file = self.path / LATEST
        if not file.exists():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            version = content.get("format", 1)
            if version not in (1, FORMAT):
                raise NewerFormat(
                    f"{file} has format {short_repr(version)}; this version of sdpo_lab reads "
                    "format "
                    f"{FORMAT}. Use the version that wrote it, or name another folder"
                )
            name = content["checkpoint"]
            kept = content.get("kept", {name: None})  # format 1 kept one
            if not all(NAME.fullmatch(n) for n in kept) or name is not None and name not in kept:
                raise ValueError(f"it names {name!r} among {sorted(kept)}")
        except NewerFormat:
            raise
        except UNREADABLE as error:
            reason = f"{type(error).__name__}: {short_repr(str(error))}"
            raise Damaged(f"{file} is damaged ({reason})") from error
        return {"checkpoint": name, "kept": kept}

    def there(self, pointer: Pointer | None) -> list[str]:
        """The checkpoints of the run that nobody has deleted, oldest first."""
        kept = pointer["kept"] if pointer else ()
        return sorted((n for n in kept if (self.path / n).is_dir()), key=number)

    def own(self) -> dict[str, str]:
        """{checkpoint: its checksum} of those there that this trainer wrote or was resumed from."""
        try:
            pointer = self.pointer()
        except Damaged:
            return {}
        marks = {name: pointer["kept"][name] for name in self.there(pointer)}
        return {name: mark for name, mark in marks.items() if mark in self.mine}

    def salvage(self, at: Path) -> str:
        """What can be had of this folder in spite of a fault at `at`, in words."""
        try:
            listed = self.there(self.pointer())
        except Damaged:
            listed = []
        checkpoints = [p for p in self.path.glob("checkpoint-*") if NAME.fullmatch(p.name)]
        checkpoints.sort(key=lambda p: number(p.name), reverse=True)
        for p in checkpoints:
            if p == at or not run_files.is_whole(p):
                continue
            if p.name in listed:
                resume = f"SDPOTrainer.resume({str(self.path)!r}, step={number(p.name)})"
                return f"{p.name} is whole: {resume} goes on from there"
            line = pointer_line(p.name, {p.name: checksum(p / STATE)})
            return f"{p.name} is whole: with the line {line} as {LATEST} it can be resumed"
        for p in checkpoints:
            if run_files.has_student(p):
                return (
                    f"the weights of the student of {p.name} are whole: "
                    "model.load_state_dict(safetensors.torch.load_file("
                    f"{str(p / 'student.safetensors')!r}), strict=False) puts them into a model "
                    "built as the one the run began from"
                )
        return "nothing else of the run is whole"

    # writing, in the order of a save

    def claim(self, overwrite: bool) -> list[str]:
        """The checkpoints a save may replace. Raises ValueError where it may not save here."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{str(self.path)!r} is a file; name a folder")
        try:
            pointer = self.pointer()
        except Damaged as error:
            if not overwrite:
                raise ValueError(
                    f"{error}; {self.salvage(self.path)}. Name another folder, or say "
                    "overwrite=True to lose what is in this one"
                ) from error
            return []
        strange = [p for p in self.path.glob("[!.]*") if not self.is_of_a_run(p, pointer)]
        if strange:
            hint = "" if pointer else f" (there is no {LATEST})"
            raise ValueError(
                f"{str(self.path)!r} holds {strange[0].name!r}, which no run of sdpo_lab wrote"
                f"{hint}; name a new or an empty folder"
            )
        others = [n for n in self.there(pointer) if pointer["kept"][n] not in self.mine]
        if others and not overwrite:
            problem = (
                f"has gone on without this trainer, to {others[-1]}; saving here would lose "
                f"{', '.join(others)}"
                if self.mine
                else f"holds another run, at {others[-1]}; go on with it by "
                f"SDPOTrainer.resume({str(self.path)!r})"
            )
            raise ValueError(
                f"{str(self.path)!r} {problem}. Name another folder, or say overwrite=True to lose "
                "it"
            )
        return others

    def is_of_a_run(self, path: Path, pointer: Pointer | None) -> bool:
        """May a save delete this? Others too name folders checkpoint-..., transformers for one."""
        if UNFINISHED.fullmatch(path.name):
            return True
        if pointer is None:
            return False
        is_checkpoint = NAME.fullmatch(path.name) and (path / STATE).exists()
        return path.name in {HISTORY, LATEST, *pointer["kept"]} or bool(is_checkpoint)

    def begin(self, step: int) -> Path:
        """The folder to write the next checkpoint into; from then on this one is a run's."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            if self.pointer() is None:
                self.point(None, {})
            self.clean(self.there(self.pointer()))
        except Damaged:  # and to be overwritten: until then nothing is deleted
            pass
        name = f"checkpoint-{step:06d}"
        while (self.path / name).exists():
            name += "-again"  # the same step once more: the switch must be to another name
        shutil.rmtree(self.path / f"{name}.partial", ignore_errors=True)
        return self.path / f"{name}.partial"

    def holds_history(self) -> bool:
        """Is all that this trainer wrote of the history still in the run's own file?"""
        if not self.steps or self.history != self.path / HISTORY or not self.history.is_file():
            return False
        return self.history.stat().st_size >= self.bytes

    def start_anew(self, others: list[str], source: RunFolder | None) -> None:
        """A new history file that begins with the lines in `source`. Checkpoints that this save is
        to replace keep the old one until then."""
        for name in others:
            if not (self.path / name / HISTORY).exists() and (self.path / HISTORY).exists():
                link(self.path / HISTORY, self.path / name / HISTORY)
        partial = self.path / f"{HISTORY}.partial"
        with partial.open("wb") as f:
            if source:
                with source.history.open("rb") as old:
                    f.write(old.read(source.bytes))
        sync(partial)
        partial.replace(self.path / HISTORY)
        self.history = self.path / HISTORY
        if source:
            self.steps, self.bytes, self.digest = source.steps, source.bytes, source.digest.copy()
        else:
            self.steps, self.bytes, self.digest = 0, 0, hashlib.sha256()

    def add(self, lines: list[bytes]) -> dict[str, Any]:
        """Add the lines of steps to the history; what it is then, {"steps", "bytes", "sha256"}.

        Nothing this trainer wrote is touched; what a save that was cut short left behind it is cut
        off.
        """
        digest, new = self.digest.copy(), b"".join(lines)
        with self.history.open("r+b") as f:
            f.truncate(self.bytes)
            f.seek(self.bytes)
            f.write(new)
        sync(self.history)
        digest.update(new)
        self.steps, self.bytes, self.digest = self.steps + len(lines), self.bytes + len(new), digest
        return {"steps": self.steps, "bytes": self.bytes, "sha256": digest.hexdigest()}

    def publish(self, new: Path, keep: int | None) -> Path:
        """Rename a whole new checkpoint into place, point latest.json at it, drop the oldest."""
        at, mark = new.with_suffix(""), checksum(new / STATE)
        older = {n: known for n, known in self.own().items() if number(n) < number(at.name)}
        kept = list((older | {at.name: mark}).items())
        kept = dict(kept[-keep:] if keep else kept)
        sync(new)
        new.rename(at)
        # before the switch: an interrupt after it must not make this run another's
        self.mine.add(mark)
        self.point(at.name, kept)
        self.newest = number(at.name)
        self.clean([*kept])
        return at

    def point(self, name: str | None, kept: dict[str, str]) -> None:
        """Write latest.json, by a rename, when all that it names is on the disk."""
        partial = self.path / f"{LATEST}.partial"
        partial.write_text(pointer_line(name, kept), encoding="utf-8")
        sync(partial)
        sync(self.path)
        partial.replace(self.path / LATEST)
        sync(self.path)

    def clean(self, kept: list[str]) -> None:
        """Remove what a save that was cut short left, and checkpoints that are no longer kept. What
        cannot be removed now goes with a later save."""
        for p in self.path.glob("checkpoint-*"):
            if p.name in kept or not p.is_dir():
                continue
            # half of it deleted, it must not look like a checkpoint
            gone = p if UNFINISHED.fullmatch(p.name) else p.with_name(f"{p.name}.partial")
            with contextlib.suppress(OSError):
                p.rename(gone)
                shutil.rmtree(gone)


def pointer_line(name: str | None, kept: dict[str, str]) -> str:
    """The text of a latest.json."""
    return to_json({"format": FORMAT, "checkpoint": name, "kept": kept})
