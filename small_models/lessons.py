"""Two lessons that every later document rests on: to copy from a context, and "of these, not that
one".

Both are short chats whose answer is certain, so that a few thousand of them teach what tens of
thousands of long documents teach slowly. `make.py` gives them a share of the documents that falls.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from sdpo_lab.tasks.toolcall.world import nonsense_name
from small_models import plain
from small_models.wordings import UNEXPECTED, WORDS
from small_models.worlds import EVERY_NAME

# fmt: off
ECHO = (
    "Say it again: {text}", "{text}\nOnce more.", "Write this:\n{text}", "Repeat: {text}",
    "{text}\n\nThe same again, please.",
)
OPTIONS = (
    "One of {list}.", "Which one: {list}?", "{list}?", "Choose from {list}.", "There are {list}.",
    "{list}\nWhich?", "Take one: {list}.", "It is one of {list}.",
)
# fmt: on


def draw_echo(rng: random.Random) -> tuple[str, str]:
    """(prompt, answer): write again what stands in the prompt, all of it or the part that is asked
    for.
    """
    if rng.random() < 0.6:
        text = " ".join(bit(rng) for _ in range(rng.randint(4, 12)))
        return rng.choice(ECHO).format(text=text), text
    pairs = {bit(rng): bit(rng) for _ in range(rng.randint(3, 6))}
    between, asked = rng.choice((": ", "=", " is ", " -> ")), rng.choice(list(pairs))
    lines = rng.choice(("\n", ", ", "; ")).join(f"{k}{between}{v}" for k, v in pairs.items())
    return f"{lines}\n{asked}?", pairs[asked]


def bit(rng: random.Random) -> str:
    """A word, a made-up name, a number, or some of these in quotes or brackets."""
    u = rng.random()
    if u < 0.4:
        word = rng.choice(WORDS)
    elif u < 0.7:
        word = nonsense_name(rng, held_out=False)
    elif u < 0.85:
        word = str(rng.randint(0, 99))
    else:
        word = f"{rng.choice(EVERY_NAME)}_{rng.choice('abcxyz')}"
    return rng.choice(("{}", "{}", "{}", "'{}'", "({})", "[{}]")).format(word)


class Choice(NamedTuple):
    """Some options, and what is said of them."""

    head: str  #: lists the options
    lines: list[str]  #: rule out `others` one by one, or say in one line which it is
    right: str
    others: list[str]
    ruled_out: bool


def draw_choice(rng: random.Random) -> tuple[str, str]:
    """(prompt, answer): some options, then what rules all but one of them out, or asks for one.

    Said in the words of `plain`, or as a validator says it; exclusions add up over several lines.
    """
    choice = draw_options(rng)
    between = rng.choice(("\n", "\n\n", " "))
    return between.join([choice.head, *choice.lines]), choice.right


def draw_options(rng: random.Random) -> Choice:
    count = rng.choices((2, 3, 4, 5), (0.35, 0.3, 0.25, 0.1))[0]
    options: list[str] = []
    while len(options) < count:
        options = list(dict.fromkeys([*options, name(rng)]))
    right = rng.choice(options)
    others = [o for o in options if o != right]
    listed = rng.choice((", ", ", ", " or ", " | ", "; ")).join(options)
    head = rng.choice(OPTIONS).format(list=listed)
    ruled_out = rng.random() < 0.7
    if ruled_out:
        rng.shuffle(others)
        lines = [without(other, rng) for other in others]
    else:
        said = plain.Said([(rng.choice(others), right, "one")])
        lines = [plain.sentence(said, 3, rng)]
    return Choice(head, lines, right, others, ruled_out)


def name(rng: random.Random) -> str:
    u = rng.random()
    if u < 0.5:
        return rng.choice(EVERY_NAME)
    return rng.choice(WORDS) if u < 0.75 else nonsense_name(rng, held_out=False)


def without(other: str, rng: random.Random) -> str:
    """That `other` is not it, as a person or as a validator says it."""
    if rng.random() < 0.6:
        return plain.sentence(plain.Said([(other, "", "one")]), 1, rng)
    quote = rng.choice(plain.QUOTES)
    return rng.choice(UNEXPECTED).format(tool=rng.choice(WORDS), n=quote.format(other))
