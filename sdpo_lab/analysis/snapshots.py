"""Whole saves of a run at even distances, under a cap: what a `Timeline` goes back to."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sdpo_lab.core.checks import check_kind, check_range


class Snapshots:
    """The folder of a run's snapshots; see `Timeline` for the arguments."""

    def __init__(
        self, trainer: Any, folder: str | Path | None, every: int, max_megabytes: float
    ) -> None:
        what = "a folder's path, or None for a temporary one"
        check_kind("folder", folder, (str, Path, type(None)), what)
        check_range("every", every, int, 1, 10**6)
        check_range("max_megabytes", max_megabytes, float, 0.1, 10**7)
        self.trainer, self.every, self.max_megabytes = trainer, every, max_megabytes
        self.trouble = ""  #: why there are no more; "" when there is nothing to say
        self.begun = False  #: is there one of the beginning
        self._temporary: tempfile.TemporaryDirectory | None = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="sdpo-timeline-")
            folder = self._temporary.name
        elif Path(folder).is_file() or Path(folder).is_dir() and any(Path(folder).iterdir()):
            raise ValueError(
                "folder must be a new or an empty one, for this timeline's snapshots alone; "
                f"{str(folder)!r} is not"
            )
        self.folder = Path(folder)

    def saved(self) -> dict[int, Path]:
        """{step: checkpoint} of those that are there."""
        checkpoints = (p for p in self.folder.glob("checkpoint-*") if p.is_dir())
        whole = (p for p in checkpoints if not p.name.endswith(".partial"))
        return {int(p.name.split("-")[1]): p for p in whole}

    def save_if_due(self, step: int, start: int) -> None:
        """Save the run where that is due, and keep the folder under the cap."""
        saved = self.saved()
        if self.trouble or step in saved or (step - start) % self.every:
            return
        if saved and start not in saved:
            return self._give_up(
                f"the snapshot of the beginning is gone from {str(self.folder)!r}: somebody else "
                "saves there"
            )
        cap = self.max_megabytes * 1e6
        if saved and size(self.folder, saved[start]) + weight_bytes(self.trainer) > cap:
            return self._give_up(
                f"max_megabytes={self.max_megabytes:g} has no room for a second snapshot "
                f"({cap / 1e6:g} MB); steps are computed from the first"
            )
        try:
            self.trainer.save(self.folder, keep=None)
        except (OSError, ValueError) as error:  # the run is worth more than its past
            return self._give_up(f"the run could not be saved: {error}")
        self.begun = True
        self._thin_out(step, start, cap)

    def _thin_out(self, step: int, start: int, cap: float) -> None:
        """Double the distance until those that are left fit; the first and the newest stay."""
        while True:
            saved = self.saved()
            for s in [s for s in saved if (s - start) % self.every and s != step]:
                shutil.rmtree(saved.pop(s))
            if size(self.folder, *saved.values()) <= cap or saved.keys() <= {start, step}:
                return
            self.every *= 2

    def _give_up(self, why: str) -> None:
        self.trouble = why
        warnings.warn(f"the timeline makes no more snapshots: {why}", stacklevel=4)


def weight_bytes(trainer: Any) -> int:
    """What a snapshot shares with no other: trainable weights, two moments, the teacher's."""

    def total(tensors: Iterable[Any]) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    own = total(trainer.teacher.copies().values()) if trainer.teacher else 0
    return 3 * total(p for p in trainer.model.parameters() if p.requires_grad) + own


def size(run: Path, *checkpoints: Path) -> int:
    """Bytes of checkpoints and of what a run's all share; a file with several names counts once."""
    paths = [*run.iterdir(), *(p for c in checkpoints for p in c.rglob("*"))]
    stats = [p.stat() for p in paths if p.is_file()]
    return sum({(s.st_dev, s.st_ino): s.st_size for s in stats}.values())
