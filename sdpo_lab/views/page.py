"""The scripts and styles of the views as text: read once, put together in the order they need each other."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent / "static"


@cache
def source(*names: str) -> str:
    """Files of `static/`, one after the other, without their comments and indentation, which every output would repeat.

    `dom.js`, which all scripts build with, comes first: `source("dom.js", "blame.js")`.
    """
    return "\n".join(map(stripped, names))


def stripped(name: str) -> str:
    text = (HERE / name).read_text(encoding="utf-8")
    text = (
        re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        if name.endswith(".css")
        else re.sub(r"(^|  )//[^\n]*", "", text, flags=re.MULTILINE)
    )
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
