"""The real judge under any convention, and what every convention would make it say."""

from __future__ import annotations

import copy
import functools

from hypothesis import strategies as st

from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.toolcall import ToolCall
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, combinations, names_of

VALUES = {
    "weather": {"city": "Oslo", "date": "May 5"},
    "flight": {"origin": "Rome", "destination": "Lima", "date": "July 9"},
    "table": {"guests": 7, "city": "Porto"},
    "message": {"person": "Anna", "topic": "budget"},
}


def ask(*tools: str) -> Problem:
    return Problem(
        "+".join(tools),
        [{"role": "user", "content": "?"}],
        {"calls": [{"tool": t, "values": VALUES[t]} for t in tools]},
    )


def task_with(convention: dict, level: int, reward: str = "exact") -> ToolCall:
    """The real task, its real judge, and a convention of our choice."""
    task = copy.copy(plain_task(level, reward))
    task.convention = {**task.convention, **convention}
    return task


plain_task = functools.cache(lambda level, reward: ToolCall(feedback=level, reward=reward))


def call_of(tool: str, ranks: tuple) -> str:
    return write_call(tool, names_of(BY_NAME[tool], ranks), VALUES[tool])


def brute_force(tool: str, level: int, reward: str, seen: list) -> dict:
    """{ranks: probability}: the prior of the conventions under which the real judge says all that
    was `seen`."""
    problem, kept = ask(tool), {}
    for p, ranks in combinations(BY_NAME[tool]):
        task = task_with({tool: names_of(BY_NAME[tool], ranks)}, level, reward)
        said = [task.judge(problem, text) for text, _ in seen]
        kept[ranks] = p * all(v == w for v, (_, w) in zip(said, seen))
    return {r: p / sum(kept.values()) for r, p in kept.items()}


@st.composite
def attempt_texts(draw, tool: str) -> str:
    """Any names of the tool, and all the ways to go wrong."""
    roles = [a.role for a in BY_NAME[tool].arguments]
    names = [
        draw(st.sampled_from((*a.names, a.held_out or "extra"))) for a in BY_NAME[tool].arguments
    ]
    pairs = [f"{n}={VALUES[tool][r]!r}" for n, r in zip(names, roles)]
    kind = draw(
        st.sampled_from(
            (
                "call",
                "call",
                "call",
                "order",
                "swap",
                "twice",
                "less",
                "more",
                "value",
                "syntax",
                "tool",
                "positional",
                "two",
            )
        )
    )
    if kind == "order":
        pairs = draw(st.permutations(pairs))
    if kind == "swap":  # the right names on the wrong values
        values = [VALUES[tool][r] for r in roles]
        pairs = [f"{n}={v!r}" for n, v in zip(names, values[1:] + values[:1])]
    if kind == "twice":
        pairs = [*pairs, pairs[0]]
    if kind == "less":
        pairs = pairs[: draw(st.integers(0, len(pairs) - 1))]
    if kind == "more":
        pairs = [*pairs, f"{draw(st.sampled_from(BY_NAME[tool].arguments[0].names))}='x'"]
    if kind == "value":
        pairs = [*pairs[:-1], f"{names[-1]}='elsewhere'"]
    if kind == "positional":
        pairs = [repr(VALUES[tool][roles[0]]), *pairs[1:]]
    text = f"{'remind' if kind == 'tool' else tool}({', '.join(pairs)})"
    return {"syntax": text[:-1], "two": f"{text}\n{text}"}.get(kind, text)


def astuple(verdict) -> tuple:
    return verdict.reward, verdict.feedback
