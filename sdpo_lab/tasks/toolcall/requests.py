"""Requests in natural language: values, phrasings, and problems that stay in their split."""

from __future__ import annotations

import random

from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.conventions import is_test, problem_of
from sdpo_lab.tasks.toolcall.world import BY_NAME, Tool

CITIES = (
    "Oslo Bergen Paris Lyon Rome Milan Madrid Porto Lisbon Vienna Berlin Hamburg Prague Dublin "
    "Cork London Leeds Athens Cairo Lagos Nairobi Delhi Mumbai Tokyo Osaka Seoul Hanoi Sydney "
    "Perth Lima Quito Bogota Boston Denver Austin Toronto Zurich Geneva Warsaw Riga"
).split()
PEOPLE = (
    "Anna Ben Clara David Emma Felix Grace Hugo Ida Jonas Karla Leo Maria Nils Olga Paul Rosa Sam "
    "Tina Uwe Vera Walter Yara Zoe Amir Bella Carlos Dina Elif Farid"
).split()
TOPICS = (
    "budget lunch invoice holiday contract party report concert deadline project garden football "
    "rent recipe birthday interview homework website"
).split()
ITEMS = (
    "lamps pens chairs mugs socks books candles plates towels batteries screws pillows baskets "
    "brushes kettles cables notebooks apples"
).split()
CURRENCIES = "euro dollar yen pound franc krone peso rupee real won".split()
CHORES = (
    "water the plants;call the bank;buy milk;feed the cat;pay the rent;wash the car;book a dentist;"
    "clean the oven;fix the bike;pick up the parcel;renew the passport;bake a cake;"
    "take out the bins;send the form;walk the dog"
).split(";")
MONTHS = (
    "January February March April May June July August September October November December".split()
)
#: {kind of value: the words it is drawn from}
VALUES = {"city": CITIES, "person": PEOPLE, "topic": TOPICS, "item": ITEMS}
VALUES |= {"currency": CURRENCIES, "chore": CHORES}


def draw_value(kind: str, rng: random.Random) -> str | int:
    """A value of one kind, see `Argument`."""
    if kind == "date":
        return f"{rng.choice(MONTHS)} {rng.randint(1, 28)}"
    if kind == "number":
        return rng.randint(2, 60)
    return rng.choice(VALUES[kind])


