"""A task whose convention is known, with a problem of it."""

from __future__ import annotations

from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.toolcall import ToolCall

WEATHER = {"city": "town", "date": "when"}
ASKED = {"tool": "weather", "values": {"city": "Oslo", "date": "May 5"}}
ORDER = {"item": "goods", "count": "pieces"}
ASKED_ORDER = {"tool": "order", "values": {"item": "lamps", "count": 7}}


def fixed(level: int = 2, reward: str = "exact", calls: int = 1) -> tuple[ToolCall, Problem]:
    task = ToolCall(feedback=level, reward=reward, calls=calls)
    task.convention |= {"weather": WEATHER, "order": ORDER}
    asked = [ASKED, ASKED_ORDER][:calls]
    return task, Problem("fixed", [{"role": "user", "content": "?"}], {"calls": asked})


UNEXPECTED = "TypeError: weather() got an unexpected keyword argument 'city'"
MISSING = "TypeError: weather() missing a required keyword argument"
POSITIONAL = "TypeError: weather() takes 0 positional arguments but 2 was given"
VALUE = "ValueError: weather() got a value for 'town' that was not asked for"
NOT_A_CALL = "SyntaxError: this is not a call of a tool"
