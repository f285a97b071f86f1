"""Tasks by name. Any object with `problems()` and `judge()` is a task too and needs no registration."""

from __future__ import annotations

from sdpo_lab.errors import check_choice, unknown_keywords
from sdpo_lab.tasks.base import Problem, Task, Verdict
from sdpo_lab.tasks.toolcall import ToolCall

TASKS = {"toolcall": ToolCall}

__all__ = ["Problem", "Task", "Verdict", "list_tasks", "load_task"]


def list_tasks() -> dict[str, str]:
    """Names of the shipped tasks with a line on each."""
    return {name: (kind.__doc__ or "").strip().splitlines()[0] for name, kind in TASKS.items()}


def load_task(name: str, seed: int = 0, **dials: object) -> Task:
    """A shipped task; its dials are keyword arguments (see the class for names and ranges).

    Raises ValueError for an unknown name or dial, with the list of what there is and the nearest name.
    """
    check_choice("task", name, TASKS)
    unknown_keywords(f"task {name!r}", dials, TASKS[name].__init__)
    return TASKS[name](seed, **dials)
