"""Comparisons as small declarative sweeps, and the recorded runs that are shipped with the package.

`python -m sdpo_lab.experiments quickstart` runs what is missing of a sweep and writes it down; it
can be stopped and started again.
"""

from __future__ import annotations

from pathlib import Path

from sdpo_lab.runs.recorded import RunRecord, read_records

RECORDS = Path(__file__).parent / "records"


def recorded(sweep: str, **wanted: object) -> list[RunRecord]:
    """Recorded runs of a sweep, e.g. `recorded("quickstart", name="grpo", seed=3)`; `seed` and
    other dials refer to the task, `on` is its name.

    Raises ValueError for a sweep that is not shipped.
    """
    path = RECORDS / f"{sweep}.json"
    if not path.exists():
        there_are = ", ".join(sorted(p.stem for p in RECORDS.glob("*.json"))) or "none"
        raise ValueError(f"no recorded sweep {sweep!r}; there are {there_are}")

    def matches(run: RunRecord) -> bool:
        # "seed" is the task's, "name" the run's
        known = {**run.config, **run.task, "name": run.name, "on": run.task["name"]}
        return all(known.get(key) == value for key, value in wanted.items())

    return [run for run in read_records(path) if matches(run)]
