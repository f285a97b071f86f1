"""Physical lines of code, without blank lines, comments and docstrings: `python tools/lines.py
[folder ...]`."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = (".py", ".js", ".css")
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def python_lines(text: str) -> int:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def logical_lines(path: Path) -> int:
    """Logical lines as Python defines them, however a statement is broken; docstrings aside."""
    with tokenize.open(path) as file:
        tokens = tokenize.generate_tokens(file.readline)
        lines = sum(token.type == tokenize.NEWLINE for token in tokens)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return lines - sum(
        isinstance(node, documented) and ast.get_docstring(node) is not None
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def page_lines(text: str) -> int:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return sum(
        bool(line.strip()) and not line.strip().startswith("//") for line in text.splitlines()
    )


def code_lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    return python_lines(text) if path.suffix == ".py" else page_lines(text)


def count(folder: Path) -> dict[Path, int]:
    """Of every file of Python, JavaScript and CSS in a folder."""
    paths = (
        p for p in sorted(folder.rglob("*")) if p.suffix in KINDS and "__pycache__" not in p.parts
    )
    return {p: code_lines(p) for p in paths}


def main() -> None:
    for name in sys.argv[1:] or ["sdpo_lab"]:
        counts = count(ROOT / name)
        for path, lines in counts.items():
            print(f"{lines:6} {path.relative_to(ROOT)}")
        print(f"{sum(counts.values()):6} {name} in all\n")


if __name__ == "__main__":
    main()