# fmt: off
# {role} is filled with the value; every phrasing names every role once.
PHRASINGS = {
    "weather": ("Will it rain in {city} on {date}?",
                "What is the weather like in {city} on {date}?",
                "I am travelling on {date} and need the forecast for {city}.",
                "How warm will {city} be on {date}?", "Forecast please: {city}, {date}.",
                "Do I need an umbrella on {date}? I will be in {city}.",
                "Tell me about the sky over {city} on {date}.",
                "On {date} I visit {city}. Sun or snow?"),
    "remind": ("Remind me on {date} to {chore}.", "I must not forget to {chore} on {date}.",
               "On {date} I have to {chore}, please remind me.", "Set a reminder: {chore}, {date}.",
               "Could you nudge me to {chore} on {date}?", "{date}: {chore}. Do not let me forget.",
               "I want to {chore} on {date}; wake me up for it.",
               "Put this on my list for {date}: {chore}."),
    "table": ("Book a table for {guests} in {city}.", "We are {guests} and want to eat in {city}.",
              "Dinner in {city}, {guests} of us.",
              "Reserve {guests} chairs at a restaurant in {city}.",
              "Find room for {guests} at a restaurant in {city}.",
              "In {city} we need a table, {guests} in all.",
              "Please get us dinner for {guests}; we are in {city}.",
              "A restaurant in {city} for {guests}, please."),
    "message": ("Write to {person} about the {topic}.", "Send {person} a few lines on the {topic}.",
                "{person} should hear from me about the {topic}.",
                "I owe {person} a mail about the {topic}.", "Mail about the {topic}, for {person}.",
                "Let {person} know about the {topic}.", "The {topic}: tell {person}.",
                "Please inform {person} about the {topic}."),
    "meeting": ("Set up a meeting with {person} on {date}.", "I want to see {person} on {date}.",
                "Plan an hour with {person}, {date}.", "{person} and I should meet on {date}.",
                "On {date} I have to talk to {person}; arrange it.",
                "Arrange a call with {person} for {date}.", "Is {person} free on {date}? Fix it.",
                "Get {person} into my calendar on {date}."),
    "flight": ("Fly me from {origin} to {destination} on {date}.",
               "I need to get from {origin} to {destination} by air on {date}.",
               "On {date} I fly from {origin} to {destination}.",
               "A plane to {destination} from {origin}, {date}.",
               "Find me a flight on {date}: {origin} to {destination}.",
               "To {destination} on {date}; I live in {origin}.",
               "Get me out of {origin} on {date}, I want to see {destination}.",
               "{origin} to {destination}, {date}, one seat on a plane."),
    "convert": ("How much is {amount} {currency}?", "What are {amount} {currency} worth?",
                "Exchange {amount} {currency} for me.",
                "I have {amount} {currency} left; what do I get?",
                "Change {amount} {currency} please.", "My bill is {amount} {currency}. Convert it.",
                "Turn {amount} {currency} into what we use here.",
                "In {currency} it costs {amount}. And at home?"),
    "order": ("Order {count} {item}.", "We are out of {item}, get {count}.",
              "Please buy {count} {item} for the office.", "I want {count} new {item}.",
              "Send us {count} {item}.", "{item}: we need {count}.",
              "Get hold of {count} {item} for me.", "Could you order {item}? {count} will do."),
    "taxi": ("Get a taxi for {guests} in {city}.", "We are {guests} and need a ride in {city}.",
             "In {city}, a cab for {guests}.", "Call us a cab in {city}, {guests} seats."),
}
# How a prompt asks for one call; {tool} is the tool's name, {request} the sentence.
ONE = ("{request}\nCall {tool}().", "Use {tool}().\n{request}", "{request} (tool: {tool})",
       "Tool: {tool}\nRequest: {request}", "Write the call of {tool}() for this: {request}",
       "{request}\nAnswer with a call of {tool}().")
# How it asks for several; {list} is one "tool: request" line each.
MANY = ("Write one call a line:\n{list}", "{list}\nAnswer with one call a line.",
        "Do all of this, one call a line:\n{list}")
# fmt: on


def draw_problem(
    tools: tuple[Tool, ...] | list[Tool], calls: int, split: str, rng: random.Random
) -> Problem:
    """One problem of `split` that asks for `calls` calls of tools drawn from `tools`."""
    while True:
        wanted, requests = [], []
        for tool in (rng.choice(tools) for _ in range(calls)):
            values: dict[str, str | int] = {}
            for a in tool.arguments:  # no value twice in one request: origin and destination differ
                values[a.role] = draw_value(a.kind, rng)
                while list(values.values()).count(values[a.role]) > 1:
                    values[a.role] = draw_value(a.kind, rng)
            wanted.append({"tool": tool.name, "values": values})
            requests.append(rng.choice(PHRASINGS[tool.name]).format(**values))
        if calls == 1:
            text = rng.choice(ONE).format(tool=wanted[0]["tool"], request=requests[0])
        else:
            lines = "\n".join(f"{c['tool']}: {r}" for c, r in zip(wanted, requests))
            text = rng.choice(MANY).format(list=lines)
        if is_test(text) == (split == "test"):
            return problem_of("toolcall", text, {"calls": wanted})


def write_call(tool: str, names: dict[str, str], values: dict[str, str | int]) -> str:
    """`weather(city='Oslo', date='May 5')`, the arguments in the tool's own order."""
    roles = [a.role for a in BY_NAME[tool].arguments]
    return f"{tool}({', '.join(f'{names[role]}={values[role]!r}' for role in roles)})"
