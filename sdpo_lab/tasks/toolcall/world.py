"""The small world of `toolcall`: tools, the names their arguments may have, and conventions.

A *convention* fixes one name for every argument of every tool. Pre-training documents draw theirs
from `PRIOR`, so the bare question tells no more than the prior; the task fixes one convention,
usually of rare names ("the API was renamed"). Since this generating process is known exactly, so
are the Bayes limit and the bits a piece of feedback carries.
"""

from __future__ import annotations

import itertools
import keyword
import math
import random
from dataclasses import dataclass

from sdpo_lab.tasks.conventions import PRIOR, weights_near

#: How far a convention lies from what the models were pre-trained on; see `draw_convention`.
NOVELTY = ("seen", "combination", "pair", "tool", "nonsense")


@dataclass(frozen=True)
class Argument:
    """One argument of a tool."""

    role: str  #: what it is in the request
    kind: str  #: "city", "date", "person", "number", "topic", "item", "currency" or "chore"
    names: tuple[str, str, str, str]  #: it may have, the most common first
    held_out: str = ""  #: a name right for it in no pre-training document, though for others


@dataclass(frozen=True)
class Tool:
    """One tool: its name, and its arguments in the order in which they are written."""

    name: str
    arguments: tuple[Argument, ...]


# fmt: off
TOOLS = (
    Tool("weather", (
        Argument("city", "city", ("city", "town", "place", "location"), "spot"),
        Argument("date", "date", ("date", "day", "when", "on"), "moment"),
    )),
    Tool("remind", (
        Argument("chore", "chore", ("task", "note", "todo", "memo")),
        Argument("date", "date", ("date", "moment", "time", "due"), "day"),
    )),
    Tool("table", (
        Argument("guests", "number", ("guests", "people", "persons", "seats")),
        Argument("city", "city", ("city", "spot", "area", "where"), "place"),
    )),
    Tool("message", (
        Argument("person", "person", ("to", "recipient", "receiver", "contact"), "attendee"),
        Argument("topic", "topic", ("subject", "title", "topic", "about")),
    )),
    Tool("meeting", (
        Argument("person", "person", ("person", "member", "attendee", "contact"), "receiver"),
        Argument("date", "date", ("day", "slot", "date", "time"), "due"),
    )),
    Tool("flight", (
        Argument("origin", "city", ("origin", "source", "start", "departure")),
        Argument("destination", "city", ("destination", "target", "end", "arrival")),
        Argument("date", "date", ("date", "day", "when", "on"), "slot"),
    )),
    Tool("convert", (
        Argument("amount", "number", ("amount", "value", "quantity", "total"), "count"),
        Argument("currency", "currency", ("currency", "unit", "money", "coin")),
    )),
    Tool("order", (
        Argument("item", "item", ("item", "product", "article", "goods")),
        Argument("count", "number", ("count", "number", "pieces", "quantity"), "amount"),
    )),
)
#: In no pre-training document; its roles, kinds and names occur in other tools.
HELD_OUT_TOOLS = (
    Tool("taxi", (
        Argument("city", "city", ("place", "city", "spot", "town")),
        Argument("guests", "number", ("people", "guests", "persons", "seats")),
    )),
)
# fmt: on
BY_NAME = {tool.name: tool for tool in TOOLS + HELD_OUT_TOOLS}

#: {tool name: {role: argument name}}
Convention = dict[str, dict[str, str]]


def is_held_out(ranks: tuple[int, ...]) -> bool:
    """Combinations of a second with a third name are left out of pre-training."""
    return 1 in ranks and 2 in ranks


def combinations(tool: Tool) -> list[tuple[float, tuple[int, ...]]]:
    """All (prior probability, ranks) of a tool that pre-training may draw; they sum to one.

    `ranks` says which of its four names each argument has, 0 the most common.
    """
    every = [
        (math.prod(PRIOR[r] for r in ranks), ranks)
        for ranks in itertools.product(range(len(PRIOR)), repeat=len(tool.arguments))
        if not is_held_out(ranks)
    ]
    total = sum(p for p, _ in every)
    return [(p / total, ranks) for p, ranks in every]


def names_of(tool: Tool, ranks: tuple[int, ...]) -> dict[str, str]:
    """{role: name} of a tool's arguments."""
    return {a.role: a.names[r] for a, r in zip(tool.arguments, ranks)}


def draw_from_prior(tool: Tool, rng: random.Random) -> dict[str, str]:
    """Names of one tool's arguments as a pre-training document draws them."""
    weights, ranks = zip(*combinations(tool))
    return names_of(tool, rng.choices(ranks, weights)[0])


ONSETS = "b d f g k l m n p r s t v z qz kr pl st".split()
VOWELS = "a e i o u ai".split()
CODAS = ["", "l", "n", "r", "x", "sh"]


def nonsense_name(rng: random.Random, held_out: bool) -> str:
    """A made-up name of two syllables, such as 'qzalmo'.

    Those with an even checksum are kept out of pre-training.
    """
    while True:
        syllables = [[rng.choice(part) for part in (ONSETS, VOWELS, CODAS)] for _ in range(2)]
        name = "".join(itertools.chain(*syllables))
        if (sum(map(ord, name)) % 2 == 0) == held_out and not keyword.iskeyword(name):
            return name


def draw_convention(seed: int, base_accuracy: float = 0.05, novelty: str = "seen") -> Convention:
    """The convention of one task.

    "seen"         combinations pre-training may have drawn, chosen so that a learner who knows the
                   prior alone writes a call correctly with a probability near `base_accuracy`
    "combination"  combinations held out of pre-training
    "pair"         names never right for that argument in pre-training
    "tool"         the held-out tools
    "nonsense"     made-up names that only a context can supply
    """
    rng = random.Random(f"convention/{seed}/{novelty}")
    convention: Convention = {}
    for tool in HELD_OUT_TOOLS if novelty == "tool" else TOOLS:
        if novelty == "combination":
            ranks = itertools.product(range(4), repeat=len(tool.arguments))
            names = names_of(tool, rng.choice([r for r in ranks if is_held_out(r)]))
        elif novelty == "nonsense":
            names = {}
            while len(set(names.values())) < len(tool.arguments):  # two of one name cannot be given
                names = {a.role: nonsense_name(rng, held_out=True) for a in tool.arguments}
        else:
            probabilities, ranks = zip(*combinations(tool))
            weights = weights_near(probabilities, base_accuracy)
            names = names_of(tool, rng.choices(ranks, weights)[0])
            if novelty == "pair":
                names.update({a.role: a.held_out for a in tool.arguments if a.held_out})
        convention[tool.name] = names
    return convention
