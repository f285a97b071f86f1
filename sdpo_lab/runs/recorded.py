"""The file format of recorded runs, which are shipped: the numbers of all steps and evaluations."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sdpo_lab._version import __version__
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.runs.json import each_float

FORMAT = 1


@dataclass
class RunRecord:
    """All that is needed to do a run again, and what came out: `experiments/records/`."""

    name: str  #: what was compared, e.g. "sdpo", "grpo"
    task: dict[str, Any]  #: {"name": ..., **dials}
    config: dict[str, Any]
    model: dict[str, str]  #: {"name": ..., "sha256": ...}
    rows: list[dict[str, float]]  #: `History.rows()`
    evaluations: list[dict[str, Any]]  #: {"step": ..., **`Evaluation.to_dict()`}
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)  #: as in `History`
    key: str = ""  #: tells the run from the others of its sweep
    versions: dict[str, str] = field(default_factory=lambda: software())
    format: int = FORMAT


def software() -> dict[str, str]:
    """Versions that decide the numbers, and the kind of machine."""
    import torch

    return {
        **{name: version(name) for name in ("torch", "transformers", "numpy")},
        "sdpo_lab": __version__,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def model_checksum(folder: str | Path) -> str:
    """SHA-256 of a model folder's weights."""
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def write_records(path: str | Path, runs: list[RunRecord]) -> None:
    """One line a run, rows as columns, numbers to six digits, not-a-number as null."""

    def rounded(x: float) -> float | None:
        return float(f"{x:.6g}") if math.isfinite(x) else None

    lines = []
    for run in runs:
        fields = asdict(run)
        names = list(dict.fromkeys(name for row in run.rows for name in row))
        fields["rows"] = {name: [row.get(name) for row in run.rows] for name in names}
        tidy = each_float(fields, rounded)
        lines.append(json.dumps(tidy, separators=(",", ":"), allow_nan=False))
    new = Path(path).with_suffix(".new")
    new.write_text("[" + ",\n".join(lines) + "]\n", encoding="utf-8")
    new.replace(path)


def read_records(path: str | Path) -> list[RunRecord]:
    """Read recorded runs. Raises ValueError for a file of another format.

    A setting that was added after a run was recorded gets its default: what was done when there was
    no choice.
    """
    runs = json.loads(Path(path).read_text(encoding="utf-8"))
    for run in runs:
        if run.get("format") != FORMAT:
            raise ValueError(
                f"{path} has format {run.get('format')!r}; this version reads format {FORMAT}"
            )
        columns = run["rows"]
        run["config"] = SDPOConfig.from_dict(run["config"]).to_dict()
        run["rows"] = [dict(zip(columns, values)) for values in zip(*columns.values())]
        run["changes"] = {int(step): fields for step, fields in run["changes"].items()}
    return [RunRecord(**run) for run in runs]
