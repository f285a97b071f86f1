"""How dense code is: `python tools/tokens_per_line.py [file ...]`, by default six core files.

Tokens per logical line: all of Python's tokens but comments, docstrings and layout (newlines,
indentation, the end), over all logical lines but docstrings; an f-string is one token. The share of
lines over 100 columns is that of the physical lines that hold code. A file of an older commit is
named COMMIT:PATH, as git does.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CORE = [f"sdpo_lab/core/{name}.py" for name in ("loop", "objective", "scoring", "rollouts")]
CORE += ["sdpo_lab/core/losses.py", "sdpo_lab/core/teachers.py"]
BOUND = 13.0
COLUMNS = 100
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
#: Python 3.12 and later cut an f-string into its parts; the start stands for the whole.
FSTRING_START = getattr(tokenize, "FSTRING_START", None)
FSTRING_END = getattr(tokenize, "FSTRING_END", None)


class Density(NamedTuple):
    tokens_per_line: float
    long_lines: float  #: share of the lines of code that have more than 100 columns


def docstring_lines(text: str) -> set[int]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            found.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found


def density(text: str) -> Density:
    docstrings = docstring_lines(text)
    tokens, logical_lines, inside_fstrings = 0, 0, 0
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        first, last = token.start[0], token.end[0]
        if first in docstrings:
            continue
        if token.type == tokenize.NEWLINE:
            logical_lines += 1
        if token.type in LAYOUT:
            continue
        code.update(range(first, last + 1))
        if token.type == FSTRING_END:
            inside_fstrings -= 1
            continue
        tokens += inside_fstrings == 0
        inside_fstrings += token.type == FSTRING_START
    lines = text.splitlines()
    long = sum(len(lines[number - 1]) > COLUMNS for number in code)
    return Density(tokens / max(1, logical_lines), long / max(1, len(code)))


def source(name: str) -> str:
    if ":" not in name:
        return (ROOT / name).read_text(encoding="utf-8")
    shown = subprocess.run(["git", "show", name], cwd=ROOT, capture_output=True, check=True)
    return shown.stdout.decode()


def main() -> None:
    names = sys.argv[1:] or CORE
    found = [density(source(name)) for name in names]
    for name, (tokens, long) in zip(names, found):
        print(f"{tokens:6.1f} {long:5.0%} {name}")
    mean = sum(tokens for tokens, _ in found) / len(found)
    print(f"{mean:6.1f}       mean, {BOUND:.0f} at most in the core")
    if names == CORE and mean > BOUND:
        sys.exit(1)


if __name__ == "__main__":
    main()
