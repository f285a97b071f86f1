"""What a run leaves behind: a record per step, the history, and the file format of recorded runs."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sdpo_lab._version import __version__
from sdpo_lab.config import SDPOConfig
from sdpo_lab.rollouts import Rollout

FORMAT = 1


@dataclass(frozen=True)
class StepRecord:
    """One step of training. `reward` is that of the attempts sampled *before* the update."""

    step: int  #: 1 for the first
    reward: float  #: mean over the attempts
    loss: float  #: of the update; nan when the step was skipped
    metrics: dict[str, float]
    rollouts: list[Rollout] = field(repr=False)
    seconds: float = 0.0


@dataclass
class History:
    """All step records of a trainer, and every change made on the way: `changes[step]` took effect at that step.

    The attempts of the newest `keep_attempts` steps (all when None) stay in memory; an older record has `rollouts=[]`. What was
    saved before that stays on disk.
    """

    records: list[StepRecord] = field(default_factory=list)
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)
    keep_attempts: int | None = 500

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> StepRecord:
        return self.records[i]

    def __iter__(self):
        return iter(self.records)

    def append(self, record: StepRecord) -> None:
        """Add the record of a step; those that grow too old for it lose their attempts."""
        self.records.append(record)
        old = len(self.records) - (len(self.records) if self.keep_attempts is None else self.keep_attempts)
        while old > 0 and self.records[old - 1].rollouts:
            old -= 1
            self.records[old] = replace(self.records[old], rollouts=[])

    def rows(self) -> list[dict[str, float]]:
        """JSON-able: step, reward, loss, seconds and all metrics, without the attempts."""
        return [{"step": r.step, "reward": r.reward, "loss": r.loss, "seconds": r.seconds, **r.metrics} for r in self.records]

    def to_frame(self):
        """The same as a pandas table, one row a step."""
        import pandas

        return pandas.DataFrame(self.rows()).set_index("step") if self.records else pandas.DataFrame()


@dataclass
class RunRecord:
    """A recorded run: all that is needed to do it again, and what came out. Shipped as JSON in `experiments/records/`."""

    name: str  #: what was compared, e.g. "sdpo", "grpo"
    task: dict[str, Any]  #: {"name": ..., **dials}
    config: dict[str, Any]
    model: dict[str, str]  #: {"name": ..., "sha256": ...}
    rows: list[dict[str, float]]  #: `History.rows()`
    evaluations: list[dict[str, Any]]  #: {"step": ..., "role": ..., "accuracy": ..., ...}, see `Evaluation.to_dict`
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)  #: as in `History`
    key: str = ""  #: tells the run from the others of its sweep
    versions: dict[str, str] = field(default_factory=lambda: software())
    format: int = FORMAT


def software() -> dict[str, str]:
    """Versions that decide the numbers, and the kind of machine."""
    import torch

    return {name: version(name) for name in ("torch", "transformers", "numpy")} | {
        "sdpo_lab": __version__, "threads": str(torch.get_num_threads()), "python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}


def model_checksum(folder: str | Path) -> str:
    """SHA-256 of a model folder's weights."""
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def write_records(path: str | Path, runs: list[RunRecord]) -> None:
    """Write recorded runs: one line a run, rows as columns, numbers to six digits, not-a-number as null."""
    lines = []
    for run in runs:
        fields = asdict(run)
        names = list(dict.fromkeys(name for row in run.rows for name in row))
        fields["rows"] = {name: [row.get(name) for row in run.rows] for name in names}
        lines.append(json.dumps(each_float(fields, lambda x: float(f"{x:.6g}") if math.isfinite(x) else None), separators=(",", ":"), allow_nan=False))
    new = Path(path).with_suffix(".new")
    new.write_text("[" + ",\n".join(lines) + "]\n", encoding="utf-8")
    new.replace(path)


def read_records(path: str | Path) -> list[RunRecord]:
    """Read recorded runs. Raises ValueError for a file of another format.

    A setting that was added after a run was recorded gets its default: what was done when there was no choice.
    """
    runs = json.loads(Path(path).read_text(encoding="utf-8"))
    for run in runs:
        if run.get("format") != FORMAT:
            raise ValueError(f"{path} has format {run.get('format')!r}; this version reads format {FORMAT}")
        columns = run["rows"]
        run["config"] = SDPOConfig.from_dict(run["config"]).to_dict()
        run["rows"] = [dict(zip(columns, values)) for values in zip(*columns.values())]
        run["changes"] = {int(step): fields for step, fields in run["changes"].items()}
    return [RunRecord(**run) for run in runs]


# numbers that JSON lacks


def each_float(value: Any, change: Callable[[float], Any]) -> Any:
    """The same dictionaries and lists with every float changed."""
    if isinstance(value, dict):
        return {k: each_float(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [each_float(v, change) for v in value]
    return change(value) if isinstance(value, float) else value


def to_json(value: Any) -> str:
    """One line, all of it ASCII; a number that JSON lacks becomes {"not finite": "nan"}, and a dictionary that looks like that has its value in a list. A
    number of numpy becomes Python's. Raises ValueError for what is none of these."""
    def tidy(v: Any) -> Any:
        v = v.item() if isinstance(v, (np.number, np.bool_)) else v
        if isinstance(v, dict):
            return {k: [tidy(x)] if set(v) == {"not finite"} else tidy(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [tidy(x) for x in v]
        return {"not finite": repr(v)} if isinstance(v, float) and not math.isfinite(v) else v

    try:
        return json.dumps(tidy(value), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"a run is saved as JSON, and this is none: {error}. Problem.data, a task's dials and its state_dict() must be JSON-able") from error


def from_json(text: str) -> Any:
    def read(d: dict[str, Any]) -> Any:
        if set(d) != {"not finite"}:
            return d
        found = d["not finite"]
        return {"not finite": found[0]} if isinstance(found, list) else float(found)

    return json.loads(text, object_hook=read)
