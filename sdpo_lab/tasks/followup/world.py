"""The small world of `followup`: requests, forms of an answer, and what a user says next."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sdpo_lab.tasks.toolcall.requests import CITIES, CURRENCIES, ITEMS, MONTHS, PEOPLE

SURNAMES = (
    "Berg Stone Miller Lopez Novak Tanaka Olsen Weber Rossi Dubois Khan Silva Mori Haas".split()
)
#: How an answer may begin, the usual way first.
TONES = {"plain": "", "friendly": "Sure! ", "formal": "Certainly. ", "answer": "Answer: "}
# fmt: off
#: What a user says who would rather have it begin so; and who does not say how.
TONE_MESSAGES = {
    "plain": ("Just the answer, please.", "No small talk, only the answer.",
              "Leave out the opening.", "Skip the first words."),
    "friendly": ("Be friendly and begin with 'Sure!'.", "Say 'Sure!' first.",
                 "A bit warmer please, open with 'Sure!'.",
                 "I like it when you begin with 'Sure!'."),
    "formal": ("Be formal and begin with 'Certainly.'.", "Say 'Certainly.' first.",
               "More polite please, open with 'Certainly.'.",
               "I expect you to begin with 'Certainly.'."),
    "answer": ("Begin with 'Answer:'.", "Put 'Answer:' in front.", "I want 'Answer:' before it.",
               "Mark it with 'Answer:' at the start."),
}
TONE_COMPLAINTS = ("I do not like how you begin.", "The opening is not right.",
                   "Do not start like that.")
#: Next messages that say nothing of the answer; `unrelated` sends them.
UNRELATED = ("Thanks! How is the weather?", "By the way, my cat is ill.", "I have to go now.",
             "What is the capital of Peru?", "Do you like music?", "Good morning!",
             "My sister visits tomorrow.", "Let us talk about football.", "I am hungry.",
             "The bus was late again.", "Have you read a good book?", "It rains here.")
# fmt: on


@dataclass(frozen=True)
class Kind:
    """One kind of request. In texts {spoken} is the content, other {slots} are values."""

    texts: tuple[str, ...]  #: wordings of the request
    draw: Callable[[random.Random], dict[str, Any]]  #: its values
    forms: dict[str, Callable[..., str]]  #: {form: values -> the answer}, the usual one first
    messages: dict[str, tuple[str, ...]]  #: {form: what a user says who wants it}
    complaints: tuple[str, ...]  #: what one says who does not tell the form

    @property
    def questions(self) -> dict[str, tuple[str, ...]]:
        """What a request leaves open, with the readings of each."""
        return {"form": tuple(self.forms), "tone": tuple(TONES)}


def draw_items(rng: random.Random) -> dict[str, Any]:
    return {"items": rng.sample(ITEMS, rng.randint(2, 4))}


def draw_date(rng: random.Random) -> dict[str, Any]:
    month = rng.randrange(12)
    day, person = rng.randint(1, 28), rng.choice(PEOPLE)
    return {"month": MONTHS[month], "number": month + 1, "day": day, "person": person}


def draw_time(rng: random.Random) -> dict[str, Any]:
    hour, minute = rng.randint(13, 23), rng.choice(range(10, 60))
    return {"hour": hour, "minute": minute, "city": rng.choice(CITIES)}


# fmt: off
KINDS: dict[str, Kind] = {
    "list": Kind(
        texts=("My shopping list: {spoken}. Write it down.", "Note these things for me: {spoken}.",
               "We need {spoken}. Make a list.", "Put {spoken} on a list."),
        draw=draw_items,
        forms={
            "commas": lambda items, **_: ", ".join(items),
            "dashes": lambda items, **_: "\n".join(f"- {x}" for x in items),
            "numbers": lambda items, **_: "\n".join(f"{i}. {x}" for i, x in enumerate(items, 1)),
            "lines": lambda items, **_: "\n".join(items),
        },
        messages={
            "commas": ("On one line with commas, please.", "Commas between the things, no lines.",
                       "I wanted commas.", "Write it in a row with commas."),
            "dashes": ("A dash before each thing.", "Bullets please, one thing a line.",
                       "Use dashes.", "I wanted bullets."),
            "numbers": ("Number the things.", "I wanted numbers: 1, 2 and so on.",
                        "A numbered list, please.", "Count them: 1. 2. 3."),
            "lines": ("One thing a line and nothing else.", "Only line breaks, please.",
                      "Each on its own line, no marks.", "Plain lines, please."),
        },
        complaints=("Not like this.", "I do not like this kind of list.",
                    "The list has the wrong form."),
    ),
    "date": Kind(
        texts=("When is the birthday of {person}? My diary says {spoken}.",
               "{person} was born on {spoken}. When is the birthday?",
               "The birthday of {person} is {spoken}. Say it again.",
               "Write down the birthday of {person}: {spoken}."),
        draw=draw_date,
        forms={
            "month first": lambda month, day, **_: f"{month} {day}",
            "day first": lambda month, day, **_: f"{day} {month}",
            "dots": lambda number, day, **_: f"{day}.{number}.",
            "slash": lambda number, day, **_: f"{number}/{day}",
        },
        messages={
            "month first": ("The month first, as a word.", "Like 'May 5', please.",
                            "Month, then day.", "I write the month before the day."),
            "day first": ("The day first, then the month as a word.", "Like '5 May', please.",
                          "Day, then month.", "I write the day before the month."),
            "dots": ("With dots, like '5.3.'.", "Numbers and dots, please.",
                     "As '24.12.' is written.", "Use dots for the date."),
            "slash": ("With a slash, like '3/5'.", "Month and day with a slash.",
                      "As '12/24' is written.", "Use a slash for the date."),
        },
        complaints=("I do not write dates like that.", "The date looks wrong to me.",
                    "Not this form of date."),
    ),
    "clock": Kind(
        texts=("When does the train to {city} leave? The board says {spoken}.",
               "The train to {city} goes at {spoken}. When is that?",
               "Departure to {city}: {spoken}. Tell me the time.",
               "Write down when I leave for {city}: {spoken}."),
        draw=draw_time,
        forms={
            "colon": lambda hour, minute, **_: f"{hour}:{minute}",
            "dot": lambda hour, minute, **_: f"{hour}.{minute}",
            "twelve": lambda hour, minute, **_: f"{hour - 12}:{minute} pm",
            "h": lambda hour, minute, **_: f"{hour}h{minute}",
        },
        messages={
            "colon": ("With a colon, please.", "As on the clock, with a colon.", "Like '14:20'.",
                      "I write times with a colon."),
            "dot": ("With a dot, please.", "A dot between hours and minutes.", "Like '14.20'.",
                    "I write times with a dot."),
            "twelve": ("Twelve hours and pm, please.", "Say it with pm.", "Like '2:20 pm'.",
                       "I count to twelve and say pm."),
            "h": ("With an h between, please.", "An h for the hours.", "Like '14h20'.",
                  "I write times with an h."),
        },
        complaints=("I do not write times like that.", "The time looks odd.",
                    "Not this form of time."),
    ),
    "distance": Kind(
        texts=("How far is it to {city}? The sign says {spoken}.",
               "It is {spoken} to {city}. How far?", "Distance to {city}: {spoken}. Note it.",
               "{city} is {spoken} away. Write it down."),
        draw=lambda rng: {"city": rng.choice(CITIES), "km": rng.randint(2, 99)},
        forms={
            "km": lambda km, **_: f"{km} km",
            "word": lambda km, **_: f"{km} kilometres",
            "metres": lambda km, **_: f"{km}000 m",
            "bare": lambda km, **_: f"{km}",
        },
        messages={
            "km": ("Write km.", "The unit is km, short.", "With km, please.", "Short: km."),
            "word": ("Write out the unit: kilometres.", "Say kilometres.",
                     "The whole word kilometres, please.", "No short forms, kilometres."),
            "metres": ("In metres, please.", "I count in metres: m.", "Make it metres.",
                       "Use m, three zeros more."),
            "bare": ("Only the number.", "No unit, please.", "The number will do.",
                     "Leave out the unit."),
        },
        complaints=("The unit is not what I want.", "I do not like that unit.",
                    "Another unit, please."),
    ),
    "price": Kind(
        texts=("What do the {item} cost? The tag says {spoken}.",
               "The {item} are {spoken}. Note the price.",
               "Price of the {item}: {spoken}. Write it down.",
               "{spoken} for the {item}. What did I pay?"),
        draw=lambda rng: {"item": rng.choice(ITEMS), "amount": rng.randint(2, 99),
                          "currency": rng.choice(CURRENCIES)},
        forms={
            "after": lambda amount, currency, **_: f"{amount} {currency}",
            "before": lambda amount, currency, **_: f"{currency} {amount}",
            "cents": lambda amount, currency, **_: f"{amount}.00 {currency}",
            "bare": lambda amount, **_: f"{amount}",
        },
        messages={
            "after": ("The number, then the currency.", "Currency last.", "Number first, please.",
                      "The currency goes after the number."),
            "before": ("The currency, then the number.", "Currency first.", "Number last, please.",
                       "The currency goes before the number."),
            "cents": ("With cents.", "Two places after the point, please.", "Write .00 too.",
                      "I want to see the cents."),
            "bare": ("Only the number.", "No currency, please.", "The number will do.",
                     "Leave out the currency."),
        },
        complaints=("I do not write prices like that.", "The price looks odd.",
                    "Not this form of price."),
    ),
    "name": Kind(
        texts=("Who called? It was {spoken}.", "{spoken} called. Note the name.",
               "The caller was {spoken}. Who was it?", "Write down the caller: {spoken}."),
        draw=lambda rng: {"given": rng.choice(PEOPLE), "family": rng.choice(SURNAMES)},
        forms={
            "full": lambda given, family, **_: f"{given} {family}",
            "family first": lambda given, family, **_: f"{family}, {given}",
            "initial": lambda given, family, **_: f"{given[0]}. {family}",
            "given": lambda given, **_: given,
        },
        messages={
            "full": ("The full name, please.", "Given name and family name.",
                     "Both names, in the usual order.", "First and last name."),
            "family first": ("The family name first, then a comma.", "Last name, first name.",
                             "As in a phone book.", "Begin with the family name."),
            "initial": ("Only the initial of the first name.",
                        "Shorten the first name to a letter.", "Like 'J. Smith'.",
                        "One letter and the family name."),
            "given": ("Only the first name.", "Leave out the family name.", "First names will do.",
                      "We are on first names."),
        },
        complaints=("I do not write names like that.", "The name is not how I want it.",
                    "Not this form of name."),
    ),
}
# fmt: on
#: {kind: {question: readings}}
QUESTIONS = {name: kind.questions for name, kind in KINDS.items()}


def spoken(kind: str, values: dict[str, Any]) -> str:
    """How the request gives the content: in a form of its own, so that no answer is a mere copy."""
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
    """What a user says who wanted `readings` and got `completion`.

    It is about the opening if that is wrong, else about the form. Of `level` see `FEEDBACK`; of
    `rng` nothing but `choice` is used.
    """
    kind, tone = KINDS[data["kind"]], TONES[readings["tone"]]
    other_tones = tuple(t for t in TONES.values() if t and t != tone)
    if not completion.startswith(tone) or (not tone and completion.startswith(other_tones)):
        return rng.choice(TONE_MESSAGES[readings["tone"]] if level == 2 else TONE_COMPLAINTS)
    return rng.choice(kind.messages[readings["form"]] if level == 2 else kind.complaints)
