"""The small world of `tinycode`: descriptions of functions that leave something open, and the code of every reading.

A kind of function has one or two open questions (see `readings`); its code is one line after `def`. Names of functions and arguments and
numbers vary from problem to problem, so that code must be written, not recalled.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WORDS = (
    "apple river stone cloud tiger lemon chair music paper green horse candle window garden silver butter pencil rocket island dragon "
    "forest winter bottle camera market planet orange castle"
).split()
FIRST, LAST = (
    "anna ben clara david emma felix grace hugo ida jonas".split(),
    "berg stone miller lopez novak tanaka olsen weber rossi dubois".split(),
)

ENDS = ("both", "first", "last", "neither")  # which ends of a range belong to it
RANGES = {
    "both": "range({0}, {1} + 1)",
    "first": "range({0}, {1})",
    "last": "range({0} + 1, {1} + 1)",
    "neither": "range({0} + 1, {1})",
}
COMPARISONS = {
    "both": "{0} <= {2} <= {1}",
    "first": "{0} <= {2} < {1}",
    "last": "{0} < {2} <= {1}",
    "neither": "{0} < {2} < {1}",
}
CASES = {"lower": ".lower()", "upper": ".upper()", "title": ".title()", "as is": ""}
DIVISIONS = {
    "exact": "{0} / {1}",
    "down": "{0} // {1}",
    "nearest": "round({0} / {1})",
    "up": "-(-{0} // {1})",
}
EMPTY = {"None": "None", "0": "0", "-1": "-1", "text": "'empty'"}
JOINTS = {"space": "' '", "comma": "', '", "dash": "'-'", "nothing": "''"}
SORTS = {
    "up": "sorted({0})",
    "down": "sorted({0}, reverse=True)",
    "up once": "sorted(set({0}))",
    "down once": "sorted(set({0}), reverse=True)",
}


@dataclass(frozen=True)
class Kind:
    """One kind of function. In texts and code {a}, {b}, {c} are the arguments' names and {k} a number."""

    questions: dict[str, tuple[str, ...]]  #: what is open, and the readings, the usual one first
    functions: tuple[str, ...]  #: names the function may have
    arguments: tuple[tuple[str, ...], ...]  #: names each argument may have
    texts: tuple[str, ...]  #: descriptions
    write: Callable[[dict[str, str]], str]  #: readings -> the expression that is returned
    draw: tuple[str, ...]  #: what the inputs are, see `draw_input`
    ks: tuple[int, ...] = (0,)
    slips: tuple[str, ...] = ()  #: expressions that fail in another way than by a reading


def _range(r: dict[str, str]) -> str:
    return RANGES[r["ends"]].format("{a}", "{b}")


LISTS, TEXTS, LISTS_OF_WORDS, NUMBERS = (
    ("xs", "items", "values", "nums"),
    ("s", "text", "line", "word"),
    ("words", "names", "parts", "ws"),
    ("n", "x", "num", "value"),
)
LOWS, HIGHS = ("a", "lo", "start", "first"), ("b", "hi", "stop", "last")

