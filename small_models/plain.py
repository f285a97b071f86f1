"""Feedback as a person would type it: a grammar of plain sentences, tens of thousands of them.

A sentence is an opening, a core and a closing. The core says one of four things about names: not
this one (`EXCLUDE`), this one instead of that (`CORRECT`), this one (`REQUEST`), or only these
(`LIST`). What it may tell is what a judge's message tells at the same setting of the dial.
`held_out.py` has sentences of the same kinds in other words.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from small_models.wordings import random_words

# fmt: off
SUBJECTS = (
    "{n}", "{n}", "{n}", "the name {n}", "the word {n}", "the argument {n}", "your {n}", "that {n}",
    "{n} there", "calling it {n}", "to write {n}", "what you called {n}", "{n} for the {role}",
)
PREDICATES = (
    "is wrong", "is not right", "is not the name", "does not exist", "is not what it is called",
    "was not what I meant", "will not work", "did not work", "is a mistake", "is not known here",
    "cannot be right", "makes no sense", "is not it", "isn't right", "was wrong", "is no good",
    "is not a word I know", "is the wrong name", "has to go", "is old",
)
EXCLUDE = (
    "do not use {n}", "don't use {n}", "please do not write {n}", "never say {n}", "stop using {n}",
    "leave out {n}", "avoid {n}", "anything but {n}", "not {n}", "no {n}", "don't call it {n}",
    "it's not {n}", "it is not {n}", "it is not called {n}", "no more {n}", "I did not ask for {n}",
    "I do not like {n}", "I never said {n}", "I don't want {n}", "I do not know {n}",
    "we do not call it {n}", "nobody calls it {n}", "why {n}?", "what is {n}?", "{n}? no",
    "who told you to use {n}?", "there is no {n}", "the {role} is not called {n}",
    "the {role} is not {n}", "I would not call it {n}", "something else than {n}", "{n}, really?",
    "it has another name than {n}", "you should not have said {n}", "the name is not {n}",
    "for the {role} not {n}", "you wrote {n} and that is wrong", "not that name, {n}",
)
#: {k} is a name that was right in the same attempt.
EXCLUDE_BESIDE = (
    "{k} is fine but not {n}", "{k} is right, {n} is not", "{n} is wrong, {k} is right",
    "I like {k} and not {n}", "keep {k}, but not {n}", "{k} was good. {n} was not",
    "not {n}. {k} is fine", "only {n} is wrong, {k} can stay",
)
CORRECT = (
    "{e}, not {n}", "{e} and not {n}", "not {n} but {e}", "not {n}, {e}", "not {n}. {e}",
    "use {e} instead of {n}", "{e} instead of {n}", "{n} should be {e}", "{n} should have been {e}",
    "please call it {e}, not {n}", "call it {e} instead of {n}", "I would have liked {e}, not {n}",
    "I would like {e} and not {n}", "I meant {e}, not {n}", "I wanted {e}, not {n}",
    "I asked for {e} and got {n}", "change {n} to {e}", "replace {n} with {e}", "turn {n} into {e}",
    "it is {e} and not {n}", "it is {e}, no longer {n}", "it is called {e} now, not {n}",
    "write {e} where you wrote {n}", "{n} is wrong, {e} is right", "{n} is wrong. Use {e}",
    "{n} is now {e}", "{n} is called {e} here", "you said {n}, I wanted {e}", "we say {e}, not {n}",
    "where it says {n} put {e}", "say {e} when you mean {n}", "the {role} is {e}, not {n}",
    "call the {role} {e} and not {n}", "{n}? I call it {e}", "better {e} than {n}",
    "don't use {n}, use {e}", "not {n} please, but {e}", "no {n}. It must be {e}",
    "{e} is the name, not {n}", "it was renamed from {n} to {e}", "you wrote {n} but it is {e}",
    "I like {e} better than {n}", "take {e} for {n}", "in place of {n} write {e}",
)
REQUEST = (
    "please call it {e}", "call it {e}", "use {e}", "use {e} instead", "I want {e}", "I wanted {e}",
    "it should be {e}", "it should have been {e}", "the right name is {e}", "it is called {e}",
    "call the {role} {e}", "try {e}", "I would like {e}", "I would have liked {e}",
    "we say {e} here", "how about {e}?", "the {role} is called {e}", "for the {role} use {e}",
    "put {e} there", "write {e}", "the word is {e}", "make it {e}", "it must be {e}",
    "it must say {e}", "{e}, please", "{e} is what I want", "{e} would be right",
    "{e} is the right one", "I meant {e}", "the name is {e}", "name it {e}",
    "you should have said {e}", "could you say {e}?", "say {e}", "here it is {e}", "I call it {e}",
    "the {role} has to be {e}", "it only knows {e}", "my name for the {role} is {e}", "I like {e}",
    "change it to {e}", "{e} will work", "it would work with {e}", "why not {e}?",
    "give it the name {e}",
)
LIST = (
    "use only {list}", "use {list}", "it takes {list}", "the names are {list}",
    "I only know {list}", "please use just {list}", "there are {list} and nothing else",
    "it wants {list}", "the right names are {list}", "only {list} work", "call them {list}",
    "what it knows is {list}", "I would like {list}", "you can say {list}",
    "not {n}. It has {list}", "no {n}, only {list}", "{n} is wrong: there are {list}",
    "instead of {n} use one of {list}",
)
FORGOTTEN = (
    "you forgot something", "something is missing", "that is not all I asked for",
    "there is more to say", "one thing is not there", "you left out the {role}",
    "where is the {role}?", "I also asked for the {role}",
)
FORGOTTEN_NAME = (
    "you forgot {e}", "{e} is missing", "please add {e}", "where is {e}?", "put {e} in too",
    "you left out {e}", "I also want {e}", "it needs {e} too",
)
#: The same with random words {w}: what is left are the small words, the order, and how usual a name
#: is.
EXCLUDE_ANYHOW = (
    "{w} {n}", "{w} {n}", "{n} {w}", "I {w} {n}", "{n} isn't {w}", "{n} must {w}", "{w} of {n}",
    "that {n} {w}", "{n} is {w}", "it's {w}: {n}", "{w}, not {n}", "no, {n} {w}", "{w} {n}, {w}",
    "you {w} {n}",
)
CORRECT_ANYHOW = (
    "{w} {n} for {e}", "{w} from {n} to {e}", "{w} {n} to {e}", "{w} {e} over {n}", "{n} {w} {e}",
    "{w} {n}, {w} {e}", "not {n}, {w} {e}", "{e} {w} than {n}", "{w}, not {n}: {e}",
    "{w} {e} for {n}", "{n} isn't {w}, {e} is", "{w} {n} and {w} {e}", "I'd {w} {e} over {n}",
    "{n} -> {e}", "{n}/{e}", "you {w} {n}; I {w} {e}", "{w} {n} as {e}", "{w} {n}; {w} {e}",
    "{n} {w} to be {e}", "{e} {w}, {n} isn't",
)
REQUEST_ANYHOW = (
    "{w} {e}", "{w} {e}", "{w} to {e}", "{w} with {e}", "{w} it {e}", "I {w} {e}", "I'd {w} {e}",
    "{e} {w}", "the {role} {w} {e}", "{w} the {role} to {e}", "{w} the {role} {e}", "{w} on {e}",
    "{w} for {e}", "my {w} {e}", "{w}: {e}", "let's {w} {e}", "we {w} {e}",
)
ANYHOW = 0.3  #: so often a core is made of random words
OPENINGS = (
    "", "", "", "", "", "", "", "sorry, ", "hmm, ", "no, ", "no. ", "please: ", "hello! ", "well, ",
    "thanks, but ", "not quite. ", "almost. ", "close, but ", "I am afraid ", "as I said, ",
    "look, ", "you see, ", "next time ", "in this house ", "no no, ", "I think ", "I said ",
    "listen: ", "oh, ", "wrong. ", "that is not it. ", "one thing: ", "for the last time, ",
    "my dear, ", "again: ", "so: ", "nearly right, but ", "the call looks good, but ",
    "it did not work: ", "please note: ", "you know, ",
)
CLOSINGS = (
    "", "", "", "", "", "", ".", ".", ".", "!", "...", ", please", ", please.", " please",
    ". Thanks!", ", ok?", ". Do it again.", ". Could you change that?", ", that is all", " here",
    " this time", " from now on", " from now on.", ". Everything else was fine.", ", thank you",
    ", you know", ". Try again.", ", I think", ". The rest is good.", " in this call",
    " as I told you", " today",
)
QUOTES = (
    "{}", "{}", "{}", "{}", "{}", "{}", "'{}'", "'{}'", '"{}"', "`{}`",
)
PAIRED = (
    "{a} and {b}", "{a}, and {b}", "{a}. {b}", "{a}; {b}", "{a}. And {b}", "{a}. Also, {b}",
    "{a}\n{b}",
)
JOINS = (
    " and ", ", ", " or ", ", ",
)
# fmt: on


@dataclass(frozen=True)
class Said:
    """What a sentence may speak of: the wrong names of one call, and what they should be."""

    wrong: list[
        tuple[str, str, str]
    ]  #: (wrong name, right name, role) of each, the first is the judge's
    right: list[str] = field(default_factory=list)  #: names of the attempt that were right
    accepted: tuple[str, ...] = ()  #: every name the tool takes
    missing: tuple[str, str] | None = None  #: (right name, role) of an argument left out


def sentence(said: Said, level: int, rng: random.Random) -> str:
    """A person's words about a failed call; what they tell is what the dial at `level` (1 to 3)
    tells.
    """
    quote = rng.choice(QUOTES)
    if said.missing:
        name, role = said.missing
        cores = [fill(FORGOTTEN_NAME if level == 3 else FORGOTTEN, quote, rng, e=name, role=role)]
    else:
        several = len(said.wrong) > 1 and rng.random() < 0.25
        pairs = said.wrong if several else said.wrong[:1]
        cores = [core(said, n, e, role, level, quote, rng) for n, e, role in pairs]
    if level == 2:
        listed = rng.choice(JOINS).join(quote.format(name) for name in said.accepted)
        n = said.wrong[0][0] if said.wrong else said.accepted[0]
        only = [form for form in LIST if said.wrong or "{n}" not in form]
        listing = rng.choice(only).format(n=quote.format(n), list=listed)
        cores = [listing] if "{n}" in listing or rng.random() < 0.5 else [cores[0], listing]
    text = cores[0]
    for more in cores[1:]:
        text = rng.choice(PAIRED).format(a=text, b=more)
    return around(text, rng)


def core(said: Said, n: str, e: str, role: str, level: int, quote: str, rng: random.Random) -> str:
    """One clause on one wrong name."""
    anyhow = rng.random() < ANYHOW
    if level == 3:
        both = rng.random() < 0.55
        known, random_forms = (CORRECT, CORRECT_ANYHOW) if both else (REQUEST, REQUEST_ANYHOW)
        forms = random_forms if anyhow else known
    elif anyhow:
        forms = EXCLUDE_ANYHOW
    elif said.right and rng.random() < 0.2:
        forms = EXCLUDE_BESIDE
    elif rng.random() < 0.4:
        forms = (f"{rng.choice(SUBJECTS)} {rng.choice(PREDICATES)}",)
    else:
        forms = EXCLUDE
    k = rng.choice(said.right) if said.right else ""
    return fill(forms, quote, rng, n=n, e=e, k=k, role=role)


def fill(
    forms: tuple[str, ...], quote: str, rng: random.Random, role: str = "", **names: str
) -> str:
    quoted = {key: quote.format(name) for key, name in names.items()}
    form = rng.choice(forms)
    while "{w}" in form:
        form = form.replace("{w}", random_words(rng, 1, 2), 1)
    return form.format(role=role, **quoted)


def around(text: str, rng: random.Random) -> str:
    """The sentence with an opening and a closing, now and then with meaningless words beside it."""
    text = rng.choice(OPENINGS) + text
    ending = rng.choice(CLOSINGS)
    text = text + ("" if text[-1] in "?!." and ending[:1] in ".,!" else ending)
    u = rng.random()
    if u < 0.06:
        text = f"{random_words(rng, 1, 4)}. {text}"
    elif u < 0.12:
        text = f"{text.rstrip('.')}. {random_words(rng, 1, 4)}"
    return text[0].upper() + text[1:] if rng.random() < 0.6 and text[0].isalpha() else text
