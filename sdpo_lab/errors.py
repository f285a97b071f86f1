"""Checks whose message names the value, what is allowed, and the nearest thing there is."""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable


def check_choice(name: str, value: object, allowed: Iterable) -> None:
    """Raise ValueError unless `value` is one of `allowed`, with the nearest one."""
    allowed = list(allowed)
    if isinstance(value, bool) == isinstance(allowed[0], bool) and value in allowed:
        return
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], 1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near and isinstance(value, str) else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.{hint}")


def check_range(name: str, value: object, kind: type, low: float, high: float = math.inf) -> None:
    """Raise TypeError unless `value` is an int (or float), ValueError unless low <= value <= high and finite."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if kind is int else numbers.Real):
        raise TypeError(f"{name} must be {'a whole number' if kind is int else 'a number'} from {low} to {high}; got {value!r}")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be from {low} to {high}; got {value!r}")


def unknown_keywords(owner: str, given: Iterable[str], function: Callable) -> None:
    """Raise ValueError when `given` holds a keyword that `function` does not take."""
    unknown_names(owner, given, [p for p in inspect.signature(function).parameters if p != "self"])


def unknown_names(owner: str, given: Iterable[str], known: list[str]) -> None:
    """Raise ValueError when `given` holds a name that is not `known`, with the nearest one."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{owner} has no {name!r}; it has {', '.join(known)}.{hint}")
