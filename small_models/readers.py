"""What could be read: exact Bayes readers of the documents, for one message in the judge's own
words.

Each knows how documents come about (the prior, the fallible author, how often names are strange,
how often documents lie) and answers as often as it believes: its accuracy is the posterior
probability of what is right. The card puts it beside the model's, which answers at temperature 1
and so can do no better.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sdpo_lab.tasks import followup
from sdpo_lab.tasks.conventions import combinations as reading_combinations
from sdpo_lab.tasks.sandbox import Program
from sdpo_lab.tasks.tinycode import canonical
from sdpo_lab.tasks.tinycode import judge as code_judge
from sdpo_lab.tasks.tinycode import world as code_world
from sdpo_lab.tasks.toolcall.judge import find_errors, say
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, combinations, names_of
from small_models.documents import CONTENTS
from small_models.worlds import CHAT_FLAT, CODE_FLAT, LEVEL_WEIGHTS, STRANGE

Ranks = tuple[int, ...]
STRANGE_RANK = 4  #: a name that is none of the argument's four
STRANGE_LEVELS = (0, 0, 2 / 3, 1 / 3)  #: `worlds.strange_names`
GUESSES = (0.55, 0.2, 0.13, 0.12)  #: `worlds.fail_call`
KNOWS, WRONG_VALUE, CUT, LEFT_OUT = 0.2, 0.05, 0.03, 0.03
TOLD, LIES = CONTENTS["feedback"], CONTENTS["misleading feedback"]


# -- toolcall


def tool_posterior(tool: str, level: int, feedback: str) -> dict[Ranks, float]:
    """{ranks: probability} given one message at `level`, without the attempt it is about.

    Rank 4 stands for any strange name; only ranks below it can be answered. {} for a message that
    no document says in these words.
    """
    prior = dict((ranks, p) for p, ranks in combinations(BY_NAME[tool]))
    told = told_prior(tool, level)
    said = messages(tool, level).get(feedback)
    if said is None:
        return {}
    anybody = sum(
        p * said.get(ranks, 0.0) for ranks, p in prior.items()
    )  # of somebody else's convention
    weights = {
        ranks: TOLD * p * said.get(ranks, 0.0)
        + LIES * prior.get(ranks, 0.0) * LEVEL_WEIGHTS[level] * anybody
        for ranks, p in told.items()
    }
    total = sum(weights.values())
    return {ranks: w / total for ranks, w in weights.items() if w > 0}


@lru_cache(maxsize=64)
def told_prior(tool: str, level: int) -> dict[Ranks, float]:
    """p(ranks, level) in a document that tells something."""
    normal = combinations(BY_NAME[tool])
    roles = range(len(BY_NAME[tool].arguments))
    found = {ranks: (1 - STRANGE) * p * LEVEL_WEIGHTS[level] for p, ranks in normal}
    ways = [(0.5, tuple(roles))] + [(0.5 / len(roles), (role,)) for role in roles]
    for share, strange in ways:
        for p, ranks in normal:
            new = tuple(STRANGE_RANK if i in strange else r for i, r in enumerate(ranks))
            found[new] = found.get(new, 0.0) + STRANGE * STRANGE_LEVELS[level] * share * p
    return found


@lru_cache(maxsize=64)
def messages(tool: str, level: int) -> dict[str, dict[Ranks, float]]:
    """{message: {ranks: p(message | ranks, the attempt was wrong)}} of the documents' fallible
    author.
    """
    values = {a.role: f"value {i}" for i, a in enumerate(BY_NAME[tool].arguments)}
    asked = [{"tool": tool, "values": values}]
    found: dict[str, dict[Ranks, float]] = {}
    for right in told_prior(tool, level):
        names = spelt(tool, right)
        wrong: dict[str, float] = {}
        choices = [sorted({0, 1, 2, 3, r}) for r in right]
        for guess in itertools.product(*choices):
            share = 1.0
            for g, r in zip(guess, right):
                share *= (KNOWS if g == r else 0.0) + (1 - KNOWS) * (GUESSES[g] if g < 4 else 0.0)
            for p, text in attempts(tool, spelt(tool, guess), values):
                errors, _ = find_errors(asked, {tool: names}, text)
                if errors:
                    message = say(errors[0], level)
                    wrong[message] = wrong.get(message, 0.0) + share * p
        total = sum(wrong.values())
        for message, p in wrong.items():
            found.setdefault(message, {})[right] = p / total
    return found


def spelt(tool: str, ranks: Ranks) -> dict[str, str]:
    arguments = BY_NAME[tool].arguments
    return {
        a.role: a.names[r] if r < STRANGE_RANK else f"strange_{a.role}"
        for a, r in zip(arguments, ranks)
    }


def attempts(tool: str, names: dict[str, str], values: dict[str, str]) -> list[tuple[float, str]]:
    """(share, text): as it is, with a wrong value, cut off, with an argument left out."""
    whole = write_call(tool, names, values)
    first = next(iter(values))
    return [
        (1 - WRONG_VALUE - CUT - LEFT_OUT, whole),
        (WRONG_VALUE, write_call(tool, names, {**values, first: "?"})),
        (CUT, whole[:-1]),
        (LEFT_OUT, whole.split(", ")[0] + ")"),
    ]


def tool_accuracy(task: Any, problem: Any, feedback: str, level: int) -> float:
    """How often the reader's call is right."""
    call = problem.data["calls"][0]
    arguments = BY_NAME[call["tool"]].arguments
    right = tuple(a.names.index(task.convention[call["tool"]][a.role]) for a in arguments)
    return tool_posterior(call["tool"], level, feedback).get(right, 0.0)


