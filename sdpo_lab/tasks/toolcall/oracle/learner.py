"""The greedy Bayes learner: how soon the convention can be known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.tasks.toolcall.oracle.posterior import Ranks, verdict_of
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, Tool, combinations, draw_convention, names_of


@dataclass(frozen=True)
class Curve:
    """Accuracy of the greedy Bayes learner on new problems; arrays are (n + 1,)."""

    attempts: np.ndarray  #: 0, 1, ..., n
    accuracy: np.ndarray  #: mean over conventions; over the order of problems it is exact
    error: np.ndarray  #: standard error of that mean; 0 for a single convention

    def needed(self, accuracy: float = 0.9) -> int | None:
        """The fewest attempts that reach `accuracy`; None when these do not."""
        reached = np.flatnonzero(self.accuracy >= accuracy)
        return int(self.attempts[reached[0]]) if len(reached) else None


def learner_curve(
    task: Any,
    attempts: int = 500,
    *,
    batch: int = 1,
    group: int | None = None,
    within: str = "distinct",
    conventions: int = 0,
) -> Curve:
    """The greedy Bayes learner on a `ToolCall` with one call.

    It always writes the most probable call given all it has seen.

    attempts     1 to 100,000, how many are made in all; problems ask for a random tool, each with
                 the same probability
    batch        attempts between two updates of the posterior, 1 to 4096; the trainer's are 64
    group        attempts at each problem, a divisor of `batch`; min(batch, 8) when None, so that 64
                 are 8 problems
    within       what it does before the update: "same" repeats the most probable call; "distinct"
                 goes down the list of the most probable calls, over all attempts at the same tool,
                 and starts over at its end
    conventions  average over that many conventions of the same dials, seeds 0, 1, ...; 0: the
                 task's own alone

    Nothing is simulated: once the learner's best call is right it stays right (the posterior only
    loses wrong ones), and how many attempts a tool gets is binomial, so a small Markov chain for
    each tool and its right names gives the expectation.

    The learner knows the prior, not `base_accuracy`. It is greedy: it never writes a call merely to
    learn from the answer, so it is no upper bound (the tests measure how far a planner gets).
    Before its first attempt the accuracy is that of the most probable call, 0 for rare names, while
    an author who draws from the prior is right at `base_accuracy`.

    Raises ValueError for several calls, and for a convention outside the prior, which cannot be
    learned this way.
    """
    if task.dials["calls"] != 1:
        raise ValueError(
            "the learner's curve is known for one call an attempt; "
            f"this task has {task.dials['calls']}. Use load_task('toolcall', calls=1)"
        )
    check_range("attempts", attempts, int, 1, 100_000)
    check_range("batch", batch, int, 1, 4096)
    group = min(batch, 8) if group is None else group
    check_range("group", group, int, 1, batch)
    check_choice("within", within, ("same", "distinct"))
    check_range("conventions", conventions, int, 0, 10_000)
    if batch % group:
        raise ValueError(
            "batch must be a multiple of group, problems times attempts at each; "
            f"got batch={batch}, group={group}"
        )
    dials, problems, tools = task.dials, batch // group, len(task.tools)
    # chance[j]: that j problems of a batch are of one tool. Of more than 64 no more can be learned
    # than of 64: there are no more calls to try
    chance = [
        math.comb(problems, j) * (tools - 1) ** (problems - j) / tools**problems
        for j in range(min(problems, 64))
    ]
    chance.append(max(0.0, 1 - sum(chance)))
    updates = attempts // batch

    @cache
    def tool_curve(tool: Tool, truth: Ranks) -> np.ndarray:
        probabilities, ranks = zip(*combinations(tool))
        return chain(
            prior=np.array(probabilities),
            answers=answer_table(tool, ranks, dials["feedback"], dials["reward"]),
            truth=ranks.index(truth),
            updates=updates,
            chance=chance,
            group=group if within == "distinct" else 0,
        )

    drawn = [
        draw_convention(s, dials["base_accuracy"], dials["novelty"]) for s in range(conventions)
    ]
    means = []  # (conventions, updates + 1), over the tools
    for convention in drawn or [task.convention]:
        each = [(BY_NAME[name], names) for name, names in convention.items()]
        means.append(np.mean([tool_curve(t, _ranks_of(t, names)) for t, names in each], axis=0))
    steps = np.arange(attempts + 1)
    curves = np.array(means)[:, steps // batch]
    error = np.zeros(attempts + 1)
    if len(curves) > 1:
        error = curves.std(0, ddof=1) / len(curves) ** 0.5
    return Curve(steps, curves.mean(0), error)


def _ranks_of(tool: Tool, names: dict[str, str]) -> Ranks:
    for _, ranks in combinations(tool):
        if names_of(tool, ranks) == names:
            return ranks
    raise ValueError(
        f"{tool.name}({', '.join(names.values())}) lies outside the prior, so a learner who knows "
        "only the prior never finds it; use novelty='seen' or 'tool'"
    )


@lru_cache(maxsize=256)
def answer_table(
    tool: Tool, ranks: tuple[Ranks, ...], feedback: int, reward: str = "exact"
) -> np.ndarray:
    """(C, C) of integers: equal in a row where the judge says the same of the call with names
    `ranks[row]` under `ranks[column]`.

    The values of a request do not matter, as long as no two are equal: the roles themselves stand
    for them.
    """
    values = {a.role: a.role for a in tool.arguments}
    calls = [{"tool": tool.name, "values": values}]
    names = [names_of(tool, r) for r in ranks]
    numbers: dict[tuple[float, str], int] = {}  # of the verdicts
    table = np.zeros((len(ranks), len(ranks)), int)
    for row, tried in enumerate(names):
        text = write_call(tool.name, tried, values)
        for column, right in enumerate(names):
            verdict = verdict_of(calls, {tool.name: right}, text, feedback, reward)
            table[row, column] = numbers.setdefault(verdict, len(numbers))
    return table


def chain(
    prior: np.ndarray,
    answers: np.ndarray,
    truth: int,
    updates: int,
    chance: list[float],
    group: int,
) -> np.ndarray:
    """Probability that the most probable call of one tool is right after 0, ..., `updates` updates,
    (updates + 1,).

    prior    (C,) of the combinations
    answers  (C, C), what is answered to each, see `answer_table`
    truth    the right combination
    chance   probability that 0, 1, ... problems of a batch are this tool's
    group    distinct calls tried at each of them; 0: a single one in the whole batch
    """
    order = np.argsort(-prior, kind="stable")
    # the states, numbered as they are met: which combinations are left, (C,) booleans
    start = np.ones(len(prior), bool)
    states, queue = {start.tobytes(): 0}, [start]
    moves: list[dict[int, float]] = []  # of each state {next state: probability}
    right: list[bool] = []  # is the most probable call of each state right?
    for left in queue:  # grows meanwhile
        calls = [a for a in order if left[a]]
        right.append(calls[0] == truth)
        move: dict[int, float] = {}
        for problems, p in enumerate(chance):
            tries = problems * group if group else min(problems, 1)
            new = left
            for a in [] if right[-1] else calls[:tries]:
                new = new & (answers[a] == answers[a, truth])
            if new.tobytes() not in states:
                states[new.tobytes()] = len(queue)
                queue.append(new)
            at = states[new.tobytes()]
            move[at] = move.get(at, 0.0) + p
        moves.append(move)
    matrix = np.zeros((len(queue), len(queue)))
    for i, move in enumerate(moves):
        matrix[i, list(move)] = list(move.values())
    p, accuracy = np.eye(len(queue))[0], []
    for _ in range(updates + 1):
        accuracy.append(min(1.0, float(p @ np.array(right, float))))
        p = p @ matrix
    return np.array(accuracy)
