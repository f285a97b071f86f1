"""Tests of a function, and what the environment says of an attempt that fails one (paper: first
runtime error, else timeout, else wrong answer)."""

from __future__ import annotations

import functools
import json
import math
import random
import re
import traceback
from typing import Any

from sdpo_lab.tasks.conventions import combinations
from sdpo_lab.tasks.sandbox import Program, Raised, Returned
from sdpo_lab.tasks.tinycode.world import KINDS, draw_inputs, write_code

#: Characters of one input, output or message, and of a whole feedback (paper: 250 and 2,000).
MAX_PART, MAX_FEEDBACK = 250, 2000
#: Tests at least; public ones are more where it takes more to tell the readings apart.
PUBLIC, PRIVATE = 3, 8

Outcome = Returned | Raised


def extract_code(completion: str) -> str:
    """The attempt without the fence of a Markdown block, if it has one."""
    fenced = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", completion, re.DOTALL)
    return fenced.group(1) if fenced else completion


def run_trusted(program: Program) -> list[Outcome]:
    """What the sandbox would report, run here: for code that `world` wrote, never for a model's."""
    try:
        namespace: dict[str, Any] = {}
        exec(compile(program.code, "attempt", "exec"), namespace)
        function = namespace[program.function]
    except Exception as error:
        return [raised(error, program)] * len(program.inputs)
    outcomes: list[Outcome] = []
    for arguments in program.inputs:
        try:
            copies = json.loads(json.dumps(arguments))
            outcomes.append(Returned(function(*copies)))
        except Exception as error:
            outcomes.append(raised(error, program))
    return outcomes


def raised(error: Exception, program: Program) -> Raised:
    """The outcome of a call that raised `error`, as the sandbox would report it."""
    lines = program.code.splitlines()
    if isinstance(error, SyntaxError):
        line, message = error.lineno or 1, error.msg
    else:
        frames = reversed(traceback.extract_tb(error.__traceback__))
        line = next((f.lineno for f in frames if f.filename == "attempt"), 0)
        if isinstance(error, KeyError) and not line:
            error = NameError(f"name {program.function!r} is not defined")
        message = str(error)
    source = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return Raised(type(error).__name__, message, line, source)


@functools.lru_cache(maxsize=20_000)
def tests(problem: str) -> tuple[tuple[tuple, ...], tuple[tuple, ...]]:
    """(inputs of public tests, of private ones) of a problem, given as the JSON of its data.

    Every two readings differ in a public test.
    """
    data = json.loads(problem)
    kind, rng = KINDS[data["kind"]], random.Random(f"tests/{problem}")
    drawn = [tuple(draw_inputs(kind, rng)) for _ in range(60)]
    results = [
        [show(x) for x in results_of(data, readings, drawn)]
        for _, readings in combinations(kind.questions)
    ]
    # public: tests that tell readings apart; groups: readings that none of these tells apart yet
    public: list[int] = []
    groups = [list(range(len(results)))]
    for i in range(len(drawn)):
        split = [
            [r for r in group if results[r][i] == value]
            for group in groups
            for value in dict.fromkeys(results[r][i] for r in group)
        ]
        all_apart = max(map(len, groups)) == 1
        if len(split) > len(groups) or (len(public) < PUBLIC - 1 and all_apart):
            public.append(i)
            groups = split
    rest = [i for i in range(len(drawn)) if i not in public]
    missing = max(0, PUBLIC - len(public))
    public, private = public + rest[:missing], rest[missing:][:PRIVATE]
    return tuple(drawn[i] for i in public), tuple(drawn[i] for i in private)


def results_of(
    data: dict[str, Any], readings: dict[str, str], inputs: list[tuple] | tuple[tuple, ...]
) -> list[Any]:
    """What the function returns as it is meant."""
    program = Program(write_code(data, readings), data["function"], tuple(inputs))
    return [outcome.value for outcome in run_trusted(program)]


def same(value: Any, expected: Any) -> bool:
    """Equal, and of the same type; numbers may differ by rounding."""
    if type(value) is not type(expected):
        return False
    if isinstance(expected, float):
        return math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(expected, (list, tuple)):
        return len(value) == len(expected) and all(map(same, value, expected))
    return bool(value == expected)


def passes(outcome: Outcome, expected: Any) -> bool:
    return isinstance(outcome, Returned) and same(outcome.value, expected)


def say(
    function: str,
    inputs: tuple[tuple, ...],
    outcomes: list[Outcome],
    expected: list[Any],
    level: int,
) -> str:
    """The feedback of public tests, "" when all pass.

    Level 0: nothing; 1: what happened; 2: also what was expected of a wrong answer.
    """
    failed = [i for i in range(len(inputs)) if not passes(outcomes[i], expected[i])]
    if level == 0 or not failed:
        return ""
    # the first runtime error, else the first timeout, else the first wrong answer
    raised = [i for i in failed if isinstance(outcomes[i], Raised)]
    errors = [i for i in raised if outcomes[i].kind != "Timeout"]
    i = (errors or raised or failed)[0]
    outcome, call = outcomes[i], f"{function}({', '.join(map(show, inputs[i]))})"
    if isinstance(outcome, Returned):
        text = f"Test {i + 1}: Wrong Answer\nInput: {call}\nOutput: {show(outcome.value)}"
        if level == 2:
            text += f"\nExpected: {show(expected[i])}"
    elif outcome.kind == "Timeout":
        text = f"Time Limit Exceeded\nInput: {call}"
    else:
        text = f"Runtime Error\n{outcome.kind}: {cut(outcome.message)}"
        if outcome.line:
            text += f"\nLine {outcome.line}: {cut(outcome.source)}"
        if outcome.kind != "SyntaxError":
            text += f"\nInput: {call}"
    return text[:MAX_FEEDBACK]


def cut(text: str) -> str:
    """At most `MAX_PART` characters, on one line, without addresses, which no two runs share."""
    line = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(text.split()))
    return line if len(line) <= MAX_PART else line[: MAX_PART - 3] + "..."


def show(value: Any) -> str:
    """A value as Python writes it, cut to size; a number too long for that by its length."""
    try:
        return cut(repr(value))
    except ValueError:  # an int of more digits than Python is willing to print
        return "a number of thousands of digits"
