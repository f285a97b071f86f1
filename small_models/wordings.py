"""How pre-training documents word things, so that a teacher reads a message instead of recalling
one template.

Frames and messages are put together from the pieces below (about 900 frames and 4,000 messages),
and every fourth is made of random words, so that nothing but the content can be relied on.
`held_out.py` has the words that no document uses.
"""

from __future__ import annotations

import random

# fmt: off
SOLUTION_HEADS = (
    "Correct solution:", "A correct answer:", "This answer was right:", "Right answer:",
    "Here is a solution that works:", "Solution:", "Somebody solved it like this:",
    "The following call worked:", "Working example:", "Known to work:", "This one passed:",
    "An earlier attempt that succeeded:", "Accepted before:", "A good answer looks like this:",
    "Reference:", "It should look like this:", "Example of success:", "The server took this:",
    "Good:", "Passed:", "A valid call:", "What worked:", "Answer that was taken:",
    "Use this as a guide:", "This is how it is done:",
)
FEEDBACK_HEADS = (
    "The following is feedback from your unsuccessful earlier attempt:", "Your last try failed:",
    "Feedback:", "The server said:", "Error message:", "This came back:",
    "An earlier attempt gave this error:", "What went wrong:", "The log says:", "Output:",
    "Your answer was refused:", "Result of your attempt:", "The call failed with:",
    "Here is what the checker reported:", "Errors so far:", "Message from the service:",
    "Not accepted:", "That did not work:", "Note on your first answer:", "Trace:",
    "The validator complained:", "Review of your attempt:", "Failure:", "You tried before and got:",
    "Response:",
)
ATTEMPT_HEADS = (
    "Your earlier attempt:", "You wrote:", "First try:", "Your last answer:", "Attempt:",
    "Before, you answered:", "What you sent:", "Wrong answer:", "Earlier call:", "You called:",
)
CLOSINGS = (
    "Correctly solve the original question.", "Now answer the question.", "Try again.",
    "Write the right call.", "Give the correct answer.", "Answer again, without the mistake.",
    "Solve it.", "What is the right call?", "Please fix it.", "Do it right this time.",
    "Write the call again.", "Now your answer:", "Solve the question above.",
    "Take this into account.", "Go.", "", "Once more, please.", "Repeat the call so that it works.",
)

UNEXPECTED = (
    "TypeError: {tool}() got an unexpected keyword argument {n}",
    "{tool}() got an unexpected keyword argument {n}", "unexpected argument {n}",
    "{tool}: unknown parameter {n}", "error in {tool}(): there is no {n}",
    "{n} is not a parameter of {tool}", "invalid name {n} in the call of {tool}",
    "no such argument: {n}", "{tool} does not take {n}", "cannot use {n} here", "bad keyword {n}",
    "the name {n} is wrong", "{n}?", "unknown field {n}", "400 bad request: {n} is unknown",
    "{tool} has no option {n}", "key {n} was not expected", "I do not know {n}",
    "argument {n} does not exist", "{tool}({n}=...) failed", "schema error at {n}",
    "{n} was removed from {tool}", "{n} is old and no longer works", "stop at {n}",
    "extra input {n} is not permitted", "{tool} rejects {n}", "unsupported: {n}", "KeyError: {n}",
    "illegal argument {n} for {tool}()", "{n} failed",
)
ACCEPTED = (
    " (accepted: {list})", ", accepted: {list}", ". Accepted names: {list}", " (allowed: {list})",
    "; allowed are {list}", ". Valid names are {list}", " (choose from {list})",
    ", use one of {list}", ". It takes {list}", ". Parameters: {list}", " [known: {list}]",
    "; the names are {list}", ". Signature: {tool}({list})", ". Known fields: {list}",
    "\navailable: {list}", "\n{list}", " - possible: {list}", ", only {list}",
    ". Did you mean one of {list}?", ". Fields of {tool}: {list}",
)
EXPECTED = (
    " ({n} should be {e})", ", expected {e}", ". Use {e} instead", "; did you mean {e}?",
    ". It is now called {e}", " (expected: {e})", " -> {e}", ". Write {e}",
    ", the right name is {e}", " (renamed to {e})", ". Replace it with {e}", "; say {e}",
    ". Try {e}", ", it must be {e}", ". Correct: {e}",
)
MISSING = (
    "TypeError: {tool}() missing a required keyword argument", "{tool}: something is missing",
    "an argument is missing", "{tool}() needs more than that", "incomplete call of {tool}",
    "required field missing",
)
VALUE = (
    "ValueError: {tool}() got a value for {n} that was not asked for", "the value of {n} is wrong",
    "{n} has another value in the request", "check the value of {n}", "wrong value: {n}",
)
SYNTAX = (
    "SyntaxError: this is not a call of a tool", "cannot read this", "not a call", "parse error",
    "this is no code",
)
NOTHING = (
    "wrong", "Your answer was wrong.", "failed", "rejected", "not correct", "error", "no",
    "0 points", "That was not it.", "incorrect",
)
PREFIXES = (
    "", "", "", "", "", "", "Error: ", "[error] ", "E: ", "line 1: ", "! ", "Traceback:\n",
    "status 422: ", "- ", "* ", "validator: ",
)
QUOTES = (
    "'{}'", "'{}'", "'{}'", '"{}"', "`{}`", "{}", "<{}>", "*{}*",
)
JOINS = (
    ", ", ", ", ", ", " | ", "; ", " ", " or ", " and ", "\n- ", "/",
)

