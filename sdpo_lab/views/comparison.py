"""Two or more runs on common axes, and what they differ in.

Live trainers, histories, recorded runs, folders on disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdpo_lab.analysis.pictures import clean
from sdpo_lab.core.checks import check_text, printable, short_repr
from sdpo_lab.core.records import History
from sdpo_lab.live.knobs import told
from sdpo_lab.runs.files import STATE, history_of
from sdpo_lab.runs.folder import RunFolder
from sdpo_lab.runs.json import from_json
from sdpo_lab.runs.recorded import RunRecord, read_records
from sdpo_lab.views.charts import Chart, Line, drawn, smooth
from sdpo_lab.views.curves import tell
from sdpo_lab.views.html import Html, joined, tag

MOST_CHARACTERS = 60  # of a value in the table
UNKNOWN = "not known"
CELL = (
    "text-align:left;vertical-align:top;padding:2px 18px 2px 0;white-space:pre-wrap;"
    "overflow-wrap:anywhere"
)


@dataclass
class Run:
    """What is known of one run, wherever it came from."""

    rows: list[dict[str, Any]]  #: as `History.rows()`
    settings: dict[str, Any] = field(
        default_factory=dict
    )  #: fields of the config, "task" and its dials, "model"; those that are known
    changes: dict[int, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Comparison(Chart):
    """A chart of runs, and below it the settings in which they differ."""

    differences: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  #: setting -> run -> its value in words

    def _repr_html_(self) -> Html:
        return joined(super()._repr_html_(), table(self.differences))

    def __repr__(self) -> str:
        return super().__repr__() + (
            f"; they differ in {', '.join(self.differences)}" if self.differences else ""
        )


def compare(
    runs: Mapping[str, Any], metric: str = "success_fraction", window: int = 5, note: str = ""
) -> Comparison:
    """Training curves of named runs over steps, and a table of the settings in which they differ.

    runs    {name: run}, a run being a trainer, a LiveRun or Dashboard, a History, a recorded run,
            a folder that `trainer.save` wrote (its newest checkpoint; no weights are read), or a
            .json file of recorded runs (a curve for each kind of run in it). A list of them is
            drawn as the mean over the steps all of them have, with lowest and highest as band
    metric  a column of `History.to_frame()`; "success_fraction" is the share of attempts that are
            wholly right. Steps without a value are left out, and so are those where it is not
            finite or beyond ±1e300
    window  values to average over, 1 to 10,000

    Changes made by hand are marked on the curves. A setting is listed where two runs are known to
    differ in it: of a trainer as it is now, of a History nothing is known. Raises TypeError for
    what is no run, ValueError for a run without steps or without the metric, and for a file or
    folder that holds none or cannot be read, with its name.
    """
    if not isinstance(runs, Mapping) or not runs:
        raise ValueError(
            f"runs must be a dictionary {{name: run}}, e.g. "
            f"compare({{'SDPO': trainer, 'GRPO': 'runs/grpo'}}); got {short_repr(runs)}"
        )
    if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= 10_000:
        raise ValueError(f"window must be a whole number from 1 to 10000; got {short_repr(window)}")
    check_text("metric", metric, "the name of a column of History.to_frame()")
    check_text("note", note)
    groups = {
        label: group
        for name, given in runs.items()
        for label, group in read(str(name), given).items()
    }
    lines = [draw(name, group, metric, window) for name, group in groups.items()]
    words: dict[int, list[str]] = {}
    for name, group in groups.items():
        for step, fields in sorted({s: f for run in group for s, f in run.changes.items()}.items()):
            words.setdefault(step, []).append(f"{name}: {tell(told(fields))}")
    title = metric.replace("_", " ")
    return Comparison(
        f"{title} over training steps",
        lines,
        "step",
        title,
        (0, 1) if "fraction" in metric or "accuracy" in metric or metric == "reward" else None,
        note or f"mean over the last {window} steps; bands: lowest and highest run",
        {s: "; ".join(w) for s, w in words.items()},
        differences(groups),
    )


def draw(name: str, group: list[Run], metric: str, window: int) -> Line:
    if not group or not all(run.rows for run in group):
        raise ValueError(f"{name!r} has no steps yet")
    known = sorted({key for run in group for row in run.rows for key in row})
    if metric not in known:
        raise ValueError(f"{name!r} has no metric {metric!r}; there are {', '.join(known)}")

    def values_of(run: Run) -> dict[int, float]:
        values = {row["step"]: row.get(metric) for row in run.rows}
        return {s: float(v) for s, v in values.items() if v is not None and drawn(v)}

    found = [values_of(run) for run in group]
    steps = sorted(set.intersection(*map(set, found)))
    if not steps:
        raise ValueError(
            f"{name!r} has no step at which {metric!r} is a number"
            + (" in every one of its runs" if len(group) > 1 else "")
        )
    each = [smooth([values[s] for s in steps], window) for values in found]
    band = (
        ([min(v) for v in zip(*each)], [max(v) for v in zip(*each)]) if len(group) > 1 else ((), ())
    )
    return Line(
        name + (f" ({len(group)} runs)" if len(group) > 1 else ""),
        steps,
        [sum(v) / len(v) for v in zip(*each)],
        *band,
        points=len(steps) == 1,
    )


# what a run is


def read(name: str, given: Any) -> dict[str, list[Run]]:
    """{label: runs of one kind}: one label, except for a file of recorded runs of several kinds."""
    if isinstance(given, (str, Path)) and Path(given).suffix == ".json":
        return recorded(name, Path(given))
    return {
        name: [one(name, run) for run in (given if isinstance(given, (list, tuple)) else [given])]
    }


def one(name: str, run: Any) -> Run:
    if isinstance(run, (str, Path)):
        return saved(Path(run))
    run = getattr(run, "run", run)  # a dashboard's
    run = getattr(run, "trainer", run)
    if isinstance(run, RunRecord):
        return Run(run.rows, settings(run.config, run.task, run.model.get("name")), run.changes)
    if isinstance(run, History):
        return Run(run.rows(), {}, run.changes)
    if isinstance(getattr(run, "history", None), History):
        task = getattr(run, "task", None)
        name_of_task = getattr(task, "name", None) or type(task).__name__
        known = {"name": name_of_task, **getattr(task, "dials", {})}
        model = getattr(getattr(run, "model", None), "config", None)
        folder = Path(getattr(model, "_name_or_path", "")).name
        config = run.config.to_dict()
        return Run(run.history.rows(), settings(config, known, folder), run.history.changes)
    raise TypeError(
        f"{name!r} must be a trainer, a LiveRun or Dashboard, a History, a recorded run, a folder "
        "that trainer.save wrote, a .json file of recorded runs, or a "
        f"list of them; got {type(run).__name__}"
    )


def saved(folder: Path) -> Run:
    """The newest checkpoint of a run's folder; neither weights nor attempts are kept."""
    pointer = RunFolder(folder).pointer()
    if pointer is None or pointer["checkpoint"] is None:
        raise ValueError(
            f"{str(folder)!r} holds no saved run; trainer.save({str(folder)!r}) makes one"
        )
    at = folder / pointer["checkpoint"]
    try:
        state = from_json((at / STATE).read_text(encoding="utf-8"))
        lines = history_of(at).read_text(encoding="utf-8").splitlines()[: state["step"]]
        records = [from_json(line) for line in lines]
        names = ("step", "reward", "loss", "seconds")
        rows = [{name: r[name] for name in names} | r["metrics"] for r in records]
        if len(rows) < state["step"]:
            raise ValueError(f"its history has {len(rows)} of {state['step']} steps")
        task = {"name": state["task"]["name"] or state["task"]["class"], **state["task"]["dials"]}
        changes = {int(step): fields for step, fields in state["changes"].items()}
        run = Run(rows, settings(state["config"], task), changes)
        check_rows(run)
        return run
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{at} cannot be read as a saved run ({type(error).__name__}: {printable(str(error))})"
        ) from error