KINDS: dict[str, Kind] = {
    "sum": Kind(
        {"ends": ENDS},
        ("total", "sum_up", "add", "range_sum"),
        (LOWS, HIGHS),
        (
            "Add up the whole numbers from {a} to {b}.",
            "The sum of all whole numbers between {a} and {b}.",
            "Sum of {a} up to {b}.",
        ),
        lambda r: f"sum({_range(r)})",
        ("low", "high"),
        slips=("sum({a}, {b})", "{a} + {b}"),
    ),
    "multiples": Kind(
        {"ends": ENDS},
        ("multiples", "count", "how_many", "hits"),
        (LOWS, HIGHS),
        (
            "Count the multiples of {k} from {a} to {b}.",
            "How many numbers between {a} and {b} can be divided by {k}?",
            "The number of multiples of {k} from {a} up to {b}.",
        ),
        lambda r: f"sum(i % {{k}} == 0 for i in {_range(r)})",
        ("low", "high"),
        (2, 3, 4, 5),
        ("{a} % {k} == 0", "count({a}, {b})"),
    ),
    "numbers": Kind(
        {"ends": ENDS, "order": ("up", "down")},
        ("numbers", "span", "list_all", "row"),
        (LOWS, HIGHS),
        (
            "List the whole numbers from {a} to {b}.",
            "All whole numbers between {a} and {b}, as a list.",
            "A list of {a} up to {b}.",
        ),
        lambda r: f"list({_range(r)})" + ("[::-1]" if r["order"] == "down" else ""),
        ("low", "high"),
        slips=("list({a}, {b})", "[{a}, {b}]"),
    ),
    "inside": Kind(
        {"ends": ENDS},
        ("inside", "within", "between", "fits"),
        (("x", "n", "value", "point"), LOWS[:3], HIGHS[:3]),
        (
            "Is {a} between {b} and {c}?",
            "Tell whether {a} lies from {b} to {c}.",
            "True if {a} is in the range of {b} to {c}.",
        ),
        lambda r: COMPARISONS[r["ends"]].format("{b}", "{c}", "{a}"),
        ("near", "low", "high"),
        slips=("{a} in {b}", "range({b}, {c})"),
    ),
    "sort": Kind(
        {"order": tuple(SORTS)},
        ("order", "arrange", "in_order", "sort_all"),
        (LISTS,),
        ("Sort the list {a}.", "Put the numbers of {a} in order.", "Return {a} in order."),
        lambda r: SORTS[r["order"]].format("{a}"),
        ("list",),
        slips=("{a}.sort()", "{a}.sorted()"),
    ),
    "different": Kind(
        {"order": ("first", "up", "down")},
        ("different", "unique", "distinct", "no_repeats"),
        (LISTS,),
        (
            "Remove repeats from {a}.",
            "The different numbers of {a}, as a list.",
            "Each number of {a} once.",
        ),
        lambda r: {
            "first": "list(dict.fromkeys({a}))",
            "up": "sorted(set({a}))",
            "down": "sorted(set({a}), reverse=True)",
        }[r["order"]],
        ("repeats",),
        slips=("set({a})", "{a}.unique()"),
    ),
    "largest": Kind(
        {"empty": tuple(EMPTY), "sign": ("signed", "absolute")},
        ("largest", "top", "biggest", "peak"),
        (LISTS,),
        (
            "The largest number in {a}.",
            "Find the maximum of {a}.",
            "Which number of {a} is the largest?",
        ),
        lambda r: (
            f"max({{a}}, default={EMPTY[r['empty']]}{', key=abs' if r['sign'] == 'absolute' else ''})"
        ),
        ("maybe empty",),
        slips=("max({a})", "{a}[-1]"),
    ),
    "smallest": Kind(
        {"empty": tuple(EMPTY), "sign": ("signed", "absolute")},
        ("smallest", "least", "lowest", "bottom"),
        (LISTS,),
        (
            "The smallest number in {a}.",
            "Find the minimum of {a}.",
            "Which number of {a} is the smallest?",
        ),
        lambda r: (
            f"min({{a}}, default={EMPTY[r['empty']]}{', key=abs' if r['sign'] == 'absolute' else ''})"
        ),
        ("maybe empty",),
        slips=("min({a})", "{a}[0]"),
    ),
    "mean": Kind(
        {"division": ("exact", "down", "nearest"), "empty": tuple(EMPTY)},
        ("mean", "average", "typical", "middle"),
        (LISTS,),
        (
            "The average of the numbers in {a}.",
            "Compute the mean of {a}.",
            "What is {a} on average?",
        ),
        lambda r: (
            f"{DIVISIONS[r['division']].format('sum({a})', 'len({a})')} if {{a}} else {EMPTY[r['empty']]}"
        ),
        ("maybe empty",),
        slips=("sum({a}) / len({a})", "sum({a}) // len({a})"),
    ),
    "share": Kind(
        {"division": ("exact", "down", "nearest", "up")},
        ("share", "split_up", "each", "part"),
        (NUMBERS,),
        ("Divide {a} by {k}.", "Share {a} among {k} people.", "One part of {a} out of {k}."),
        lambda r: DIVISIONS[r["division"]].format("{a}", "{k}"),
        ("number",),
        (2, 3, 4, 5),
        ("{k} / {a}", "{a} % {k}"),
    ),
    "position": Kind(
        {"start": ("0", "1"), "missing": ("-1", "None", "0", "text")},
        ("position", "find", "where", "locate"),
        (LISTS, ("x", "item", "target", "n")),
        ("The position of {b} in {a}.", "Where is {b} in the list {a}?", "Find {b} in {a}."),
        lambda r: (
            f"{{a}}.index({{b}}){' + 1' if r['start'] == '1' else ''} if {{b}} in {{a}} else {EMPTY[r['missing']]}"
        ),
        ("list", "member"),
        slips=("{a}.index({b})", "{a}.find({b})"),
    ),
    "item": Kind(
        {"start": ("1", "0", "end")},
        ("item", "pick", "take", "get"),
        (LISTS, ("n", "i", "number", "place")),
        (
            "Item number {b} of {a}.",
            "Take number {b} from the list {a}.",
            "Which item of {a} is number {b}?",
        ),
        lambda r: {"1": "{a}[{b} - 1]", "0": "{a}[{b}]", "end": "{a}[-{b}]"}[r["start"]],
        ("long list", "index"),
        slips=("{a}({b})", "{b}[{a}]"),
    ),
    "every": Kind(
        {"start": ("first", "second"), "order": ("as is", "back")},
        ("every", "skip", "thin_out", "some"),
        (LISTS,),
        (
            "Keep every {k}nd item of {a}.",
            "Every {k}nd item in {a}.",
            "Thin out {a}: one item in {k} stays.",
        ),
        lambda r: (
            f"{{a}}[{'1' if r['start'] == 'second' else ''}::{{k}}]{'[::-1]' if r['order'] == 'back' else ''}"
        ),
        ("long list",),
        (2,),
        ("{a}[{k}]", "{a} // {k}"),
    ),
    "join": Kind(
        {"joint": tuple(JOINTS), "case": ("as is", "upper")},
        ("join", "glue", "phrase", "combine"),
        (LISTS_OF_WORDS,),
        ("Join the words in {a}.", "Make one text of {a}.", "Put the words of {a} together."),
        lambda r: f"{JOINTS[r['joint']]}.join({{a}}){CASES[r['case']]}",
        ("words",),
        slips=("{a}.join(' ')", "sum({a})"),
    ),
    "initials": Kind(
        {"joint": ("nothing", "dot", "space"), "case": ("upper", "lower")},
        ("initials", "short", "letters", "abbreviate"),
        (("name", "full", "s", "person"),),
        (
            "The initials of {a}.",
            "First letters of the words in {a}.",
            "Shorten the name {a} to its initials.",
        ),
        lambda r: (
            f"{ {'nothing': chr(39) * 2, 'dot': repr('.'), 'space': repr(' ')}[r['joint']] }.join(w[0] for w in {{a}}.split()){CASES[r['case']]}"
        ),
        ("name",),
        slips=("{a}[0]", "{a}.initials()"),
    ),
    "spell": Kind(
        {"case": ("title", "upper", "lower", "capital")},
        ("spell", "tidy", "neat", "proper"),
        (TEXTS,),
        ("Write {a} properly.", "Return {a} with tidy letters.", "Clean up the case of {a}."),
        lambda r: (
            "{a}."
            + {"title": "title", "upper": "upper", "lower": "lower", "capital": "capitalize"}[
                r["case"]
            ]
            + "()"
        ),
        ("mixed name",),
        slips=("{a}", "{a}.case()"),
    ),
    "letters": Kind(
        {"case": ("exact", "any"), "empty": ("0", "text", "None")},
        ("letters", "count_in", "how_often", "times"),
        (TEXTS, ("c", "letter", "char", "x")),
        (
            "How often is the letter {b} in {a}?",
            "Count {b} in {a}.",
            "The number of times {a} has the letter {b}.",
        ),
        lambda r: (
            ("{a}.lower().count({b}.lower())" if r["case"] == "any" else "{a}.count({b})")
            + (f" or {EMPTY[r['empty']]}" if r["empty"] != "0" else "")
        ),
        ("mixed", "letter"),
        slips=("count({a}, {b})", "len({a})"),
    ),
    "shorten": Kind(
        {"side": ("first", "last"), "mark": ("nothing", "dots", "dot")},
        ("shorten", "cut", "crop", "trim"),
        (TEXTS,),
        ("Shorten {a} to {k} letters.", "Cut {a} to a length of {k}.", "Only {k} letters of {a}."),
        lambda r: (
            ("{a}[:{k}]" if r["side"] == "first" else "{a}[-{k}:]")
            + {"nothing": "", "dots": " + '...'", "dot": " + '.'"}[r["mark"]]
        ),
        ("word",),
        (2, 3, 4, 5),
        ("{a}[{k}]", "{a}.cut({k})"),
    ),
    "longest": Kind(
        {"tie": ("first", "last"), "empty": ("None", "0", "text")},
        ("longest", "long_word", "widest", "max_word"),
        (LISTS_OF_WORDS,),
        (
            "The longest word in {a}.",
            "Which word of {a} has the most letters?",
            "Find the longest of {a}.",
        ),
        lambda r: (
            f"max({{a}}{'[::-1]' if r['tie'] == 'last' else ''}, key=len, default={EMPTY[r['empty']]})"
        ),
        ("ties",),
        slips=("max({a})", "max({a}, key=len)"),
    ),
    "round": Kind(
        {"rule": ("nearest", "down", "tenth", "text")},
        ("rounded", "price", "simple", "approx"),
        (NUMBERS,),
        ("Round {a}.", "Return {a} as a round number.", "Make {a} a simple number."),
        lambda r: {
            "nearest": "round({a})",
            "down": "int({a})",
            "tenth": "round({a}, 1)",
            "text": "f'{{{a}:.2f}}'",
        }[r["rule"]],
        ("decimal",),
        slips=("{a}.round()", "{a} // 1"),
    ),
    "countdown": Kind(
        {"end": ("1", "0"), "start": ("with", "without")},
        ("countdown", "launch", "steps", "back"),
        (NUMBERS,),
        (
            "Count down from {a}.",
            "A countdown that begins at {a}, as a list.",
            "List the numbers from {a} down.",
        ),
        lambda r: (
            f"list(range({{a}}{' - 1' if r['start'] == 'without' else ''}, {'0' if r['end'] == '1' else '-1'}, -1))"
        ),
        ("small",),
        slips=("list(range({a}))", "range({a}, 0)"),
    ),
}
#: {kind: {question: readings}}
QUESTIONS = {name: kind.questions for name, kind in KINDS.items()}