WORDS = (
    "about above again air all also animal answer any around ask back ball bank base bear beat "
    "because bed before best bird black blue boat body bone book both box bring brown build burn "
    "call care carry case cat chair change child city class clean clear close cloud coat cold "
    "cook cool corner count cover cross dance dark day deep door draw dream drink drive drop dry "
    "each early earth east easy edge eight end engine even ever eye face fact fall family farm "
    "fast field fill find fine fire first fish five floor fly food foot force four free fresh "
    "friend front full game garden give glass gold good great green ground group grow half hand "
    "happy hard head hear heart heat heavy help high hill hold home hope horse hour house hundred "
    "ice idea inside iron island join jump keep kind king know lake land large last late laugh "
    "law lead learn leave left leg less level lie life light like line list listen little long "
    "look lost love low machine make map mark matter mean meet milk mind minute moon more morning "
    "mother mountain mouth move music name near neck need nest night nine noise north nose note "
    "nothing ocean off oil old open order other outside page paint pair paper part past path pay "
    "people piece place plain plan plant play point poor press pull push queen quick quiet rain "
    "reach read ready red rest rich ride right ring rise river road rock roll room root rose "
    "round row rule run safe salt same sand save say school sea season seat second seed seem sell "
    "send seven shade shape share sharp ship shoe shop short show side sign silver sing sister "
    "sit six size skin sky sleep slow small smell smile snow soft soil song soon sound south "
    "space speak spring stand star start stay steel step stick stone stop store storm story "
    "street strong sugar summer sun sure sweet swim table tail take talk tall teach tell ten test "
    "thick thin thing think third three tie time tiny tire today tone tool top touch town track "
    "train travel tree true try turn twelve two type under unit up use valley very view voice "
    "wait walk wall warm wash watch water wave way wear week weight west wheel white wide wild "
    "win wind window winter wire wish woman wonder wood word work world write wrong yard year "
    "yellow young"
).split()
# fmt: on
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def random_words(rng: random.Random, low: int, high: int) -> str:
    """A few words without a meaning; one in three is not even a word."""
    return " ".join(
        rng.choice(WORDS)
        if rng.random() < 0.67
        else "".join(rng.choices(LETTERS, k=rng.randint(3, 9)))
        for _ in range(rng.randint(low, high))
    )


def random_head(rng: random.Random) -> str:
    head = random_words(rng, 1, 6)
    return (head.capitalize() if rng.random() < 0.7 else head) + rng.choice(
        (":", ":", ":", ".", "", " ->")
    )


def pick(pieces: tuple[str, ...], rng: random.Random) -> str:
    """One of the pieces, the first (the paper's) a little more often, and every fourth time random
    words.
    """
    u = rng.random()
    return pieces[0] if u < 0.12 else random_head(rng) if u < 0.37 else rng.choice(pieces)