def tool_answers(problem: Any, feedback: str, level: int) -> dict[str, float]:
    """{answer: probability} of every call the reader may write; the rest is strange names."""
    call = problem.data["calls"][0]
    tool = BY_NAME[call["tool"]]
    return {
        write_call(tool.name, names_of(tool, ranks), call["values"]): p
        for ranks, p in tool_posterior(tool.name, level, feedback).items()
        if STRANGE_RANK not in ranks
    }


# -- tinycode and followup: readings of a request


def told_readings(questions: Any, flat: float) -> list[tuple[float, dict[str, str]]]:
    natural = reading_combinations(questions)
    return [((1 - flat) * p + flat / len(natural), readings) for p, readings in natural]


def reading_accuracy(
    questions: Any, flat: float, right: Callable[[dict], bool], likelihood: Callable[[dict], float]
) -> float:
    """Posterior probability of the readings for which `right` holds."""
    told = [(p, r, likelihood(r)) for p, r in told_readings(questions, flat)]
    heard = sum(p * like for p, _, like in told)
    if not heard:  # nothing the documents' author could have been told: what is usual
        told, heard = [(p, r, 1.0) for p, r, _ in told], 1.0
    total = sum(p for p, _, _ in told)
    kept, lied = TOLD / (TOLD + LIES), LIES / (TOLD + LIES)
    return sum((kept * p * like / heard + lied * p / total) for p, r, like in told if right(r))


class EveryChoice:
    """Stands for a random generator where all that could be chosen is wanted."""

    def choice(self, options: Any) -> Any:
        return options


def chat_accuracy(task: Any, problem: Any, feedback: str) -> float:
    """How often the reader answers as the user likes it, after one message of theirs."""
    kind = problem.data["kind"]
    questions = followup.QUESTIONS[kind]
    answers = [
        (followup.write_answer(problem.data, guess), guess)
        for _, guess in reading_combinations(questions)
    ]

    def likelihood(wanted: dict[str, str]) -> float:
        total = said = 0.0
        for text, guess in answers:
            if guess == wanted:
                continue
            share = 1.0
            for q, options in questions.items():
                share *= 0.5 / len(options) + 0.5 * (guess[q] == wanted[q])
            total += share
            for level, often in ((2, 0.9), (1, 0.1)):
                words = followup.next_message(problem.data, wanted, text, level, EveryChoice())
                said += share * often * (feedback in words) / len(words)
        return said / total

    wanted = followup.write_answer(problem.data, task.convention[kind])

    def right(readings: dict[str, str]) -> bool:
        return followup.write_answer(problem.data, readings) == wanted

    return reading_accuracy(questions, CHAT_FLAT, right, likelihood)


def code_accuracy(task: Any, problem: Any, feedback: str) -> float:
    """How often the reader's function does what is meant, after the first failing test."""
    data = problem.data
    kind = code_world.KINDS[data["kind"]]
    public, private = code_judge.tests(canonical(data))
    inputs = (*public, *private)
    every = reading_combinations(kind.questions)
    results = [code_judge.results_of(data, readings, inputs) for _, readings in every]
    expected = {str(readings): found for (_, readings), found in zip(every, results)}
    tried = [(p * 0.6 + 0.4 / len(every), code_world.write_code(data, r)) for p, r in every]
    tried = [(0.88 * p, code) for p, code in tried]
    tried += [
        (0.12 / len(kind.slips), code_world.write_code(data, expression=slip))
        for slip in kind.slips
    ]
    outcomes = [
        (p, code_judge.run_trusted(Program(code, data["function"], public))) for p, code in tried
    ]

    def likelihood(readings: dict[str, str]) -> float:
        wanted = expected[str(readings)][: len(public)]
        total = said = 0.0
        for p, found in outcomes:
            text = code_judge.say(data["function"], public, found, wanted, 2)
            total += p * bool(text)
            said += p * (text == feedback)
        return said / total

    def consistent(readings: dict[str, str]) -> float:
        """Whether the told test comes out as told; for failures the author does not make."""
        lines = feedback.split("\n")
        if not feedback.startswith("Test ") or len(lines) < 4:
            return 1.0
        i = int(lines[0][5:].split(":")[0]) - 1
        shown = code_judge.show(expected[str(readings)][i])
        return float(lines[-1] == f"Expected: {shown}")

    known = any(likelihood(readings) for _, readings in every)
    truth = expected[str(task.convention[data["kind"]])]

    def right(readings: dict[str, str]) -> bool:
        return all(map(code_judge.same, expected[str(readings)], truth))

    return reading_accuracy(kind.questions, CODE_FLAT, right, likelihood if known else consistent)
