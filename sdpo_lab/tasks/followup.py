"""`followup`: the user's next message says what was wrong with the answer, or how they like it.

Simulated users with profiles: a user of seed s likes lists in one way, dates in another, a greeting or none. A request leaves that open;
after an answer they do not like, their next message corrects it. An exact answer in the form they like has reward 1.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.core.task import Problem, Verdict, check_problems_asked
from sdpo_lab.tasks.conventions import draw_convention, draw_different, is_test
from sdpo_lab.tasks.toolcall.requests import CITIES, CURRENCIES, ITEMS, MONTHS, PEOPLE

FEEDBACK = {0: "nothing", 1: "that they do not like it, and what about it", 2: "how they like it"}
SURNAMES = (
    "Berg Stone Miller Lopez Novak Tanaka Olsen Weber Rossi Dubois Khan Silva Mori Haas".split()
)

#: How an answer may begin, and what a user says who would rather have it so.
TONES = {"plain": "", "friendly": "Sure! ", "formal": "Certainly. ", "answer": "Answer: "}
TONE_MESSAGES = {
    "plain": (
        "Just the answer, please.",
        "No small talk, only the answer.",
        "Leave out the opening.",
        "Skip the first words.",
    ),
    "friendly": (
        "Be friendly and begin with 'Sure!'.",
        "Say 'Sure!' first.",
        "A bit warmer please, open with 'Sure!'.",
        "I like it when you begin with 'Sure!'.",
    ),
    "formal": (
        "Be formal and begin with 'Certainly.'.",
        "Say 'Certainly.' first.",
        "More polite please, open with 'Certainly.'.",
        "I expect you to begin with 'Certainly.'.",
    ),
    "answer": (
        "Begin with 'Answer:'.",
        "Put 'Answer:' in front.",
        "I want 'Answer:' before it.",
        "Mark it with 'Answer:' at the start.",
    ),
}
TONE_COMPLAINTS = (
    "I do not like how you begin.",
    "The opening is not right.",
    "Do not start like that.",
)


@dataclass(frozen=True)
class Kind:
    """One kind of request: {name} slots in the texts, the forms an answer may have (the usual one first), and what a user says who wants each."""

    texts: tuple[str, ...]
    draw: Callable[[random.Random], dict[str, Any]]
    forms: dict[str, Callable[..., str]]
    messages: dict[str, tuple[str, ...]]
    complaints: tuple[str, ...]

    @property
    def questions(self) -> dict[str, tuple[str, ...]]:
        return {"form": tuple(self.forms), "tone": tuple(TONES)}


def _things(rng: random.Random) -> dict[str, Any]:
    return {"items": rng.sample(ITEMS, rng.randint(2, 4))}


def _date(rng: random.Random) -> dict[str, Any]:
    month = rng.randrange(12)
    return {
        "month": MONTHS[month],
        "number": month + 1,
        "day": rng.randint(1, 28),
        "person": rng.choice(PEOPLE),
    }


def _clock(rng: random.Random) -> dict[str, Any]:
    return {
        "hour": rng.randint(13, 23),
        "minute": rng.choice(range(10, 60)),
        "city": rng.choice(CITIES),
    }


KINDS: dict[str, Kind] = {
    "list": Kind(
        (
            "My shopping list: {spoken}. Write it down.",
            "Note these things for me: {spoken}.",
            "We need {spoken}. Make a list.",
            "Put {spoken} on a list.",
        ),
        _things,
        {
            "commas": lambda items, **_: ", ".join(items),
            "dashes": lambda items, **_: "\n".join(f"- {x}" for x in items),
            "numbers": lambda items, **_: "\n".join(f"{i}. {x}" for i, x in enumerate(items, 1)),
            "lines": lambda items, **_: "\n".join(items),
        },
        {
            "commas": (
                "On one line with commas, please.",
                "Commas between the things, no lines.",
                "I wanted commas.",
                "Write it in a row with commas.",
            ),
            "dashes": (
                "A dash before each thing.",
                "Bullets please, one thing a line.",
                "Use dashes.",
                "I wanted bullets.",
            ),
            "numbers": (
                "Number the things.",
                "I wanted numbers: 1, 2 and so on.",
                "A numbered list, please.",
                "Count them: 1. 2. 3.",
            ),
            "lines": (
                "One thing a line and nothing else.",
                "Only line breaks, please.",
                "Each on its own line, no marks.",
                "Plain lines, please.",
            ),
        },
        ("Not like this.", "I do not like this kind of list.", "The list has the wrong form."),
    ),
    "date": Kind(
        (
            "When is the birthday of {person}? My diary says {spoken}.",
            "{person} was born on {spoken}. When is the birthday?",
            "The birthday of {person} is {spoken}. Say it again.",
            "Write down the birthday of {person}: {spoken}.",
        ),
        _date,
        {
            "month first": lambda month, day, **_: f"{month} {day}",
            "day first": lambda month, day, **_: f"{day} {month}",
            "dots": lambda number, day, **_: f"{day}.{number}.",
            "slash": lambda number, day, **_: f"{number}/{day}",
        },
        {
            "month first": (
                "The month first, as a word.",
                "Like 'May 5', please.",
                "Month, then day.",
                "I write the month before the day.",
            ),
            "day first": (
                "The day first, then the month as a word.",
                "Like '5 May', please.",
                "Day, then month.",
                "I write the day before the month.",
            ),
            "dots": (
                "With dots, like '5.3.'.",
                "Numbers and dots, please.",
                "As '24.12.' is written.",
                "Use dots for the date.",
            ),
            "slash": (
                "With a slash, like '3/5'.",
                "Month and day with a slash.",
                "As '12/24' is written.",
                "Use a slash for the date.",
            ),
        },
        (
            "I do not write dates like that.",
            "The date looks wrong to me.",
            "Not this form of date.",
        ),
    ),
    "clock": Kind(
        (
            "When does the train to {city} leave? The board says {spoken}.",
            "The train to {city} goes at {spoken}. When is that?",
            "Departure to {city}: {spoken}. Tell me the time.",
            "Write down when I leave for {city}: {spoken}.",
        ),
        _clock,
        {
            "colon": lambda hour, minute, **_: f"{hour}:{minute}",
            "dot": lambda hour, minute, **_: f"{hour}.{minute}",
            "twelve": lambda hour, minute, **_: f"{hour - 12}:{minute} pm",
            "h": lambda hour, minute, **_: f"{hour}h{minute}",
        },
        {
            "colon": (
                "With a colon, please.",
                "As on the clock, with a colon.",
                "Like '14:20'.",
                "I write times with a colon.",
            ),
            "dot": (
                "With a dot, please.",
                "A dot between hours and minutes.",
                "Like '14.20'.",
                "I write times with a dot.",
            ),
            "twelve": (
                "Twelve hours and pm, please.",
                "Say it with pm.",
                "Like '2:20 pm'.",
                "I count to twelve and say pm.",
            ),
            "h": (
                "With an h between, please.",
                "An h for the hours.",
                "Like '14h20'.",
                "I write times with an h.",
            ),
        },
        ("I do not write times like that.", "The time looks odd.", "Not this form of time."),
    ),
    "distance": Kind(
        (
            "How far is it to {city}? The sign says {spoken}.",
            "It is {spoken} to {city}. How far?",
            "Distance to {city}: {spoken}. Note it.",
            "{city} is {spoken} away. Write it down.",
        ),
        lambda rng: {"city": rng.choice(CITIES), "km": rng.randint(2, 99)},
        {
            "km": lambda km, **_: f"{km} km",
            "word": lambda km, **_: f"{km} kilometres",
            "metres": lambda km, **_: f"{km}000 m",
            "bare": lambda km, **_: f"{km}",
        },
        {
            "km": ("Write km.", "The unit is km, short.", "With km, please.", "Short: km."),
            "word": (
                "Write out the unit: kilometres.",
                "Say kilometres.",
                "The whole word kilometres, please.",
                "No short forms, kilometres.",
            ),
            "metres": (
                "In metres, please.",
                "I count in metres: m.",
                "Make it metres.",
                "Use m, three zeros more.",
            ),
            "bare": (
                "Only the number.",
                "No unit, please.",
                "The number will do.",
                "Leave out the unit.",
            ),
        },
        ("The unit is not what I want.", "I do not like that unit.", "Another unit, please."),
    ),
    "price": Kind(
        (
            "What do the {item} cost? The tag says {spoken}.",
            "The {item} are {spoken}. Note the price.",
            "Price of the {item}: {spoken}. Write it down.",
            "{spoken} for the {item}. What did I pay?",
        ),
        lambda rng: {
            "item": rng.choice(ITEMS),
            "amount": rng.randint(2, 99),
            "currency": rng.choice(CURRENCIES),
        },
        {
            "after": lambda amount, currency, **_: f"{amount} {currency}",
            "before": lambda amount, currency, **_: f"{currency} {amount}",
            "cents": lambda amount, currency, **_: f"{amount}.00 {currency}",
            "bare": lambda amount, **_: f"{amount}",
        },
        {
            "after": (
                "The number, then the currency.",
                "Currency last.",
                "Number first, please.",
                "The currency goes after the number.",
            ),
            "before": (
                "The currency, then the number.",
                "Currency first.",
                "Number last, please.",
                "The currency goes before the number.",
            ),
            "cents": (
                "With cents.",
                "Two places after the point, please.",
                "Write .00 too.",
                "I want to see the cents.",
            ),
            "bare": (
                "Only the number.",
                "No currency, please.",
                "The number will do.",
                "Leave out the currency.",
            ),
        },
        ("I do not write prices like that.", "The price looks odd.", "Not this form of price."),
    ),
    "name": Kind(
        (
            "Who called? It was {spoken}.",
            "{spoken} called. Note the name.",
            "The caller was {spoken}. Who was it?",
            "Write down the caller: {spoken}.",
        ),
        lambda rng: {"given": rng.choice(PEOPLE), "family": rng.choice(SURNAMES)},
        {
            "full": lambda given, family, **_: f"{given} {family}",
            "family first": lambda given, family, **_: f"{family}, {given}",
            "initial": lambda given, family, **_: f"{given[0]}. {family}",
            "given": lambda given, **_: given,
        },
        {
            "full": (
                "The full name, please.",
                "Given name and family name.",
                "Both names, in the usual order.",
                "First and last name.",
            ),
            "family first": (
                "The family name first, then a comma.",
                "Last name, first name.",
                "As in a phone book.",
                "Begin with the family name.",
            ),
            "initial": (
                "Only the initial of the first name.",
                "Shorten the first name to a letter.",
                "Like 'J. Smith'.",
                "One letter and the family name.",
            ),
            "given": (
                "Only the first name.",
                "Leave out the family name.",
                "First names will do.",
                "We are on first names.",
            ),
        },
        (
            "I do not write names like that.",
            "The name is not how I want it.",
            "Not this form of name.",
        ),
    ),
}
#: {kind: {question: readings}}
QUESTIONS = {name: kind.questions for name, kind in KINDS.items()}
#: Next messages that say nothing of the answer; `unrelated` sends them.
UNRELATED = (
    "Thanks! How is the weather?",
    "By the way, my cat is ill.",
    "I have to go now.",
    "What is the capital of Peru?",
    "Do you like music?",
    "Good morning!",
    "My sister visits tomorrow.",
    "Let us talk about football.",
    "I am hungry.",
    "The bus was late again.",
    "Have you read a good book?",
    "It rains here.",
)


def spoken(kind: str, values: dict[str, Any]) -> str:
    """How the content is given in the request: in a form of its own, so that no answer is merely copied."""
    match kind:
        case "list":
            return ", ".join(values["items"][:-1]) + " and " + values["items"][-1]
        case "date":
            return f"the {values['day']} of {values['month']}"
        case "clock":
            return f"{values['hour']} {values['minute']}"
        case "distance":
            return f"km {values['km']}"
        case "price":
            return f"{values['currency']}: {values['amount']}"
    return f"{values['given']} of the family {values['family']}"


def write_answer(data: dict[str, Any], readings: dict[str, str]) -> str:
    """The answer to problem `data` as `readings` want it."""
    return TONES[readings["tone"]] + KINDS[data["kind"]].forms[readings["form"]](**data["values"])


def next_message(
    data: dict[str, Any], readings: dict[str, str], completion: str, level: int, rng: random.Random
) -> str:
    """What a user says who wanted `readings` and got `completion`: about the opening if that is wrong, else about the form."""
    kind, tone = KINDS[data["kind"]], TONES[readings["tone"]]
    others = [t for t in TONES.values() if t and t != tone]
    if not completion.startswith(tone) or (not tone and completion.startswith(tuple(others))):
        return rng.choice(TONE_MESSAGES[readings["tone"]] if level == 2 else TONE_COMPLAINTS)
    return rng.choice(kind.messages[readings["form"]] if level == 2 else kind.complaints)


class FollowUp:
    """Answer as this user likes it; feedback is the user's next message: a correction, or something unrelated.

    seed           which user
    base_accuracy  0.01 to 0.5: how often a learner who knows only the prior answers as the user likes; sets how unusual the user is
    feedback       0 to 2, the dial `FEEDBACK`
    unrelated      0 to 1: share of next messages that have nothing to do with the answer
    """

    name = "followup"

    def __init__(
        self,
        seed: int = 0,
        *,
        base_accuracy: float = 0.1,
        feedback: int = 2,
        unrelated: float = 0.0,
    ) -> None:
        self.dials = dict(
            seed=check_range("seed", seed, int, 0, 2**31 - 1),
            base_accuracy=check_range("base_accuracy", base_accuracy, float, 0.01, 0.5),
            feedback=check_choice("feedback", feedback, FEEDBACK),
            unrelated=check_range("unrelated", unrelated, float, 0, 1),
        )
        self.convention = draw_convention(
            QUESTIONS, self.name, self.dials["seed"], self.dials["base_accuracy"]
        )

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems; the same arguments always give the same ones, and no prompt is in both splits.

        Raises ValueError when there are not so many.
        """
        check_problems_asked(n, split, seed)
        rng = random.Random(f"followup/{seed}/{split}")
        return draw_different(lambda: draw_problem(split, rng), n, split)

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """The user's words are a function of seed, problem and answer."""
        readings = self.convention[problem.data["kind"]]
        if completion == write_answer(problem.data, readings):
            return Verdict(1.0)
        if not self.dials["feedback"]:
            return Verdict(0.0)
        rng = random.Random(f"followup/{self.dials['seed']}/{problem.id}/{completion!r}")
        if rng.random() < self.dials["unrelated"]:
            return Verdict(0.0, rng.choice(UNRELATED))
        return Verdict(
            0.0, next_message(problem.data, readings, completion, self.dials["feedback"], rng)
        )

    def solution(self, problem: Problem) -> str:
        """The answer in the form the user likes."""
        return write_answer(problem.data, self.convention[problem.data["kind"]])

    def __repr__(self) -> str:
        return f"FollowUp({', '.join(f'{k}={v!r}' for k, v in self.dials.items())})"


def draw_problem(split: str, rng: random.Random) -> Problem:
    """One problem of `split`."""
    while True:
        name = rng.choice(list(KINDS))
        values = KINDS[name].draw(rng)
        text = rng.choice(KINDS[name].texts).format(**values, spoken=spoken(name, values))
        if is_test(text) == (split == "test"):
            return Problem(
                "followup-" + hashlib.sha256(text.encode()).hexdigest()[:12],
                [{"role": "user", "content": text}],
                {"kind": name, "values": values},
            )