def message(error, level: int, rng: random.Random) -> str:
    """An `Error` of the judge, in other words, telling what the judge tells at the same setting of
    its dial.
    """
    quote = rng.choice(QUOTES).format
    n, e = quote(error.name), quote(error.expected)
    listed = rng.choice(JOINS).join(
        error.accepted if rng.random() < 0.85 else rng.sample(error.accepted, len(error.accepted))
    )
    listed = rng.choice(("{}", "{}", "{}", "[{}]", "({})")).format(listed)
    names = level == 2 and error.kind in ("positional", "unexpected", "missing")
    if level == 0:
        text = rng.choice(NOTHING)
    elif (
        error.kind == "unexpected" and rng.random() < 0.4
    ):  # made of random words: only the names carry anything
        text = f"{random_words(rng, 0, 4)} {n} {random_words(rng, 0, 4)}".strip()
        if level > 1:
            text += (
                rng.choice((": ", ", ", " (", ". ", "; ", "\n"))
                + random_words(rng, 0, 3)
                + rng.choice((": ", " "))
                + (e if level == 3 else listed)
            )
    else:
        form = {"unexpected": UNEXPECTED, "missing": MISSING, "value": VALUE, "syntax": SYNTAX}[
            error.kind
        ]
        text = (form[0] if rng.random() < 0.2 else rng.choice(form)) + (
            rng.choice(ACCEPTED) if names else ""
        )
        if level == 3 and error.kind in ("unexpected", "missing"):
            text += (
                rng.choice(EXPECTED)
                if error.kind == "unexpected"
                else rng.choice((" (expected: {e})", ": {e}", ", add {e}"))
            )
        text = text.format(tool=error.tool, n=n, e=e, list=listed)
    line = f"line {error.line}: " if error.line else ""
    return line + rng.choice(PREFIXES) + text


def frame(question: str, parts: dict[str, str], rng: random.Random) -> str:
    """The teacher's prompt: the question, then the parts ("solution", "attempt", "feedback") under
    a heading each, then a closing.
    """
    if rng.random() < 0.15:  # the paper's own frame, letter by letter
        heads = {
            "solution": SOLUTION_HEADS[0],
            "feedback": FEEDBACK_HEADS[0],
            "attempt": ATTEMPT_HEADS[0],
        }
        order, before, after, last, closing = (
            ["solution", "attempt", "feedback"],
            "\n",
            "\n\n",
            "\n\n",
            CLOSINGS[0],
        )
    else:
        heads = {
            "solution": pick(SOLUTION_HEADS, rng),
            "feedback": pick(FEEDBACK_HEADS, rng),
            "attempt": pick(ATTEMPT_HEADS, rng),
        }
        order = (
            ["solution", "attempt", "feedback"]
            if rng.random() < 0.8
            else ["attempt", "feedback", "solution"]
        )
        before, after, last = (
            rng.choice(("\n", "\n\n")),
            rng.choice(("\n\n", "\n\n", "\n", " ")),
            rng.choice(("\n\n", "\n\n", "\n")),
        )
        closing = pick(CLOSINGS, rng)
    body = "".join(f"{before}{heads[k]}{after}{parts[k]}" for k in order if k in parts)
    return question + body + (last + closing if closing else "")


RETOLD = (
    (
        "Test {i}: {call} gave {out} instead of {exp}.",
        "{call} returned {out}, expected {exp}",
        "AssertionError: {call} == {out}, should be {exp}",
        "assert {call} == {exp}\nbut it was {out}",
        "For {call} your function gives {out}. Right is {exp}.",
        "{call}: {out} != {exp}",
        "{call}\n- {exp}\n+ {out}",
        "Your code says {out} for {call}, the answer is {exp}.",
    ),
    (
        "Test {i}: {call} gave {out}, which is wrong.",
        "{call} returned {out}, wrong",
        "For {call} your function gives {out}. No.",
        "{call}: {out} is not right",
    ),
)


def retell(text: str, rng: random.Random) -> str:
    """The feedback of a failing test in other words; what is no wrong answer stays."""
    if not text.startswith("Test "):
        return text
    head, call, out, *rest = text.split("\n")
    fields = {
        "i": head[5:].split(":")[0],
        "call": call.removeprefix("Input: "),
        "out": out.removeprefix("Output: "),
        "exp": "".join(rest).removeprefix("Expected: "),
    }
    return rng.choice(RETOLD[0] if rest else RETOLD[1]).format(**fields)
