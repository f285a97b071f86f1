"""The small worlds documents are about, one for each shipped task: a request, the convention it is
meant in, and a fallible author who guesses.

Every document draws its own convention from the prior, so that only its context tells. What is held
out of all of them: test problems, and for `toolcall` combinations, pairs, a tool and half of the
made-up names (see `sdpo_lab.tasks.toolcall.world`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sdpo_lab.tasks import followup, tinycode
from sdpo_lab.tasks.conventions import draw_from_prior as draw_readings
from sdpo_lab.tasks.conventions import is_test as is_test_problem
from sdpo_lab.tasks.sandbox import Program
from sdpo_lab.tasks.tinycode import judge as code_judge
from sdpo_lab.tasks.tinycode import world as code_world
from sdpo_lab.tasks.toolcall.judge import Error, find_errors, say
from sdpo_lab.tasks.toolcall.requests import draw_problem, write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, TOOLS, draw_from_prior, nonsense_name
from small_models import plain, wordings


@dataclass
class Case:
    """One request in one convention."""

    world: str
    question: str
    answer: str
    fail: Callable[[random.Random], tuple[str, str]] | None = (
        None  #: (attempt, feedback) of a fallible author; None where a world has no feedback
    )
    topics: frozenset[str] = frozenset()  #: tools or kinds of request it is about
    odd: bool = False  #: holds names that only a context can supply
    again: Callable[[random.Random], Case] | None = None  #: another request in the same convention
    lie: Callable[[random.Random], tuple[str, str]] | None = (
        None  #: the same from somebody who means something else
    )
    excludes: bool = False  #: its messages say what is wrong and not what is right


# -- toolcall

CALLS = (1, 2, 3, 4, 5, 6, 7, 8)
CALL_WEIGHTS = (0.78, 0.1, 0.04, 0.02, 0.02, 0.01, 0.015, 0.015)
LEVELS, LEVEL_WEIGHTS = (0, 1, 2, 3), (0.03, 0.34, 0.36, 0.27)
PLAIN = 0.3  #: so often a message is a person's sentence
STRANGE = 0.22  #: so often a convention that is told holds names nobody could guess
#: So often a convention that is told has readings any way at all, not the usual ones.
CODE_FLAT, CHAT_FLAT = 0.6, 0.2
EVERY_NAME = sorted({n for t in TOOLS for a in t.arguments for n in a.names})


@dataclass
class Api:
    """The convention of one `toolcall` document: argument names, and what its tools are called."""

    names: dict[str, dict[str, str]]
    shown: dict[str, str]
    level: int
    odd: bool  #: holds names that only the context can supply


def toolcall(rng: random.Random, told: bool = True) -> Case:
    """`told`: something of the convention will be shown, so that it may hold names nobody could
    guess.
    """
    asked = draw_problem(TOOLS, rng.choices(CALLS, CALL_WEIGHTS)[0], "train", rng)
    tools = list(dict.fromkeys(c["tool"] for c in asked.data["calls"]))
    api = Api(
        {name: draw_from_prior(BY_NAME[name], rng) for name in tools},
        {name: name for name in tools},
        rng.choices(LEVELS, LEVEL_WEIGHTS)[0],
        False,
    )
    if told and rng.random() < STRANGE:
        strange_names(api, rng)
    if rng.random() < 0.1:
        api.shown = {name: nonsense_name(rng, held_out=False) for name in tools}
    return tool_case(asked.messages[0]["content"], asked.data["calls"], api)


def strange_names(api: Api, rng: random.Random) -> None:
    """One or all names of every tool become made-up ones, or such as are right for other arguments
    (never the held-out pairs).
    """
    api.odd, api.level = True, rng.choice((2, 2, 3))
    for tool, names in api.names.items():
        for role in rng.choice((list(names), [rng.choice(list(names))])):
            argument = next(a for a in BY_NAME[tool].arguments if a.role == role)
            others = [
                n
                for n in EVERY_NAME
                if n not in (*names.values(), *argument.names, argument.held_out)
            ]
            names[role] = (
                nonsense_name(rng, held_out=False) if rng.random() < 0.5 else rng.choice(others)
            )


def tool_case(question: str, calls: list[dict], api: Api) -> Case:
    for name, shown in api.shown.items():
        question = re.sub(rf"(Call |Use |call of |[Tt]ool: ){name}\b", rf"\g<1>{shown}", question)
        question = re.sub(rf"^{name}: ", f"{shown}: ", question, flags=re.MULTILINE)

    def again(rng: random.Random) -> Case:
        tools = list(api.names)
        names = (tools + [rng.choice(tools) for _ in calls])[: max(len(calls), len(tools))]
        problems = [draw_problem([BY_NAME[name]], 1, "train", rng) for name in names]
        return tool_case(
            "\n".join(p.messages[0]["content"] for p in problems),
            [p.data["calls"][0] for p in problems],
            api,
        )

    def lie(rng: random.Random) -> tuple[str, str]:
        other = replace(
            api, names={name: draw_from_prior(BY_NAME[name], rng) for name in api.names}
        )
        return fail_call(calls, other, rng)

    return Case(
        "toolcall",
        question,
        write_calls(calls, api),
        lambda rng: fail_call(calls, api, rng),
        frozenset(api.names),
        api.odd,
        again,
        lie,
        api.level == 1,
    )


def write_calls(calls: list[dict], api: Api, names: dict | None = None) -> str:
    lines = (write_call(c["tool"], (names or api.names)[c["tool"]], c["values"]) for c in calls)
    return "\n".join(api.shown[c["tool"]] + line[len(c["tool"]) :] for c, line in zip(calls, lines))


def fail_call(calls: list[dict], api: Api, rng: random.Random) -> tuple[str, str]:
    """(attempt, message): a fallible author who guesses names from the prior, until a guess is
    wrong.
    """
    under_own_names = Api(
        api.names, {name: name for name in api.shown}, api.level, api.odd
    )  # the judge knows tools by their own names
    while True:
        u = rng.random()
        guess = {
            tool: {
                a.role: rng.choices(a.names, (0.55, 0.2, 0.13, 0.12))[0]
                if rng.random() < 0.8
                else names[a.role]
                for a in BY_NAME[tool].arguments
            }
            for tool, names in api.names.items()
        }
        if u < 0.05:  # right names, a wrong value
            wrong = [dict(c, values=dict(c["values"])) for c in calls]
            role = rng.choice(list(wrong[0]["values"]))
            wrong[0]["values"][role] = draw_problem(
                [BY_NAME[wrong[0]["tool"]]], 1, "train", rng
            ).data["calls"][0]["values"][role]
            attempt = write_calls(wrong, under_own_names, guess)
        else:
            attempt = write_calls(calls, under_own_names, guess)
        if 0.05 <= u < 0.08:
            attempt = attempt[: rng.randint(3, len(attempt) - 1)]
        elif u < 0.11 and len(calls) == 1:  # an argument left out
            attempt = attempt.split(", ")[0] + ")"
        errors, _ = find_errors(calls, api.names, attempt)
        if errors:
            error = replace(errors[0], tool=api.shown.get(errors[0].tool, errors[0].tool))
            said = what_was_wrong(calls[max(0, errors[0].line - 1)], api, guess, errors[0])
            for name, shown in api.shown.items():
                attempt = re.sub(rf"^{name}(?=\()", shown, attempt, flags=re.MULTILINE)
            if said and api.level and len(calls) == 1 and rng.random() < PLAIN:
                return attempt, plain.sentence(said, api.level, rng)
            worded = (
                error.kind in ("unexpected", "missing", "value", "syntax") and rng.random() < 0.75
            )
            return attempt, wordings.message(error, api.level, rng) if worded else say(
                error, api.level
            ) or "wrong"


def what_was_wrong(
    call: dict, api: Api, guess: dict[str, dict[str, str]], error: Error
) -> plain.Said | None:
    """What a person could say of the wrong names of one call, the judge's first; None where names
    are not what is wrong.
    """
    right, given = api.names[call["tool"]], guess[call["tool"]]
    accepted = error.accepted
    if error.kind == "missing":
        role = next(role for role, name in right.items() if name == error.expected)
        return plain.Said([], [], accepted, (error.expected, role))
    if error.kind != "unexpected":
        return None
    wrong = [(given[role], right[role], role) for role in right if given[role] not in accepted]
    wrong.sort(key=lambda pair: pair[0] != error.name)
    return plain.Said(wrong, [n for n in given.values() if n in accepted], accepted)


# -- tinycode


def code(rng: random.Random, told: bool = True) -> Case:
    problem = tinycode.draw_problem("train", rng)
    return code_case(
        problem.messages[0]["content"],
        problem.data,
        readings_for(code_world.QUESTIONS[problem.data["kind"]], told, rng, CODE_FLAT),
    )


def readings_for(questions: Any, told: bool, rng: random.Random, flat: float) -> dict[str, str]:
    """How a request is meant: by the prior where nothing tells, and where something does with
    probability `flat` any way at all, so that a reader must believe its context rather than what is
    usual. A user's message speaks of the opening or of the form and leaves the other to the prior,
    so there (`chat`) it is mostly natural.
    """
    if told and rng.random() < flat:
        return {q: rng.choice(options) for q, options in questions.items()}
    return draw_readings(questions, rng)


def code_case(question: str, data: dict[str, Any], readings: dict[str, str]) -> Case:
    def again(rng: random.Random) -> Case:
        while True:
            problem = tinycode.draw_problem("train", rng)
            if problem.data["kind"] == data["kind"]:
                return code_case(problem.messages[0]["content"], problem.data, readings)

    def lie(rng: random.Random) -> tuple[str, str]:
        return fail_code(data, draw_readings(code_world.QUESTIONS[data["kind"]], rng), rng)

    return Case(
        "tinycode",
        question,
        code_world.write_code(data, readings),
        lambda rng: fail_code(data, readings, rng),
        frozenset([data["kind"]]),
        False,
        again,
        lie,
    )


def fail_code(
    data: dict[str, Any], readings: dict[str, str], rng: random.Random
) -> tuple[str, str]:
    """(attempt, feedback): an author who takes the description in another way, or slips."""
    kind = code_world.KINDS[data["kind"]]
    public, _ = code_judge.tests(tinycode.canonical(data))
    expected = code_judge.results_of(data, readings, public)
    while True:
        u = rng.random()
        if u < 0.12:
            attempt = code_world.write_code(data, expression=rng.choice(kind.slips))
        else:
            guess = (
                draw_readings(kind.questions, rng)
                if rng.random() < 0.6
                else {q: rng.choice(options) for q, options in kind.questions.items()}
            )
            attempt = code_world.write_code(data, guess)
        if 0.12 <= u < 0.17:
            attempt = attempt[: rng.randint(4, len(attempt) - 1)]
        elif 0.17 <= u < 0.2:
            attempt = attempt.replace(data["function"], rng.choice(kind.functions), 1)
        outcomes = code_judge.run_trusted(Program(attempt, data["function"], public))
        text = code_judge.say(
            data["function"], public, outcomes, expected, 2 if rng.random() < 0.92 else 1
        )
        if text:
            return attempt, text if rng.random() < 0.7 else wordings.retell(text, rng)


# -- followup


def chat(rng: random.Random, told: bool = True) -> Case:
    problem = followup.draw_problem("train", rng)
    readings = readings_for(followup.QUESTIONS[problem.data["kind"]], told, rng, CHAT_FLAT)
    return chat_case(problem.messages[0]["content"], problem.data, readings)


def chat_case(question: str, data: dict[str, Any], readings: dict[str, str]) -> Case:
    def again(rng: random.Random) -> Case:
        while True:
            problem = followup.draw_problem("train", rng)
            if problem.data["kind"] == data["kind"]:
                return chat_case(problem.messages[0]["content"], problem.data, readings)

    def fail(rng: random.Random, wanted: dict[str, str] = readings) -> tuple[str, str]:
        while True:
            guess = {
                q: rng.choice(options) if rng.random() < 0.5 else wanted[q]
                for q, options in followup.QUESTIONS[data["kind"]].items()
            }
            attempt = followup.write_answer(data, guess)
            if guess != wanted:
                text = followup.next_message(
                    data, wanted, attempt, 2 if rng.random() < 0.9 else 1, rng
                )
                return attempt, text if rng.random() < 0.7 else plain.around(text.rstrip("."), rng)

    def lie(rng: random.Random) -> tuple[str, str]:
        return fail(rng, draw_readings(followup.QUESTIONS[data["kind"]], rng))

    return Case(
        "followup",
        question,
        followup.write_answer(data, readings),
        fail,
        frozenset([data["kind"]]),
        False,
        again,
        lie,
    )


# -- reasoning-gym

# Questions as its data sets `spell_backward` and `chain_sum` word them, without the package: words
# are of our own lists, made up, or mere letters, so that nearly all words the package asks for are
# new. What a document leaves open here is the form of the answer; the package's verifiers take the
# bare one.

#: Forms of an answer, and how often a document has them.
STYLES = {"{}": 0.35, "The answer is {}.": 0.3, "Answer: {}": 0.15, "= {}": 0.1, "{}!": 0.1}


def gym_case(name: str, draw: Callable[[], tuple[str, str]], rng: random.Random) -> Case:
    while True:
        question, answer = draw()
        if not is_test_problem(question):
            return Case(
                f"reasoning_gym:{name}",
                question,
                rng.choices(list(STYLES), list(STYLES.values()))[0].format(answer),
            )


def spell(rng: random.Random, told: bool = True) -> Case:
    def draw() -> tuple[str, str]:
        u = rng.random()
        word = (
            rng.choice(wordings.WORDS)
            if u < 0.35
            else nonsense_name(rng, held_out=False)
            if u < 0.7
            else "".join(rng.choices(wordings.LETTERS, k=rng.randint(3, 6)))
        )[:10]
        return f"Spell this word backward (example: sun -> nus): {word}", word[::-1]

    return gym_case("spell_backward", draw, rng)


def add(rng: random.Random, told: bool = True) -> Case:
    def draw() -> tuple[str, str]:
        digits = rng.randint(1, 2)
        terms = [
            rng.randint(0 if digits == 1 else 10, 10**digits - 1)
            for _ in range(2 if rng.random() < 0.75 else 3)
        ]
        signs = [rng.choice("+-") for _ in terms[1:]]
        total = terms[0] + sum(t if sign == "+" else -t for sign, t in zip(signs, terms[1:]))
        written = " ".join([str(terms[0]), *(f"{sign} {t}" for sign, t in zip(signs, terms[1:]))])
        return f"State the final answer to the following arithmetic problem: {written} =", str(
            total
        )

    return gym_case("chain_sum", draw, rng)


#: Each with its share of the documents.
WORLDS = {toolcall: 0.35, code: 0.4, chat: 0.11, spell: 0.08, add: 0.06}
