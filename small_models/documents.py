"""Pre-training documents: each a small world of its own, whose convention only its own context tells.

A document is a chat and the right answer to it; only the answer is trained on. It is one content in one rendering (`sdpo_lab.prompts`, the list of
every form the package uses; a third rendering, "varied", words the frame anew each time), about one of the worlds of `worlds.py`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from sdpo_lab import prompts
from sdpo_lab.tasks.toolcall.world import nonsense_name
from small_models.wordings import WORDS, frame
from small_models.worlds import EVERY_NAME, WORLDS, Case

RENDERINGS = {"varied": 0.44, "paper": 0.27, "trl": 0.1, "hindsight": 0.06, "two turns": 0.09, "predict": 0.04}
CONTENTS = {"nothing": 0.2, "solution": 0.17, "feedback": 0.2, "solution and feedback": 0.1, "attempt and feedback": 0.14, "history": 0.1,
            "unrelated feedback": 0.04, "permuted feedback": 0.03, "misleading feedback": 0.02}
HISTORY, HISTORY_WEIGHTS = (2, 3, 4, 5, 6, 7, 8), (0.4, 0.2, 0.14, 0.1, 0.08, 0.04, 0.04)
FORMS = {*prompts.FORMS, *(("varied", content) for content in CONTENTS)}
WITHOUT_FEEDBACK = ("nothing", "solution")  # what there is to show in a world whose judge says nothing
TELLING = ("solution", "feedback", "solution and feedback", "attempt and feedback")  # after which a reader may know names nobody could guess


@dataclass(frozen=True)
class Document:
    messages: list[dict[str, str]]
    answer: str
    world: str
    rendering: str
    content: str


def draw_document(rng: random.Random, rendering: str | None = None, content: str | None = None) -> Document:
    """One document; of a form that is given, or drawn by the shares above."""
    world = draw(WORLDS, rng)
    case = world(rng, told=False)
    if case.fail is None and (content or "nothing") in WITHOUT_FEEDBACK and (rendering or "varied") in ("varied", "paper", "trl"):
        r = rendering or draw({k: RENDERINGS[k] for k in ("varied", "paper", "trl")}, rng)
        return write(case, r, content or rng.choice(WITHOUT_FEEDBACK), rng)
    while case.fail is None:  # this form needs feedback
        world = draw(WORLDS, rng)
        case = world(rng, told=False)
    r = rendering or draw({k: share for k, share in RENDERINGS.items() if content is None or (k, content) in FORMS}, rng)
    c = content or draw({k: share for k, share in CONTENTS.items() if (r, k) in FORMS}, rng)
    if c in TELLING:
        case = world(rng, told=True)
    return write(case, r, c, rng)


def draw(shares: dict, rng: random.Random):
    return rng.choices(list(shares), list(shares.values()))[0]


def write(case: Case, rendering: str, content: str, rng: random.Random) -> Document:
    question, parts = [{"role": "user", "content": case.question}], {}
    if "solution" in content:  # sometimes of another request: the convention carries over, the values do not
        parts["solution"] = case.answer if case.again is None or rng.random() < 0.8 else case.again(rng).answer
    if content == "history":
        parts["feedback"] = prompts.HISTORY_JOINT.join(case.fail(rng)[1] for _ in range(rng.choices(HISTORY, HISTORY_WEIGHTS)[0]))
    elif content == "unrelated feedback":
        parts["attempt"], parts["feedback"] = stray(case, rng, same_world=False)
    elif content == "permuted feedback":
        parts["attempt"], parts["feedback"] = stray(case, rng, same_world=True)
    elif content == "misleading feedback":
        parts["attempt"], parts["feedback"] = case.lie(rng)
    elif "feedback" in content:
        about = case if "attempt" in content or rng.random() < 0.85 else case.again(rng)
        parts["attempt"], parts["feedback"] = about.fail(rng)
    if rendering == "two turns":  # what was tried is in the chat itself; a stray message follows an attempt at this question
        if "unrelated" in content or "permuted" in content:
            parts["attempt"] = case.fail(rng)[0]
    elif content != "attempt and feedback":
        parts.pop("attempt", None)
    answer = parts.pop("feedback") if rendering == "predict" else case.answer
    if rendering == "varied":
        messages = [{"role": "user", "content": frame(case.question, parts, rng) if parts else case.question}]
    elif not parts:
        messages = question
    else:
        messages = prompts.RENDERINGS[rendering](question, **parts)
    return Document(messages, answer, case.world, rendering, content)


def draw_echo(rng: random.Random) -> Document:
    """A document of the first lesson: write again what stands in the prompt, all of it or the one part that is asked for. To copy from a context is what
    every later form rests on; here it is learnt from a few thousand short texts instead of tens of thousands of long ones."""
    if rng.random() < 0.6:
        text = " ".join(bit(rng) for _ in range(rng.randint(4, 12)))
        return Document([{"role": "user", "content": rng.choice(ECHO).format(text=text)}], text, "echo", "varied", "nothing")
    pairs = {bit(rng): bit(rng) for _ in range(rng.randint(3, 6))}
    between, asked = rng.choice((": ", "=", " is ", " -> ")), rng.choice(list(pairs))
    lines = rng.choice(("\n", ", ", "; ")).join(f"{k}{between}{v}" for k, v in pairs.items())
    return Document([{"role": "user", "content": f"{lines}\n{asked}?"}], pairs[asked], "echo", "varied", "nothing")


ECHO = ("Say it again: {text}", "{text}\nOnce more.", "Write this:\n{text}", "Repeat: {text}", "{text}\n\nThe same again, please.")


def bit(rng: random.Random) -> str:
    """A word, a made-up name, a number, or some of these in quotes or brackets."""
    u = rng.random()
    word = rng.choice(WORDS) if u < 0.4 else nonsense_name(rng, held_out=False) if u < 0.7 else str(rng.randint(0, 99)) if u < 0.85 else f"{rng.choice(EVERY_NAME)}_{rng.choice('abcxyz')}"
    return rng.choice(("{}", "{}", "{}", "'{}'", "({})", "[{}]")).format(word)


def stray(case: Case, rng: random.Random, same_world: bool) -> tuple[str, str]:
    """(attempt, feedback) that tell nothing of this case: of another world, or on another kind of request of the same."""
    while True:
        other = draw(WORLDS, rng)(rng, told=False)
        if other.fail and (other.world == case.world) == same_world and not (same_world and other.topics & case.topics):
            return other.fail(rng)