def recorded(name: str, file: Path) -> dict[str, list[Run]]:
    """The runs of a file by what they are, seeds apart; labels tell what tells them apart."""
    if not file.is_file():
        raise ValueError(f"{str(file)!r} is no file of recorded runs: it is not there")
    groups: dict[tuple[str, str], list[Run]] = {}
    try:
        found = [(record, one(name, record)) for record in read_records(file)]
        for _, run in found:
            check_rows(run)
        if not found:
            raise ValueError("it holds no run")
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{short_repr(str(file))} is no file of recorded runs, as "
            "sdpo_lab.records.write_records "
            f"makes them ({type(error).__name__}: {printable(str(error))})"
        ) from error
    for record, run in found:
        kind = {k: v for k, v in run.settings.items() if k not in ("seed", "task seed")}
        groups.setdefault((record.name, json.dumps(kind, sort_keys=True)), []).append(run)
    if len(groups) == 1:
        return {name: next(iter(groups.values()))}
    labels = {}
    for (kind, _), group in groups.items():
        like = {str(n): g for n, ((other, _), g) in enumerate(groups.items()) if other == kind}
        apart = [
            f"{k.replace('_', ' ')} {in_words(group, k)}"
            for k in differences(like)
            if k not in ("seed", "task seed")
        ]
        labels[", ".join([f"{name}: {kind}", *apart])] = group
    return labels


