"""docs/equations.md names functions that exist, and every equation of the paper's section on the
method."""

import importlib
import re

import pytest


@pytest.fixture
def text(root):
    return (root / "docs" / "equations.md").read_text(encoding="utf-8")


def test_every_function_it_names_exists(text, root):
    names = set(re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_.]+)`", text)) - {"docs/equations.md"}
    assert len(names) >= 20
    for name in names:
        room, *path = name.split(".")
        thing = importlib.import_module(f"sdpo_lab.{room}")
        for part in path:
            assert hasattr(thing, part) or part in getattr(thing, "__dataclass_fields__", {}), (
                name
            )  # a function, a property or a field
            thing = getattr(thing, part, None)
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`|\]\(\.\./([^)]+)\)", text):
        assert (root / (path[0] or path[1])).exists(), path


def test_every_mode_teacher_and_equation_is_there(text):
    from sdpo_lab.core.config import MODES, TEACHERS

    for word in (
        *MODES,
        *TEACHERS,
        "Eq. 1 ",
        "Prop. 2.1",
        "A.1, Eq. 6",
        "A.2",
        "A.3",
        "C.1",
        "A.4, Eq. 12",
        "Eq. 13",
        "§4.2",
        "§4.8",
        "Table 2",
        "Table 12",
    ):
        assert word in text, word
