"""Parse an attempt with `ast`, validate it against the convention, and say what is wrong at one of
four settings."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

from sdpo_lab.tasks.toolcall.world import BY_NAME, Convention

#: Beyond these a text is no call worth parsing; ast itself can run out of stack.
MAX_CHARACTERS, MAX_DEPTH = 4000, 20


@dataclass(frozen=True)
class Error:
    """What is wrong first, as Python would find it."""

    kind: str  #: syntax | count | tool | positional | unexpected | missing | value
    tool: str = ""  #: that was asked for
    name: str = ""  #: the offending argument (or tool, or value)
    accepted: tuple[str, ...] = ()  #: sorted names of the tool, which setting 2 adds
    expected: str = ""  #: the name that should stand there, which setting 3 adds
    line: int = 0  #: 1-based line among several calls, 0 when one was asked for


def parse_calls(text: str) -> list[ast.Call] | None:
    """The calls of an attempt, one an expression statement; None when it is anything else."""
    if len(text) > MAX_CHARACTERS or max_depth(text) > MAX_DEPTH:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: null bytes
        return None
    calls = [s.value for s in body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    good = len(calls) == len(body) and all(
        isinstance(c.func, ast.Name) and all(k.arg for k in c.keywords) for c in calls
    )
    # Python refuses a name given twice only when it compiles; here the last one would count, a
    # second guess for free
    good = good and all(len({k.arg for k in c.keywords}) == len(c.keywords) for c in calls)
    return calls if good and calls else None


def max_depth(text: str) -> int:
    """How deep the brackets of a text are nested."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def literal(node: ast.expr) -> object:
    """The value of a plain string or number; None for anything else (a name, a sum, a call)."""
    return node.value if isinstance(node, ast.Constant) and type(node.value) in (str, int) else None


def find_errors(asked: list[dict], convention: Convention, text: str) -> tuple[list[Error], float]:
    """(errors, fraction of right arguments): at most one error a call, in the order of lines."""
    calls = parse_calls(text)
    if calls is None:
        return [Error("syntax")], 0.0
    if len(calls) != len(asked):
        return [Error("count", name=f"{len(calls)} instead of {len(asked)}")], 0.0
    errors, right, total = [], 0, 0
    for i, (call, wanted) in enumerate(zip(calls, asked)):
        names, values = convention[wanted["tool"]], wanted["values"]
        given = {k.arg: literal(k.value) for k in call.keywords}
        if call.func.id == wanted["tool"] and not call.args:
            right += sum(given.get(names[role]) == value for role, value in values.items())
        total += max(len(values), len(call.keywords) + len(call.args))
        error = first_error(call, wanted, names, given, line=i + 1 if len(asked) > 1 else 0)
        errors += [error] if error else []
    return errors, right / total


def first_error(
    call: ast.Call, wanted: dict, names: dict[str, str], given: dict[str, object], line: int
) -> Error | None:
    """What is wrong first in one call, `given` its {name: value}; None when nothing is."""
    tool, values = wanted["tool"], wanted["values"]
    if call.func.id != tool:
        return Error("tool", tool, name=call.func.id, line=line)
    accepted = tuple(sorted(names.values()))
    if call.args:
        return Error("positional", tool, name=str(len(call.args)), accepted=accepted, line=line)
    for name in given:
        if name not in accepted:
            expected = names[role_of(name, given, tool, values, names)]
            return Error("unexpected", tool, name, accepted, expected, line)
    for role, name in names.items():
        if name not in given:
            return Error("missing", tool, "", accepted, name, line)
    for role, name in names.items():
        if given[name] != values[role]:
            return Error("value", tool, name, accepted, repr(values[role]), line)
    return None


def role_of(
    name: str, given: dict[str, object], tool: str, values: dict, names: dict[str, str]
) -> str:
    """Which argument a wrong name was meant to be: by its value, else by meaning, else the first
    one still missing."""
    missing = [role for role in values if names[role] not in given] or list(values)
    by_value = [role for role in missing if values[role] == given[name]]
    by_meaning = [
        a.role
        for a in BY_NAME[tool].arguments
        if a.role in missing and name in (*a.names, a.held_out)
    ]
    return (by_value + by_meaning + missing)[0]


def say(error: Error, level: int) -> str:
    """The validator's message.

    Level 0: nothing; 1: what is wrong; 2: also the accepted names; 3: the right name itself.
    """
    if level == 0:
        return ""
    tool, name = error.tool, repr(error.name[:40])
    accepted = f" (accepted: {', '.join(error.accepted)})" if level == 2 else ""
    message = {
        "syntax": "SyntaxError: this is not a call of a tool",
        "count": f"ValueError: {error.name} calls, one a line",
        "tool": f"NameError: {name} is not the tool asked for",
        "positional": f"TypeError: {tool}() takes 0 positional arguments but {error.name} was given"
        + accepted,
        "unexpected": f"TypeError: {tool}() got an unexpected keyword argument {name}" + accepted,
        "missing": f"TypeError: {tool}() missing a required keyword argument" + accepted,
        "value": f"ValueError: {tool}() got a value for {error.name!r} that was not asked for",
    }[error.kind]
    if level == 3:
        message += {
            "unexpected": f" ({name} should be {error.expected!r})",
            "missing": f" (expected: {error.expected!r})",
            "value": f" (expected: {error.expected})",
        }.get(error.kind, "")
    return (f"line {error.line}: " if error.line else "") + message
