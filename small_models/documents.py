"""Pre-training documents: each a small world of its own, whose convention only its own context
tells.

A document is a chat and the right answer to it; only the answer is trained on. It is one content in
one rendering (`sdpo_lab.prompts`, the list of every form the package uses; a third rendering,
"varied", words the frame anew each time), about one of the worlds of `worlds.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from sdpo_lab.models import prompt_forms as prompts
from small_models.wordings import frame
from small_models.worlds import WORLDS, Case, code

RENDERINGS = {
    "varied": 0.44,
    "paper": 0.27,
    "trl": 0.1,
    "hindsight": 0.06,
    "two turns": 0.09,
    "predict": 0.04,
}
CONTENTS = {
    "nothing": 0.16,
    "solution": 0.14,
    "feedback": 0.28,
    "solution and feedback": 0.08,
    "attempt and feedback": 0.13,
    "history": 0.15,
    "unrelated feedback": 0.035,
    "permuted feedback": 0.025,
    # a reader believes a message as far as documents lie: this share is the floor of every excluded
    # name
    "misleading feedback": 0.004,
}
#: In `tinycode` to read one failing test is what takes longest to learn.
CODE_CONTENTS = CONTENTS | {"nothing": 0.12, "solution": 0.12, "feedback": 0.4, "history": 0.09}
HISTORY, HISTORY_WEIGHTS = (2, 3, 4, 5, 6, 7, 8), (0.4, 0.2, 0.14, 0.1, 0.08, 0.04, 0.04)
FORMS = {*prompts.FORMS, *(("varied", content) for content in CONTENTS)}
WITHOUT_FEEDBACK = (
    "nothing",
    "solution",
)  # what there is to show in a world whose judge says nothing
TELLING = (
    "solution",
    "feedback",
    "solution and feedback",
    "attempt and feedback",
)  # after which a reader may know names nobody could guess


@dataclass(frozen=True)
class Document:
    messages: list[dict[str, str]]
    answer: str
    world: str
    rendering: str
    content: str
    excludes: bool = False  #: its feedback says which name is wrong, and no more


def draw_document(
    rng: random.Random, rendering: str | None = None, content: str | None = None
) -> Document:
    """One document; of a form that is given, or drawn by the shares above."""
    world = draw(WORLDS, rng)
    case = world(rng, told=False)
    if (
        case.fail is None
        and (content or "nothing") in WITHOUT_FEEDBACK
        and (rendering or "varied") in ("varied", "paper", "trl")
    ):
        r = rendering or draw({k: RENDERINGS[k] for k in ("varied", "paper", "trl")}, rng)
        return write(case, r, content or rng.choice(WITHOUT_FEEDBACK), rng)
    while case.fail is None:  # this form needs feedback
        world = draw(WORLDS, rng)
        case = world(rng, told=False)
    r = rendering or draw(
        {k: share for k, share in RENDERINGS.items() if content is None or (k, content) in FORMS},
        rng,
    )
    contents = CODE_CONTENTS if world is code else CONTENTS
    c = content or draw({k: share for k, share in contents.items() if (r, k) in FORMS}, rng)
    if c in TELLING:
        case = world(rng, told=True)
    return write(case, r, c, rng)


def draw(shares: dict, rng: random.Random):
    return rng.choices(list(shares), list(shares.values()))[0]


def write(case: Case, rendering: str, content: str, rng: random.Random) -> Document:
    question, parts = [{"role": "user", "content": case.question}], {}
    if (
        "solution" in content
    ):  # sometimes of another request: the convention carries over, the values do not
        parts["solution"] = (
            case.answer if case.again is None or rng.random() < 0.8 else case.again(rng).answer
        )
    if content == "history":
        parts["feedback"] = prompts.HISTORY_JOINT.join(
            case.fail(rng)[1] for _ in range(rng.choices(HISTORY, HISTORY_WEIGHTS)[0])
        )
    elif content == "unrelated feedback":
        parts["attempt"], parts["feedback"] = stray(case, rng, same_world=False)
    elif content == "permuted feedback":
        parts["attempt"], parts["feedback"] = stray(case, rng, same_world=True)
    elif content == "misleading feedback":
        parts["attempt"], parts["feedback"] = case.lie(rng)
    elif "feedback" in content:
        about = case if "attempt" in content or rng.random() < 0.85 else case.again(rng)
        parts["attempt"], parts["feedback"] = about.fail(rng)
    if (
        rendering == "two turns"
    ):  # what was tried is in the chat itself; a stray message follows an attempt at this question
        if "unrelated" in content or "permuted" in content:
            parts["attempt"] = case.fail(rng)[0]
    elif content != "attempt and feedback":
        parts.pop("attempt", None)
    answer = parts.pop("feedback") if rendering == "predict" else case.answer
    if rendering == "varied":
        messages = [
            {
                "role": "user",
                "content": frame(case.question, parts, rng) if parts else case.question,
            }
        ]
    elif not parts:
        messages = question
    else:
        messages = prompts.RENDERINGS[rendering](question, **parts)
    return Document(
        messages,
        answer,
        case.world,
        rendering,
        content,
        case.excludes and "feedback" in (*parts, *content.split()),
    )


def draw_lesson(
    draw_one: Callable[[random.Random], tuple[str, str]], rng: random.Random
) -> Document:
    """A document of one of the two lessons (`lessons.py`)."""
    prompt, answer = draw_one(rng)
    return Document(
        [{"role": "user", "content": prompt}], answer, draw_one.__name__, "varied", "nothing"
    )


def stray(case: Case, rng: random.Random, same_world: bool) -> tuple[str, str]:
    """(attempt, feedback) that tell nothing of this case: of another world, or on another kind of
    request of the same.
    """
    while True:
        other = draw(WORLDS, rng)(rng, told=False)
        if (
            other.fail
            and (other.world == case.world) == same_world
            and not (same_world and other.topics & case.topics)
        ):
            return other.fail(rng)