def draw_input(what: str, rng: random.Random, so_far: list[Any]) -> Any:
    """One argument of a test. What tells readings apart turns up often: equal neighbours, empty lists, halves, ties, capitals."""
    match what:
        case "low":
            return rng.randint(0, 6)
        case "high":
            return so_far[-1] + rng.randint(1, 6)
        case "near":
            return rng.randint(2, 8)
        case "list":
            return [rng.randint(1, 9) for _ in range(rng.randint(3, 5))]
        case "long list":
            return [rng.randint(1, 9) for _ in range(rng.randint(6, 8))]
        case "repeats":
            few = rng.sample(range(1, 10), 3)
            return [rng.choice(few) for _ in range(rng.randint(4, 6))]
        case "maybe empty":
            return (
                []
                if rng.random() < 0.35
                else [rng.choice((1, 1, -1)) * rng.randint(1, 9) for _ in range(rng.randint(2, 4))]
            )
        case "member":
            return rng.choice(so_far[0]) if rng.random() < 0.6 else rng.randint(10, 20)
        case "index":
            return rng.randint(1, 4)
        case "number":
            return rng.randint(1, 40)
        case "small":
            return rng.randint(2, 7)
        case "decimal":
            return rng.randint(0, 20) + rng.choice((0.25, 0.38, 0.63, 0.75, 0.89))
        case "words":
            return rng.sample(WORDS, rng.randint(2, 3))
        case "ties":
            return [] if rng.random() < 0.3 else rng.sample(WORDS, rng.randint(2, 4))
        case "word":
            return rng.choice(WORDS)
        case "name":
            return f"{rng.choice(FIRST)} {rng.choice(LAST)}"
        case "mixed":
            return "".join(c.upper() if rng.random() < 0.3 else c for c in rng.choice(WORDS))
        case "mixed name":
            return rng.choice((str.upper, str.title, str.swapcase))(
                f"{rng.choice(FIRST)} {rng.choice(LAST)}"
            )
        case "letter":
            return rng.choice(so_far[0] + "xyz")
    raise ValueError(f"unknown kind of input {what!r}")


def draw_inputs(kind: Kind, rng: random.Random) -> list[Any]:
    """The arguments of one test."""
    if kind.draw[0] == "near":  # the point is drawn at an end of the range or beside it
        low = rng.randint(0, 6)
        high = low + rng.randint(2, 6)
        return [rng.choice((low, high, low + 1, low - 1, high + 1, high)), low, high]
    found: list[Any] = []
    for what in kind.draw:
        found.append(draw_input(what, rng, found))
    return found


def write_code(
    data: dict[str, Any], readings: dict[str, str] | None = None, expression: str = ""
) -> str:
    """The function that problem `data` asks for, as `readings` mean it (or returning another `expression` of the kind)."""
    places = dict(zip("abc", data["arguments"]), k=data["k"])
    returned = (expression or KINDS[data["kind"]].write(readings or {})).format(**places)
    return f"def {data['function']}({', '.join(data['arguments'])}):\n    return {returned}"
