"""Tasks by name. Any object with `problems()` and `judge()` is a task too, without registration."""

from __future__ import annotations

from sdpo_lab.core.checks import check_choice, unknown_keywords
from sdpo_lab.core.task import Problem, Task, Verdict
from sdpo_lab.tasks.adapters import Guard, JudgeError, task_from_function
from sdpo_lab.tasks.followup import FollowUp
from sdpo_lab.tasks.reasoning_gym import PREFIX, ReasoningGym
from sdpo_lab.tasks.tinycode import TinyCode
from sdpo_lab.tasks.toolcall import ToolCall

TASKS = {"toolcall": ToolCall, "tinycode": TinyCode, "followup": FollowUp}
#: The tasks that the recipe of the small models covers, with the dials that suit what it makes.
SHIPPED: dict[str, dict[str, int]] = {
    "toolcall": {},
    "tinycode": {},
    "followup": {},
    f"{PREFIX}spell_backward": dict(min_word_len=3, max_word_len=5),
    f"{PREFIX}chain_sum": dict(min_terms=2, max_terms=2, min_digits=1, max_digits=2),
}

__all__ = [
    "SHIPPED",
    "Guard",
    "JudgeError",
    "Problem",
    "Task",
    "Verdict",
    "list_tasks",
    "load_task",
    "task_from_function",
]


def list_tasks() -> dict[str, str]:
    """Names of the shipped tasks with a line on each."""
    kinds = {**TASKS, f"{PREFIX}<name>": ReasoningGym}
    return {name: (kind.__doc__ or "").strip().splitlines()[0] for name, kind in kinds.items()}


def load_task(name: str, seed: int = 0, **dials: object) -> Task:
    """A shipped task, or "reasoning_gym:<name>" for a data set of that package; dials are keyword
    arguments (see the class for names and ranges).

    Raises ValueError for an unknown name or dial, with the list of what there is and the nearest
    name.
    """
    if isinstance(name, str) and name.startswith(PREFIX):
        return ReasoningGym(name.removeprefix(PREFIX), seed, **dials)
    check_choice("task", name, [*TASKS, f"{PREFIX}<name>"])
    unknown_keywords(f"task {name!r}", dials, TASKS[name].__init__)
    return TASKS[name](seed, **dials)
