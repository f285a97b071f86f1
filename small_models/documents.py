"""Pre-training documents: each a small world of its own, whose convention only its own context tells.

A document is one chat: a user turn (the question, and in four of five documents something that tells of the convention)
and the right call. Only the answer is trained on. Context types come in equal shares: the bare question, a solution,
feedback, both, and feedback with the attempt it is about. See `design` in README.md for what is held out.
"""

from __future__ import annotations

import random

from sdpo_lab.tasks.toolcall.judge import Error, find_errors, say
from sdpo_lab.tasks.toolcall.requests import draw_problem, write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, TOOLS, draw_from_prior, nonsense_name
from small_models.wordings import frame, message

CONTEXTS = ("bare", "solution", "feedback", "both", "attempt")
CALLS = (1, 2, 3, 4, 5, 6, 7, 8)
CALL_WEIGHTS = (0.78, 0.1, 0.04, 0.02, 0.02, 0.01, 0.015, 0.015)
HISTORY = (1, 2, 3, 4, 5, 6, 7, 8)  # how many feedbacks; zero is the bare question
HISTORY_WEIGHTS = (0.62, 0.14, 0.08, 0.05, 0.04, 0.03, 0.02, 0.02)
LEVELS, LEVEL_WEIGHTS = (0, 1, 2, 3), (0.04, 0.22, 0.48, 0.26)


def draw_document(rng: random.Random, context: str | None = None) -> tuple[str, str]:
    """(user turn, answer) of one document; `context` one of CONTEXTS, drawn when None."""
    context = context or rng.choice(CONTEXTS)
    problem = draw_problem(TOOLS, rng.choices(CALLS, CALL_WEIGHTS)[0], "train", rng)
    asked = problem.data["calls"]
    tools = list(dict.fromkeys(c["tool"] for c in asked))
    convention = {name: draw_from_prior(BY_NAME[name], rng) for name in tools}
    level = rng.choices(LEVELS, LEVEL_WEIGHTS)[0]
    if context != "bare" and rng.random() < 0.18:
        level = make_up_names(convention, context, level, rng)
    parts = {}
    if context in ("solution", "both"):
        parts["solution"] = write(asked if rng.random() < 0.75 else similar(tools, len(asked), rng), convention)
    if context in ("feedback", "both", "attempt"):
        about = asked if context == "attempt" or rng.random() < 0.8 else similar(tools, len(asked), rng)
        history = [fail(about, convention, level, rng) for _ in range(rng.choices(HISTORY, HISTORY_WEIGHTS)[0] if len(asked) == 1 else 1)]
        texts = [text for _, text in history]
        if rng.random() < 0.06:  # an error of some other tool tells nothing here
            other = rng.choice([t for t in TOOLS if t.name not in tools])
            stray = fail(similar([other.name], 1, rng), {other.name: draw_from_prior(other, rng)}, level, rng)[1]
            texts = [stray] if context == "feedback" and not is_made_up(convention) and rng.random() < 0.5 else [*texts, stray]
        parts["feedback"] = rng.choice(("\n", "\n\n")).join(texts)
        if context == "attempt":
            parts["attempt"] = history[-1][0]
    question = problem.messages[0]["content"]
    return (frame(question, parts, rng) if parts else question), write(asked, convention)


def write(asked: list[dict], convention: dict) -> str:
    return "\n".join(write_call(c["tool"], convention[c["tool"]], c["values"]) for c in asked)


def similar(tools: list[str], calls: int, rng: random.Random) -> list[dict]:
    """Another request for the same tools: their names carry over, its values do not."""
    names = (tools + [rng.choice(tools) for _ in range(calls)])[: max(calls, len(tools))]
    return [draw_problem([BY_NAME[name]], 1, "train", rng).data["calls"][0] for name in names]


def is_made_up(convention: dict) -> bool:
    return any(name not in argument.names for tool, names in convention.items() for argument, name in zip(BY_NAME[tool].arguments, names.values()))


def make_up_names(convention: dict, context: str, level: int, rng: random.Random) -> int:
    """Replace names by nonsense that the context will supply; returns the feedback level that makes sure it does."""
    for tool, names in convention.items():
        roles = list(names) if context in ("solution", "both") else [rng.choice(list(names))]
        names.update({role: nonsense_name(rng, held_out=False) for role in roles})
    return level if context in ("solution", "both") else 2


def fail(asked: list[dict], convention: dict, level: int, rng: random.Random) -> tuple[str, str]:
    """(attempt, message): a fallible author who guesses names from the prior, until a guess is wrong."""
    while True:
        u = rng.random()
        guess = {tool: {a.role: rng.choices(a.names, (0.55, 0.2, 0.13, 0.12))[0] if rng.random() < 0.8 else names[a.role]
                        for a in BY_NAME[tool].arguments} for tool, names in convention.items()}
        if u < 0.05:  # right names, a wrong value
            wrong = [dict(c, values=dict(c["values"])) for c in asked]
            role = rng.choice(list(wrong[0]["values"]))
            wrong[0]["values"][role] = rng.choice(similar([wrong[0]["tool"]], 1, rng))["values"][role]
            attempt = write(wrong, guess)
        elif u < 0.08:
            attempt = write(asked, guess)
            attempt = attempt[: rng.randint(3, len(attempt) - 1)]
        elif u < 0.11 and len(asked) == 1:  # an argument left out
            attempt = write(asked, guess).split(", ")[0] + ")"
        else:
            attempt = write(asked, guess)
        errors, _ = find_errors(asked, convention, attempt)
        if errors:
            error: Error = errors[0]
            worded = error.kind in ("unexpected", "missing", "value", "syntax") and rng.random() < 0.9
            return attempt, message(error, level, rng) if worded else say(error, level) or "wrong"
