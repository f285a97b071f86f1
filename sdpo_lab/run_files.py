"""The files of one checkpoint: what they are called, and whether they are what was written."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from sdpo_lab.records import from_json

FORMAT = 2
NAME = re.compile(r"checkpoint-(\d{6,})(-again)*")
LATEST, HISTORY, STATE = "latest.json", "history.jsonl", "state.json"
UNFINISHED = re.compile(rf"(checkpoint-.*|{re.escape(HISTORY)}|{re.escape(LATEST)})\.partial")


class Damaged(ValueError):
    """A file of a checkpoint is missing or not what was written."""


def number(name: str) -> int:
    return int(NAME.fullmatch(name)[1])


def check(at: Path, mark: str | None) -> dict[str, Any]:
    """The state of a checkpoint all of whose files are what was written; `mark` is the checksum of its state.json. Raises Damaged."""
    try:
        state = from_json((at / STATE).read_text(encoding="utf-8"))
        version = state["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{at / STATE} cannot be read ({type(error).__name__}: {error})") from error
    if version != FORMAT:
        raise Damaged(f"{at} has format {version}; this version reads format {FORMAT}. It was written by sdpo_lab "
                      f"{state.get('versions', {}).get('sdpo_lab', 'of an unknown version')}")
    if checksum(at / STATE) != mark:
        raise Damaged(f"{at / STATE} is not the file that was written (its sha256 is not the one in {LATEST})")
    for name, known in state["files"].items():
        file = at / name
        if not file.is_file():
            raise Damaged(f"{file} is missing")
        if file.stat().st_size != known["bytes"]:
            raise Damaged(f"{file} has {file.stat().st_size} bytes instead of {known['bytes']}")
        if checksum(file) != known["sha256"]:
            raise Damaged(f"{file} is damaged: it has other bytes than were written (another sha256)")
    return state


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
        raise Damaged(f"{file} has {known['bytes'] - left} bytes where the checkpoint needs {known['bytes']}")
    if digest.hexdigest() != known["sha256"]:
        raise Damaged(f"{file} is damaged: its first {known['bytes']} bytes are not those that were written (another sha256)")
    return digest


def is_whole(at: Path) -> bool:
    try:
        check_history(history_of(at), check(at, checksum(at / STATE))["history"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def has_student(at: Path) -> bool:
    """Are all weights of the student there: by their checksum, or where that is not to be had, by what the file says of itself?"""
    from safetensors import SafetensorError, safe_open

    file = at / "student.safetensors"
    try:
        return checksum(file) == from_json((at / STATE).read_text(encoding="utf-8"))["files"][file.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
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


def sync(path: Path) -> None:
    """On the disk, not only on its way there."""
    if path.is_dir() and os.name != "posix":
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
