"""JSON with the numbers that JSON lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np


def each_float(value: Any, change: Callable[[float], Any]) -> Any:
    """The same dictionaries and lists with every float changed."""
    if isinstance(value, dict):
        return {k: each_float(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [each_float(v, change) for v in value]
    return change(value) if isinstance(value, float) else value


def to_json(value: Any) -> str:
    """One line, all of it ASCII; a number that JSON lacks becomes {"not finite": "nan"}, and a
    dictionary that looks like that has its value in a list. A number of numpy becomes Python's.
    Raises ValueError for what is none of these."""

    def tidy(v: Any) -> Any:
        if isinstance(v, (np.number, np.bool_)):
            v = v.item()
        if isinstance(v, dict):
            return {k: [tidy(x)] if set(v) == {"not finite"} else tidy(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [tidy(x) for x in v]
        return {"not finite": repr(v)} if isinstance(v, float) and not math.isfinite(v) else v

    try:
        return json.dumps(tidy(value), allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(
            f"a run is saved as JSON, and this is none: {error}. Problem.data, a task's dials and "
            "its state_dict() must be JSON-able"
        ) from error


def from_json(text: str) -> Any:
    def read(d: dict[str, Any]) -> Any:
        if set(d) != {"not finite"}:
            return d
        value = d["not finite"]
        return {"not finite": value[0]} if isinstance(value, list) else float(value)

    return json.loads(text, object_hook=read)
