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

from sdpo_lab.core.checks import short_repr
from sdpo_lab.runs.json import from_json

try:
    import fcntl
except ImportError:  # on Windows nothing keeps two processes from saving into one folder at once
    fcntl = None

FORMAT = 2
NAME = re.compile(r"checkpoint-(\d{6,})(-again)*")
LATEST, HISTORY, STATE, BASE = "latest.json", "history.jsonl", "state.json", "base.safetensors"
#: A checkpoint is not whole without these.
NEEDED = {
    "model/config.json",
    "student.safetensors",
    "teacher.safetensors",
    "optimizer.safetensors",
    BASE,
}
#: What a state.json holds, and of what type; what is in these besides is checked where it is used.
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
#: What a save that was cut short can leave behind.
UNFINISHED = re.compile(rf"(checkpoint-.*|{re.escape(HISTORY)}|{re.escape(LATEST)})\.partial")
#: What reading a file that is not what it should be can raise; RecursionError is of JSON nested too
#: deep.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Damaged(ValueError):
    """A file of a checkpoint is missing or not what was written."""


class NewerFormat(ValueError):
    """A run of a version to come: nothing of it is damaged, or may be written over."""


def number(name: str) -> int:
    """The step of a checkpoint, from its name."""
    return int(NAME.fullmatch(name)[1])


def check(at: Path, mark: str | None) -> dict[str, Any]:
    """The state of the checkpoint `at`, after every file of it was compared with its checksum.

    `mark` is the checksum of its state.json. Raises Damaged unless all files are what was written,
    and there are no others. Nothing is opened but files that lie in the checkpoint.
    """
    state = read_state(at)
    if checksum(at / STATE) != mark:
        raise Damaged(
            f"{at / STATE} is not the file that was written (its sha256 is not the one in {LATEST})"
        )
    check_shape(at, state, SHAPE)
    entries = {name: {"bytes": int, "sha256": str} for name in {*NEEDED, *state["files"]}}
    check_shape(at, state["files"], entries, "files.")
    check_files(at, state["files"])
    return state


def read_state(at: Path) -> dict[str, Any]:
    """What state.json says. Raises Damaged where it cannot be read or has another format."""
    try:
        state = from_json((at / STATE).read_text(encoding="utf-8"))
        version = state["format"]
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {short_repr(str(error))}"
        raise Damaged(f"{at / STATE} cannot be read ({reason})") from error
    if version != FORMAT:
        versions = state.get("versions")
        by = versions.get("sdpo_lab") if isinstance(versions, dict) else None
        raise Damaged(
            f"{at} has format {short_repr(version)}; this version reads format {FORMAT}. It "
            "was written "
            f"by sdpo_lab {short_repr(by) if by else 'of an unknown version'}"
        )
    return state


def check_files(at: Path, entries: dict[str, Any]) -> None:
    """Raise Damaged unless the files of a checkpoint are those of `entries`, byte for byte."""
    present = {}
    for p in at.rglob("*"):
        inner = p.relative_to(at)
        if p.is_file() and not any(part.startswith(".") for part in inner.parts):
            present[inner.as_posix()] = p
    for name, known in entries.items():
        if name not in present:
            raise Damaged(
                f"{at / name if name in NEEDED else short_repr(name)} is missing in {at.name}"
            )
        file = present.pop(name)
        if file.stat().st_size != known["bytes"]:
            raise Damaged(f"{file} has {file.stat().st_size} bytes instead of {known['bytes']}")
        if checksum(file) != known["sha256"]:
            raise Damaged(
                f"{file} is damaged: it has other bytes than were written (another sha256)"
            )
    strange = sorted({*present} - {STATE, HISTORY})
    if strange:  # transformers reads what it finds beside its own files
        raise Damaged(
            f"{at} holds {short_repr(strange[0])}, which was not there when the checkpoint was "
            "written; "
            "remove it to go on"
        )


def check_shape(at: Path, value: Any, shape: dict[str, Any], where: str = "") -> None:
    """Raise Damaged unless `value` has the keys of `shape`, each with a value of that type."""
    for key, kind in shape.items():
        inner = value.get(key) if isinstance(value, dict) else None
        if isinstance(kind, dict):
            check_shape(at, inner, kind, f"{where}{key}.")
        elif not isinstance(inner, kind) or isinstance(inner, bool) and kind is int:
            raise Damaged(
                f"{at / STATE} is none that sdpo_lab wrote: {short_repr(where + key)} is "
                f"{short_repr(inner)}"
            )


def history_of(at: Path) -> Path:
    """The run's history; the checkpoint's own where a save that replaces it was cut short."""
    return at / HISTORY if (at / HISTORY).exists() else at.parent / HISTORY


def check_history(file: Path, known: dict[str, Any]) -> Any:
    """The sha256 object, to be updated by later lines, of the first `known["bytes"]` of a history
    file. Raises Damaged unless they are those that were written."""
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
            f"{file} is damaged: its first {known['bytes']} bytes are not those that were written "
            "(another sha256)"
        )
    return digest


def is_whole(at: Path) -> bool:
    try:
        check_history(history_of(at), check(at, checksum(at / STATE))["history"])
    except UNREADABLE:
        return False
    return True


def has_student(at: Path) -> bool:
    """Are the student's weights whole? By their checksum, else by what the file says of itself."""
    from safetensors import SafetensorError, safe_open

    file = at / "student.safetensors"
    try:
        state = from_json((at / STATE).read_text(encoding="utf-8"))
        return checksum(file) == state["files"][file.name]["sha256"]
    except UNREADABLE:
        pass
    try:
        with safe_open(file, "pt") as f:
            return len([*f.keys()]) > 0
    except (OSError, SafetensorError):
        return False


# files


def entry(file: Path) -> dict[str, Any]:
    """What is kept of a file, to compare it with later."""
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
    """No other process or trainer writes into `folder`, which exists, inside this block.

    Raises OSError when another one holds it for `seconds`.
    """
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
    """Return when a file or folder is on the disk, not only on its way there."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
