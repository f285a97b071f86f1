"""The scripts and styles of the views, as a notebook's output can carry them.

`static/` holds ES modules: their imports work as they stand in a browser, in Node, in an editor.
An output has nowhere to import from, and where a page's Content-Security-Policy allows inline
scripts only, Chromium refuses modules at data: and blob: URLs too. So `bundle` makes a function
of each module, which runs once and returns what the module exports.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
IMPORT = re.compile(r'^import \{([^{}]*)\} from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (function|const) (\w+)", re.MULTILINE)
DEFAULT = re.compile(r"^export default (?=\{)", re.MULTILINE)


@cache
def bundle(name: str) -> str:
    """A JavaScript expression, an object: what the module `static/{name}.js` exports.

    Imports are `import { a, b } from "./other.js";`, exports begin with `export function`,
    `export const` or `export default {`. Raises ValueError for any other.
    """
    functions: dict[str, str] = {}
    add_module(name, functions)
    return "(() => {\n" + "\n".join(functions.values()) + f"\nreturn ${name};\n}})()"


def add_module(name: str, functions: dict[str, str]) -> None:
    """Add a module to {name: code}, behind those that it imports."""
    text = without_comments((STATIC / f"{name}.js").read_text(encoding="utf-8"))
    for _, other in IMPORT.findall(text):
        if other not in functions:
            add_module(other, functions)
    exported = [word for _, word in EXPORT.findall(text)]
    if DEFAULT.search(text):
        exported.append("default: $default")
    text = IMPORT.sub(r"const {\1} = $\2;", text)
    text = DEFAULT.sub("const $default = ", EXPORT.sub(r"\1 \2", text))
    if unknown := re.search(r"^(import|export)\b.*", text, re.MULTILINE):
        raise ValueError(f"{name}.js has a line that bundle does not know: {unknown[0]}")
    functions[name] = (
        f"const ${name} = (() => {{\n{text}\nreturn {{ {', '.join(exported)} }};\n}})();"
    )


def without_comments(text: str) -> str:
    """JavaScript without indentation, empty lines, and lines that are a comment.

    No text in these files goes over a line's end, so nothing in quotes is touched.
    """
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def widget(name: str) -> str:
    """The module `static/{name}.js`, whose default export is a widget, without imports."""
    return f"export default {bundle(name)}.default;"


@cache
def style(*names: str) -> str:
    """The files `static/{name}.css`, one after the other, without comments and indentation."""
    text = "\n".join((STATIC / f"{name}.css").read_text(encoding="utf-8") for name in names)
    lines = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).splitlines()
    return "\n".join(line.strip() for line in lines if line.strip())
