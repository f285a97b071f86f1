"""The small world of `tinycode`: descriptions of functions that leave something open, and the code
of every reading.

A kind of function has one or two open questions (see `conventions`); its code is one line after
`def`. Names of functions and arguments and numbers vary from problem to problem, so that code must
be written, not recalled.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WORDS = (
    "apple river stone cloud tiger lemon chair music paper green horse candle window garden silver "
    "butter pencil rocket island dragon forest winter bottle camera market planet orange castle"
).split()
FIRST = "anna ben clara david emma felix grace hugo ida jonas".split()
LAST = "berg stone miller lopez novak tanaka olsen weber rossi dubois".split()

# Code of the readings that several kinds share: {reading: expression}. {0}, {1}, {2} are filled in.

ENDS = ("both", "first", "last", "neither")  # which ends of a range belong to it
# fmt: off
RANGES = {"both": "range({0}, {1} + 1)", "first": "range({0}, {1})",
          "last": "range({0} + 1, {1} + 1)", "neither": "range({0} + 1, {1})"}
COMPARISONS = {"both": "{0} <= {2} <= {1}", "first": "{0} <= {2} < {1}",
               "last": "{0} < {2} <= {1}", "neither": "{0} < {2} < {1}"}
CASES = {"lower": ".lower()", "upper": ".upper()", "title": ".title()", "as is": ""}
DIVISIONS = {"exact": "{0} / {1}", "down": "{0} // {1}", "nearest": "round({0} / {1})",
             "up": "-(-{0} // {1})"}
EMPTY = {"None": "None", "0": "0", "-1": "-1", "text": "'empty'"}
JOINTS = {"space": "' '", "comma": "', '", "dash": "'-'", "nothing": "''"}
INITIAL_JOINTS = {"nothing": "''", "dot": "'.'", "space": "' '"}
SIGNS = {"signed": "", "absolute": ", key=abs"}
SORTS = {"up": "sorted({0})", "down": "sorted({0}, reverse=True)", "up once": "sorted(set({0}))",
         "down once": "sorted(set({0}), reverse=True)"}
# fmt: on

# Names that the arguments of a function may have.

LISTS = ("xs", "items", "values", "nums")
TEXTS = ("s", "text", "line", "word")
LISTS_OF_WORDS = ("words", "names", "parts", "ws")
NUMBERS = ("n", "x", "num", "value")
LOWS, HIGHS = ("a", "lo", "start", "first"), ("b", "hi", "stop", "last")


@dataclass(frozen=True)
class Kind:
    """One kind of function. In texts and code {a}, {b}, {c} are argument names and {k} a number."""

    questions: dict[str, tuple[str, ...]]  #: what is open, and the readings, the usual one first
    functions: tuple[str, ...]  #: names the function may have
    arguments: tuple[tuple[str, ...], ...]  #: names each argument may have
    texts: tuple[str, ...]  #: descriptions
    write: Callable[[dict[str, str]], str]  #: readings -> the expression that is returned
    draw: tuple[str, ...]  #: what the inputs are, see `draw_input`
    ks: tuple[int, ...] = (0,)  #: numbers that {k} may be
    slips: tuple[str, ...] = ()  #: expressions that fail in another way than by a reading


def range_of(readings: dict[str, str]) -> str:
    """`range(...)` from the first to the second argument, with the ends that belong to it."""
    return RANGES[readings["ends"]].format("{a}", "{b}")


# fmt: off
KINDS: dict[str, Kind] = {
    "sum": Kind(
        questions={"ends": ENDS},
        functions=("total", "sum_up", "add", "range_sum"),
        arguments=(LOWS, HIGHS),
        texts=("Add up the whole numbers from {a} to {b}.",
               "The sum of all whole numbers between {a} and {b}.", "Sum of {a} up to {b}."),
        write=lambda r: f"sum({range_of(r)})",
        draw=("low", "high"), slips=("sum({a}, {b})", "{a} + {b}"),
    ),
    "multiples": Kind(
        questions={"ends": ENDS},
        functions=("multiples", "count", "how_many", "hits"),
        arguments=(LOWS, HIGHS),
        texts=("Count the multiples of {k} from {a} to {b}.",
               "How many numbers between {a} and {b} can be divided by {k}?",
               "The number of multiples of {k} from {a} up to {b}."),
        write=lambda r: f"sum(i % {{k}} == 0 for i in {range_of(r)})",
        draw=("low", "high"), ks=(2, 3, 4, 5), slips=("{a} % {k} == 0", "count({a}, {b})"),
    ),
    "numbers": Kind(
        questions={"ends": ENDS, "order": ("up", "down")},
        functions=("numbers", "span", "list_all", "row"),
        arguments=(LOWS, HIGHS),
        texts=("List the whole numbers from {a} to {b}.",
               "All whole numbers between {a} and {b}, as a list.", "A list of {a} up to {b}."),
        write=lambda r: f"list({range_of(r)})" + ("[::-1]" if r["order"] == "down" else ""),
        draw=("low", "high"), slips=("list({a}, {b})", "[{a}, {b}]"),
    ),
    "inside": Kind(
        questions={"ends": ENDS},
        functions=("inside", "within", "between", "fits"),
        arguments=(("x", "n", "value", "point"), LOWS[:3], HIGHS[:3]),
        texts=("Is {a} between {b} and {c}?", "Tell whether {a} lies from {b} to {c}.",
               "True if {a} is in the range of {b} to {c}."),
        write=lambda r: COMPARISONS[r["ends"]].format("{b}", "{c}", "{a}"),
        draw=("near", "low", "high"), slips=("{a} in {b}", "range({b}, {c})"),
    ),
    "sort": Kind(
        questions={"order": tuple(SORTS)},
        functions=("order", "arrange", "in_order", "sort_all"),
        arguments=(LISTS,),
        texts=("Sort the list {a}.", "Put the numbers of {a} in order.", "Return {a} in order."),
        write=lambda r: SORTS[r["order"]].format("{a}"),
        draw=("list",), slips=("{a}.sort()", "{a}.sorted()"),
    ),
    "different": Kind(
        questions={"order": ("first", "up", "down")},
        functions=("different", "unique", "distinct", "no_repeats"),
        arguments=(LISTS,),
        texts=("Remove repeats from {a}.", "The different numbers of {a}, as a list.",
               "Each number of {a} once."),
        write=lambda r: {"first": "list(dict.fromkeys({a}))", "up": "sorted(set({a}))",
                         "down": "sorted(set({a}), reverse=True)"}[r["order"]],
        draw=("repeats",), slips=("set({a})", "{a}.unique()"),
    ),
    "largest": Kind(
        questions={"empty": tuple(EMPTY), "sign": ("signed", "absolute")},
        functions=("largest", "top", "biggest", "peak"),
        arguments=(LISTS,),
        texts=("The largest number in {a}.", "Find the maximum of {a}.",
               "Which number of {a} is the largest?"),
        write=lambda r: f"max({{a}}, default={EMPTY[r['empty']]}{SIGNS[r['sign']]})",
        draw=("maybe empty",), slips=("max({a})", "{a}[-1]"),
    ),
    "smallest": Kind(
        questions={"empty": tuple(EMPTY), "sign": ("signed", "absolute")},
        functions=("smallest", "least", "lowest", "bottom"),
        arguments=(LISTS,),
        texts=("The smallest number in {a}.", "Find the minimum of {a}.",
               "Which number of {a} is the smallest?"),
        write=lambda r: f"min({{a}}, default={EMPTY[r['empty']]}{SIGNS[r['sign']]})",
        draw=("maybe empty",), slips=("min({a})", "{a}[0]"),
    ),
    "mean": Kind(
        questions={"division": ("exact", "down", "nearest"), "empty": tuple(EMPTY)},
        functions=("mean", "average", "typical", "middle"),
        arguments=(LISTS,),
        texts=("The average of the numbers in {a}.", "Compute the mean of {a}.",
               "What is {a} on average?"),
        write=lambda r: (DIVISIONS[r["division"]].format("sum({a})", "len({a})")
                         + f" if {{a}} else {EMPTY[r['empty']]}"),
        draw=("maybe empty",), slips=("sum({a}) / len({a})", "sum({a}) // len({a})"),
    ),
    "share": Kind(
        questions={"division": ("exact", "down", "nearest", "up")},
        functions=("share", "split_up", "each", "part"),
        arguments=(NUMBERS,),
        texts=("Divide {a} by {k}.", "Share {a} among {k} people.", "One part of {a} out of {k}."),
        write=lambda r: DIVISIONS[r["division"]].format("{a}", "{k}"),
        draw=("number",), ks=(2, 3, 4, 5), slips=("{k} / {a}", "{a} % {k}"),
    ),
    "position": Kind(
        questions={"start": ("0", "1"), "missing": ("-1", "None", "0", "text")},
        functions=("position", "find", "where", "locate"),
        arguments=(LISTS, ("x", "item", "target", "n")),
        texts=("The position of {b} in {a}.", "Where is {b} in the list {a}?", "Find {b} in {a}."),
        write=lambda r: ("{a}.index({b})" + (" + 1" if r["start"] == "1" else "")
                         + f" if {{b}} in {{a}} else {EMPTY[r['missing']]}"),
        draw=("list", "member"), slips=("{a}.index({b})", "{a}.find({b})"),
    ),
    "item": Kind(
        questions={"start": ("1", "0", "end")},
        functions=("item", "pick", "take", "get"),
        arguments=(LISTS, ("n", "i", "number", "place")),
        texts=("Item number {b} of {a}.", "Take number {b} from the list {a}.",
               "Which item of {a} is number {b}?"),
        write=lambda r: {"1": "{a}[{b} - 1]", "0": "{a}[{b}]", "end": "{a}[-{b}]"}[r["start"]],
        draw=("long list", "index"), slips=("{a}({b})", "{b}[{a}]"),
    ),
    "every": Kind(
        questions={"start": ("first", "second"), "order": ("as is", "back")},
        functions=("every", "skip", "thin_out", "some"),
        arguments=(LISTS,),
        texts=("Keep every {k}nd item of {a}.", "Every {k}nd item in {a}.",
               "Thin out {a}: one item in {k} stays."),
        write=lambda r: (("{a}[1::{k}]" if r["start"] == "second" else "{a}[::{k}]")
                         + ("[::-1]" if r["order"] == "back" else "")),
        draw=("long list",), ks=(2,), slips=("{a}[{k}]", "{a} // {k}"),
    ),
    "join": Kind(
        questions={"joint": tuple(JOINTS), "case": ("as is", "upper")},
        functions=("join", "glue", "phrase", "combine"),
        arguments=(LISTS_OF_WORDS,),
        texts=("Join the words in {a}.", "Make one text of {a}.", "Put the words of {a} together."),
        write=lambda r: f"{JOINTS[r['joint']]}.join({{a}}){CASES[r['case']]}",
        draw=("words",), slips=("{a}.join(' ')", "sum({a})"),
    ),
    "initials": Kind(
        questions={"joint": ("nothing", "dot", "space"), "case": ("upper", "lower")},
        functions=("initials", "short", "letters", "abbreviate"),
        arguments=(("name", "full", "s", "person"),),
        texts=("The initials of {a}.", "First letters of the words in {a}.",
               "Shorten the name {a} to its initials."),
        write=lambda r: (INITIAL_JOINTS[r["joint"]] + ".join(w[0] for w in {a}.split())"
                         + CASES[r["case"]]),
        draw=("name",), slips=("{a}[0]", "{a}.initials()"),
    ),
    "spell": Kind(
        questions={"case": ("title", "upper", "lower", "capital")},
        functions=("spell", "tidy", "neat", "proper"),
        arguments=(TEXTS,),
        texts=("Write {a} properly.", "Return {a} with tidy letters.", "Clean up the case of {a}."),
        write=lambda r: f"{{a}}.{'capitalize' if r['case'] == 'capital' else r['case']}()",
        draw=("mixed name",), slips=("{a}", "{a}.case()"),
    ),
    "letters": Kind(
        questions={"case": ("exact", "any"), "empty": ("0", "text", "None")},
        functions=("letters", "count_in", "how_often", "times"),
        arguments=(TEXTS, ("c", "letter", "char", "x")),
        texts=("How often is the letter {b} in {a}?", "Count {b} in {a}.",
               "The number of times {a} has the letter {b}."),
        write=lambda r: (
            ("{a}.lower().count({b}.lower())" if r["case"] == "any" else "{a}.count({b})")
            + ("" if r["empty"] == "0" else f" or {EMPTY[r['empty']]}")),
        draw=("mixed", "letter"), slips=("count({a}, {b})", "len({a})"),
    ),
    "shorten": Kind(
        questions={"side": ("first", "last"), "mark": ("nothing", "dots", "dot")},
        functions=("shorten", "cut", "crop", "trim"),
        arguments=(TEXTS,),
        texts=("Shorten {a} to {k} letters.", "Cut {a} to a length of {k}.",
               "Only {k} letters of {a}."),
        write=lambda r: (("{a}[:{k}]" if r["side"] == "first" else "{a}[-{k}:]")
                         + {"nothing": "", "dots": " + '...'", "dot": " + '.'"}[r["mark"]]),
        draw=("word",), ks=(2, 3, 4, 5), slips=("{a}[{k}]", "{a}.cut({k})"),
    ),
    "longest": Kind(
        questions={"tie": ("first", "last"), "empty": ("None", "0", "text")},
        functions=("longest", "long_word", "widest", "max_word"),
        arguments=(LISTS_OF_WORDS,),
        texts=("The longest word in {a}.", "Which word of {a} has the most letters?",
               "Find the longest of {a}."),
        write=lambda r: ("max({a}" + ("[::-1]" if r["tie"] == "last" else "")
                         + f", key=len, default={EMPTY[r['empty']]})"),
        draw=("ties",), slips=("max({a})", "max({a}, key=len)"),
    ),
    "round": Kind(
        questions={"rule": ("nearest", "down", "tenth", "text")},
        functions=("rounded", "price", "simple", "approx"),
        arguments=(NUMBERS,),
        texts=("Round {a}.", "Return {a} as a round number.", "Make {a} a simple number."),
        write=lambda r: {"nearest": "round({a})", "down": "int({a})", "tenth": "round({a}, 1)",
                         "text": "f'{{{a}:.2f}}'"}[r["rule"]],
        draw=("decimal",), slips=("{a}.round()", "{a} // 1"),
    ),
    "countdown": Kind(
        questions={"end": ("1", "0"), "start": ("with", "without")},
        functions=("countdown", "launch", "steps", "back"),
        arguments=(NUMBERS,),
        texts=("Count down from {a}.", "A countdown that begins at {a}, as a list.",
               "List the numbers from {a} down."),
        write=lambda r: ("list(range({a}" + (" - 1" if r["start"] == "without" else "")
                         + f", {'0' if r['end'] == '1' else '-1'}, -1))"),
        draw=("small",), slips=("list(range({a}))", "range({a}, 0)"),
    ),
}
# fmt: on
#: {kind: {question: readings}}
QUESTIONS = {name: kind.questions for name, kind in KINDS.items()}


#: {kind of input: its lowest and highest value}
WHOLE_NUMBERS = {"low": (0, 6), "near": (2, 8), "index": (1, 4), "number": (1, 40), "small": (2, 7)}


def draw_input(what: str, rng: random.Random, so_far: list[Any]) -> Any:
    """One argument of a test; `so_far` are those before it.

    What tells readings apart turns up often: equal neighbours, empty lists, halves, ties, capitals.
    """
    if what in WHOLE_NUMBERS:
        return rng.randint(*WHOLE_NUMBERS[what])
    match what:
        case "high":
            return so_far[-1] + rng.randint(1, 6)
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
    inputs: list[Any] = []
    for what in kind.draw:
        inputs.append(draw_input(what, rng, inputs))
    return inputs


def write_code(
    data: dict[str, Any], readings: dict[str, str] | None = None, expression: str = ""
) -> str:
    """The function that problem `data` asks for, as `readings` mean it.

    `expression` is returned in place of what the readings want, for an attempt that is wrong.
    """
    places = dict(zip("abc", data["arguments"]), k=data["k"])
    returned = (expression or KINDS[data["kind"]].write(readings or {})).format(**places)
    return f"def {data['function']}({', '.join(data['arguments'])}):\n    return {returned}"
