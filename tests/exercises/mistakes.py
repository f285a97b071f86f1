"""Tables of wrong answers to an exercise, and what the check says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

Table = dict[str, list[Callable]]  # {words of what is said: answers that it is said of}


def each_mistake(tables: Iterable[tuple[Callable, Table]]) -> pytest.MarkDecorator:
    """Parametrises `check, function, words` over every wrong answer of every table."""
    rows = [
        (check, function, words)
        for check, table in tables
        for words, functions in table.items()
        for function in functions
    ]
    names = [f"{check.__name__}: {words}" for check, _, words in rows]
    return pytest.mark.parametrize("check, function, words", rows, ids=names)


def assert_named(check: Callable, function: Callable, words: str) -> None:
    """The check refuses the answer, with these words."""
    said = check(function)
    assert said.startswith("✗ ") and words.lower() in said.lower(), said
