"""What is asked of the server, and what its answers mean: messages and outcomes."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass

from sdpo_lab.core.checks import check_kind, short_repr
from sdpo_lab.tasks.sandbox import protocol

MAX_CODE = 100_000  # characters of a program; more is not run
MAX_INPUTS = 256  # tests of a program


@dataclass(frozen=True)
class Program:
    """`function(*arguments)` is called for every entry of `inputs`, in order, in one process in
    which `code` was executed once.

    Arguments are made of None, bool, int, float, str, list, tuple, dict and set; every call gets
    copies of its own.
    """

    code: str  #: at most 100,000 characters; more is not run
    function: str  #: its name
    inputs: tuple[tuple, ...]  #: arguments of each call, at most 256


@dataclass(frozen=True)
class Returned:
    """What a call returned."""

    value: object  #: of exactly the builtin types above (an int is no bool, nan is nan)


@dataclass(frozen=True)
class Raised:
    """How a call failed.

    `kind` is the exception's type, or one of: "Timeout", "Killed" (the process ended or crashed),
    "MemoryError", "Unsupported" (the value's type), "OutputLimit" (too much, of whatever),
    "Forbidden" (the kernel refused a system call, or the report was spoilt). A call that was not
    reached, because one before it ended the process, has the kind of that one.
    """

    kind: str  #: see above
    message: str  #: at most 300 characters
    line: int  #: 1-based, of the last frame in the program's code; 0 where there is none
    source: str  #: the text of that line, stripped; at most 200 characters


def message_of(program: Program) -> bytes | None:
    """The program as a message to a server; None when its code is too long to be run."""
    if not isinstance(program.code, str) or not isinstance(program.function, str):
        raise TypeError(
            "code and function of the programs must be strings, "
            f"got {short_repr(program.code)} and {short_repr(program.function)}"
        )
    check_kind(
        "inputs of the programs",
        program.inputs,
        (tuple, list),
        "a tuple of tuples, the arguments of each call",
    )
    if len(program.inputs) > MAX_INPUTS:
        raise ValueError(
            f"inputs of the programs must be at most {MAX_INPUTS}, got {len(program.inputs)}"
        )
    for arguments in program.inputs:
        if not isinstance(arguments, (tuple, list)):
            raise TypeError(
                "inputs of the programs must be tuples of arguments, one is "
                f"{short_repr(arguments)}; "
                "write (x,) for one argument"
            )
    try:
        inputs = [protocol.pack(tuple(arguments)) for arguments in program.inputs]
    except (TypeError, ValueError) as error:
        raise type(error)(f"inputs of the programs: {error}") from error
    if len(program.code) > MAX_CODE:
        return None
    try:
        program.code.encode()
        code = program.code
    except UnicodeEncodeError:  # as `pack` would write it, which has lower limits
        code = {"s": program.code.encode("utf-8", "surrogatepass").hex()}
    job = {"code": code, "function": program.function, "inputs": inputs}
    return protocol.message(json.dumps(job).encode())


def outcomes(
    program: Program, message: bytes | None, answer: bytes | None, seconds: float
) -> list[Returned | Raised]:
    """What a server's answer says about each input.

    The report in it is the program's own, so it may be anything.
    """
    n = len(program.inputs)
    if message is None:
        why = f"the code has {len(program.code)} characters, more than {MAX_CODE}; it was not run"
        return [Raised("OutputLimit", why, 0, "")] * n
    if answer is None or len(answer) < 2:
        return [Raised("Killed", "the process that ran it was killed twice", 0, "")] * n
    *lines, rest = answer[2:].split(b"\n", n + 1)
    first = parse(lines[0], program.code) if lines else None
    if isinstance(first, tuple):
        return [first[0]] * n
    spoilt = "its report cannot be read: the program wrote to descriptors that are not its own"
    parsed = [parse(line, program.code) for line in lines[1 : n + 1]]
    each = [
        o if isinstance(o, (Returned, Raised)) else Raised("Forbidden", spoilt, 0, "")
        for o in parsed
    ]
    if len(each) < n:
        where = f"on input {len(each) + 1} of {n}" if lines else "while the code was loaded"
        kind, why = how_it_ended(answer[0], answer[1], seconds)
        each.append(Raised(kind, f"{why} {where}", 0, ""))
        each += [Raised(kind, f"not reached: {why} {where}", 0, "")] * (n - len(each))
    return each


def how_it_ended(ended: int, status: int, seconds: float) -> tuple[str, str]:
    """(kind, message) of a process that ended before it had reported everything."""
    if ended == protocol.TIMEOUT:
        return "Timeout", f"no result within {seconds:g} s,"
    if ended == protocol.FLOOD:
        return "OutputLimit", f"more than {protocol.MAX_REPORT} bytes were reported"
    if ended == protocol.EXITED:
        return "Killed", f"the process ended itself with status {status}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    return "Killed", f"the process was ended by {name}"


def parse(line: bytes, code: str) -> Returned | Raised | tuple[Raised] | None:
    """One line of a report: an outcome, a tuple of one when it is that of all inputs, else None."""
    try:
        ((tag, data),) = json.loads(line).items()
        if tag == "value":
            return Returned(protocol.unpack(data))
        if tag not in ("raised", "all"):
            return None
        kind, text, number = (protocol.unpack(d) for d in data)
        if type(kind) is not str or type(text) is not str or type(number) is not int:
            return None
        kind = kind if kind.isidentifier() and len(kind) <= 80 else "Exception"
        raised = Raised(kind, text[: protocol.MAX_MESSAGE], *line_of(code, number))
        return (raised,) if tag == "all" else raised
    except Exception:  # it may raise anything: nested too deep, not UTF-8, a list as a key
        return None


def line_of(code: str, number: int) -> tuple[int, str]:
    """(number, text) of a line as Python counts them, (0, "") when there is no such line."""
    lines = re.split(r"\r\n|\r|\n", code) if number > 0 else []
    return (number, lines[number - 1].strip()[:200]) if 0 < number <= len(lines) else (0, "")
