"""The files of one checkpoint: what they are called, and whether they are what was written."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdpo_lab.core.checks import shown
from sdpo_lab.runs.json import from_json

try:
    import fcntl
except (
    ImportError
):  # Windows: nothing keeps two processes there from saving into one folder at once
    fcntl = None

FORMAT = 2
NAME = re.compile(r"checkpoint-(\d{6,})(-again)*")
LATEST, HISTORY, STATE = "latest.json", "history.jsonl", "state.json"
NEEDED = {
    "model/config.json",
    *(f"{part}.safetensors" for part in ("student", "teacher", "optimizer", "base")),
}
#: What a state.json holds, and of what kind; what is in these besides is checked where it is used.
SHAPE: dict[str, Any] = {
    "files": dict,
    "config": dict,
    "explicit": list,
    "counters": {name: int for name in ("skipped_steps", "bad_steps", "optimizer_steps", "halved")},
    "changes": dict,
    "keep_attempts": (int, type(None)),
    "optimizer": dict,
    "model": {"class": str, "attention": (str, type(None)), "device": str, "training": bool},
    "task": {"name": (str, type(None)), "dials": dict, "class": str},
    "versions": dict,
    "history": {"steps": int, "bytes": int, "sha256": str},
}
UNFINISHED = re.compile(rf"(checkpoint-.*|{re.escape(HISTORY)}|{re.escape(LATEST)})\.partial")


#: What reading a file that is not what it should be can raise; RecursionError is of JSON nested too deep.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Damaged(ValueError):
    """A file of a checkpoint is missing or not what was written."""


class NewerFormat(ValueError):
    """A run of a version to come: nothing of it is damaged, and nothing of it may be written over."""


def number(name: str) -> int:
    return int(NAME.fullmatch(name)[1])


def check(at: Path, mark: str | None) -> dict[str, Any]:
    """The state of a checkpoint all of whose files are what was written, and which holds no others; `mark` is the checksum of its state.json. Raises
    Damaged. Nothing is opened but files that lie in the checkpoint."""
    try:
        state = from_json((at / STATE).read_text(encoding="utf-8"))
        version = state["format"]
    except UNREADABLE as error:
        raise Damaged(
            f"{at / STATE} cannot be read ({type(error).__name__}: {shown(str(error))})"
        ) from error
    if version != FORMAT:
        versions = state.get("versions")
        by = versions.get("sdpo_lab") if isinstance(versions, dict) else None
        raise Damaged(
            f"{at} has format {shown(version)}; this version reads format {FORMAT}. It was written by sdpo_lab {shown(by) if by else 'of an unknown version'}"
        )
    if checksum(at / STATE) != mark:
        raise Damaged(
            f"{at / STATE} is not the file that was written (its sha256 is not the one in {LATEST})"
        )
    check_shape(at, state, SHAPE)
    check_shape(
        at,
        state["files"],
        {name: {"bytes": int, "sha256": str} for name in {*NEEDED, *state["files"]}},
        "files.",
    )
    there = {
        p.relative_to(at).as_posix(): p
        for p in at.rglob("*")
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(at).parts)
    }
    for name, known in state["files"].items():
        if name not in there:
            raise Damaged(f"{at / name if name in NEEDED else shown(name)} is missing in {at.name}")
        file = there.pop(name)
        if file.stat().st_size != known["bytes"]:
            raise Damaged(f"{file} has {file.stat().st_size} bytes instead of {known['bytes']}")
        if checksum(file) != known["sha256"]:
            raise Damaged(
                f"{file} is damaged: it has other bytes than were written (another sha256)"
            )
    strange = sorted({*there} - {STATE, HISTORY})
    if strange:  # what transformers finds beside its own files it reads
        raise Damaged(
            f"{at} holds {shown(strange[0])}, which was not there when the checkpoint was written; remove it to go on"
        )
    return state


def check_shape(at: Path, found: Any, shape: dict[str, Any], where: str = "") -> None:
    """Raise Damaged unless `found` has what `shape` names, and of that kind."""
    for key, kind in shape.items():
        value = found.get(key) if isinstance(found, dict) else None
        if isinstance(kind, dict):
            check_shape(at, value, kind, f"{where}{key}.")
        elif not isinstance(value, kind) or isinstance(value, bool) and kind is int:
            raise Damaged(
                f"{at / STATE} is none that sdpo_lab wrote: {shown(where + key)} is {shown(value)}"
            )


def history_of(at: Path) -> Path:
    """The history of a checkpoint: in its own folder where a save that had leave to overwrite it was cut short, else in the run's."""
    return at / HISTORY if (at / HISTORY).exists() else at.parent / HISTORY


def check_history(file: Path, known: dict[str, Any]) -> Any:
    """The sha256, to be gone on with, of the first `known["bytes"]` of a history file. Raises Damaged when they are not those that were written."""
    if not file.is_file():
        raise Damaged(f"{file} is missing")
    digest, left = hashlib.sha256(), known["bytes"]
    with file.open("rb") as f:
        while left and (block := f.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
    if left:
        raise Damaged(
            f"{file} has {known['bytes'] - left} bytes where the checkpoint needs {known['bytes']}"
        )
    if digest.hexdigest() != known["sha256"]:
        raise Damaged(
            f"{file} is damaged: its first {known['bytes']} bytes are not those that were written (another sha256)"
        )
    return digest


def is_whole(at: Path) -> bool:
    try:
        check_history(history_of(at), check(at, checksum(at / STATE))["history"])
    except UNREADABLE:
        return False
    return True


def has_student(at: Path) -> bool:
    """Are all weights of the student there: by their checksum, or where that is not to be had, by what the file says of itself?"""
    from safetensors import SafetensorError, safe_open

    file = at / "student.safetensors"
    try:
        return (
            checksum(file)
            == from_json((at / STATE).read_text(encoding="utf-8"))["files"][file.name]["sha256"]
        )
    except UNREADABLE:
        pass
    try:
        with safe_open(file, "pt") as f:
            return len([*f.keys()]) > 0
    except (OSError, SafetensorError):
        return False


# files


def entry(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": checksum(file)}


def checksum(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def link(file: Path, to: Path) -> None:
    """The same file under another name where the file system can; else a copy."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)


@contextmanager
def alone(folder: Path, seconds: float = 30.0) -> Iterator[None]:
    """The only one, of all processes and trainers, to write into `folder`, which exists. Raises OSError when another one is at it for `seconds`."""
    descriptor = None if fcntl is None else os.open(folder, os.O_RDONLY)
    try:
        began = time.monotonic()
        while descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() - began > seconds:
                    raise OSError(
                        errno.EBUSY, "another process has been saving there for too long"
                    ) from error
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sync(path: Path) -> None:
    """On the disk, not only on its way there."""
    if path.is_dir() and os.name != "posix":
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