def check_rows(run: Run) -> None:
    """Raise ValueError unless each row of a run has a step, and nothing but numbers and None."""
    if not isinstance(run.changes, dict) or not all(
        isinstance(fields, dict) for fields in run.changes.values()
    ):
        raise ValueError(
            f"its changes must be a dictionary of dictionaries, and are {short_repr(run.changes)}"
        )
    for row in run.rows:
        wrong = [v for v in row.values() if not isinstance(v, (int, float, type(None)))]
        if wrong or not isinstance(row.get("step"), int):
            raise ValueError(
                "a row of it must have a step and nothing but numbers, one has "
                f"{short_repr(wrong[0] if wrong else row)}"
            )


def settings(
    config: dict[str, Any], task: dict[str, Any], model: str | None = None
) -> dict[str, Any]:
    dials = {f"task {key}": value for key, value in task.items() if key != "name"}
    return {**config, "task": task.get("name"), **dials} | ({"model": model} if model else {})


# what they differ in


def differences(groups: Mapping[str, list[Run]]) -> dict[str, dict[str, str]]:
    """{setting: {run: value in words}} of those in which two of them are known to differ.

    A dial that a run's task does not have is "none".
    """
    names = list(
        dict.fromkeys(key for group in groups.values() for run in group for key in run.settings)
    )
    found = {key: {name: in_words(group, key) for name, group in groups.items()} for key in names}
    return {
        key: values
        for key, values in found.items()
        if len({v for v in values.values() if v != UNKNOWN}) > 1
    }


def in_words(group: list[Run], key: str) -> str:
    values = dict.fromkeys(
        cut(run.settings[key])
        if key in run.settings
        else UNKNOWN
        if not run.settings or key == "model"
        else "none"
        for run in group
    )
    return ", ".join(values)


def cut(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return clean(text, MOST_CHARACTERS)


def table(found: Mapping[str, Mapping[str, str]]) -> Html:
    """One row a setting, one column a run; nothing where there is nothing to tell."""
    if not found:
        return Html()
    names = list(next(iter(found.values())))
    columns = [tag("th", name, scope="col", style=CELL) for name in names]
    head = tag("tr", tag("th", "differs", style=CELL), *columns)
    body = []
    for key, values in found.items():
        cells = [tag("td", values[name], style=CELL) for name in names]
        setting = tag("th", key.replace("_", " "), scope="row", style=CELL)
        body.append(tag("tr", setting, *cells))
    look = "font-family:sans-serif;font-size:12px;border-collapse:collapse;margin:2px 0 8px"
    return tag("table", tag("thead", head), tag("tbody", *body), style=look)
