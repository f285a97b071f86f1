"""Which tokens of an attempt are argument names, and what is true of each: the ground truth that
credit assignment is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdpo_lab.analysis.credit import Credit
from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.toolcall import judge as judging


@dataclass(frozen=True)
class WrittenName:
    """One argument name of an attempt at a single call."""

    name: str
    tokens: tuple[int, ...]  #: positions in the attempt that hold a piece of it
    right: bool  #: accepted by the tool, and with the value that was asked for
    reported: bool  #: the judge's message is about this one: the first that is wrong

    def advantage(self, credit: Credit) -> float:
        """log q - log p of the whole name: the sum over its tokens, nats."""
        return float(credit.advantages[list(self.tokens)].sum())


def written_names(task: Any, problem: Problem, credit: Credit) -> list[WrittenName]:
    """The argument names of an attempt at one `toolcall` call, in order; [] when it is no call of
    the tool asked for.

    Raises ValueError for a problem with several calls.
    """
    if len(problem.data["calls"]) != 1:
        raise ValueError(
            "names are told apart in attempts at one call; this problem asks for "
            f"{len(problem.data['calls'])}. Use load_task('toolcall', calls=1)"
        )
    special = set(credit.tokenizer.all_special_ids)
    text = "".join(t for t, i in zip(credit.tokens, credit.completion_ids) if i not in special)
    calls, wanted = judging.parse_calls(text), problem.data["calls"][0]
    if not calls or len(calls) != 1 or calls[0].func.id != wanted["tool"] or "\n" in text.strip():
        return []
    role_of = {name: role for role, name in task.convention[wanted["tool"]].items()}
    errors, _ = judging.find_errors([wanted], task.convention, text)
    reported = errors[0].name if errors and errors[0].kind == "unexpected" else None
    indent = len(text.encode()) - len(text.lstrip().encode())
    names = []
    for keyword in calls[0].keywords:
        name = keyword.arg
        begin = indent + keyword.col_offset  # ast counts UTF-8 bytes, as spans do
        end = begin + len(name.encode())
        tokens = tuple(t for t, (a, b) in enumerate(credit.spans) if a < end and b > begin)
        right = False
        if name in role_of:
            right = judging.literal(keyword.value) == wanted["values"].get(role_of[name])
        names.append(WrittenName(name, tokens, right, reported=name == reported))
    return names
