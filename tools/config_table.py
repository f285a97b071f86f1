"""Write docs/config.md from the fields of `SDPOConfig`: `python tools/config_table.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sdpo_lab.core.config import (
    CHOICES,
    INERT,
    KNOWN,
    OPTIONAL,
    PRESET_SOURCES,
    PRESETS,
    RANGES,
    SDPOConfig,
)

FILE = Path(__file__).resolve().parent.parent / "docs" / "config.md"
HEAD = """# The settings of a run

Written by `python tools/config_table.py` from `sdpo_lab/core/config.py`; change that file.

`lab.SDPOConfig(field=value, ...)` takes every field by its name;
`lab.SDPOConfig.preset(name, field=value, ...)` starts from a preset. The defaults are the paper's
§4 (Table 12), except `max_completion_length` (paper 8192) and `steps_per_generation` (paper 32).
Names are TRL's where TRL has the field; those marked † are ours.

* *In presets*: the presets whose value is not the default.
* *Live* fields may be changed while a run is under way: `trainer.apply(field=value)`,
  `trainer.train(changes={step: {field: value}})`, the dashboard.
* A field that was set by hand and does nothing in the chosen combination is an error; the last
  table has the reasons.

## Presets

| preset | source |
|---|---|
"""
COLUMNS = ("field", "default", "in presets", "may be", "live", "what it is")


def code(value: Any) -> str:
    """A value as Python writes it, safe in a cell of a table."""
    return f"`{value!r}`".replace("|", "\\|")


def allowed(name: str) -> str:
    """What a field may be, in words."""
    if name in RANGES:
        kind, *ends = RANGES[name]
        low, high = (str(end) if kind is int else f"{end:g}" for end in ends)
        return f"{low} to {high}" + (", `None`" if name in OPTIONAL else "")
    if name in CHOICES:
        return ", ".join(map(code, CHOICES[name]))
    return "a text with " + " ".join(f"`{{{slot}}}`" for slot in KNOWN[name]["slots"])


def row(field: dataclasses.Field) -> str:
    """The line of a field."""
    known = field.metadata
    presets = [f"{p}: {code(v[field.name])}" for p, v in PRESETS.items() if field.name in v]
    cells = (
        f"`{field.name}`" + ("†" if known["ours"] else ""),
        code(field.default),
        "<br>".join(presets),
        allowed(field.name),
        "yes" if known["live"] else "",
        known["help"].replace("|", "\\|").replace("<", "&lt;"),
    )
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """All of docs/config.md."""
    lines = [HEAD + "\n".join(f"| `{name}` | {s} |" for name, s in PRESET_SOURCES.items())]
    for field in dataclasses.fields(SDPOConfig):
        if group := field.metadata["group"]:
            lines += [f"\n## {group}\n", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines.append(row(field))
    lines += ["\n## When a field does nothing\n", "| field | where |", "|---|---|"]
    reasons: dict[str, list[str]] = {}
    for name, _, why in INERT:
        reasons.setdefault(why, []).append(f"`{name}`")
    lines += [f"| {', '.join(names)} | {why} |" for why, names in reasons.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
