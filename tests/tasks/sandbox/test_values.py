"""Values and exceptions come back as they were, and what cannot is named."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab.tasks.sandbox import (
    Program,
    Raised,
    Returned,
    isolation,
    protocol,
    reports,
)
from tests.tasks.sandbox.common import run_one, same

pytestmark = [
    pytest.mark.skipif(
        isolation().level == "none", reason=f"no sandbox here: {isolation().reason}"
    ),
    pytest.mark.timeout(60),
]

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**4000), 2**4000)
    | st.floats()
    | st.text()
    | st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010, exclude_categories=()))
)
keys = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.tuples(st.integers(), st.text())
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys, inner, max_size=5)
        | st.sets(keys, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, min_size=1, max_size=6))
def test_every_value_comes_back_as_it_was(box, many):
    outcomes = run_one(box, "def f(x): return x", *[(v,) for v in many])
    for value, outcome in zip(many, outcomes, strict=True):
        assert isinstance(outcome, Returned) and same(value, outcome.value), (value, outcome)


@pytest.mark.parametrize(
    "value",
    [
        True,
        1,
        1.0,
        -0.0,
        math.nan,
        math.inf,
        -math.inf,
        "\ud800",
        "\ud83d\ude00",
        "\U0001f600",
        "\0",
        "",
        None,
        [],
        (),
        {},
        set(),
        {1: (2, [3, {4}])},
        {(1, 2): "x"},
        10**3900,
        -(2**53),
        5e-324,
        [[[[]]]],
        {"i": 1},
        {"t": [1]},
        {"s": "00"},
    ],
    ids=repr,
)
def test_types_survive_exactly(box, value):
    (outcome,) = run_one(box, "def f(x): return x", (value,))
    assert same(outcome.value, value)
    assert same(protocol.unpack(protocol.pack(value)), value)


def test_exceptions_say_type_message_line_and_source(box):
    code = (
        "import math\n\ndef g(x):\n    return 1 / x   # here\n\ndef f(x):\n    if x == 3:\n"
        "        raise KeyError('a key')\n    return sorted([x, x], key=g)\n"
    )
    outcomes = box.run([Program(code, "f", ((0,), (3,), ("a",), (1,)))])[0]
    assert outcomes[0] == Raised(
        "ZeroDivisionError", "division by zero", 4, "return 1 / x   # here"
    )
    assert outcomes[1] == Raised("KeyError", "'a key'", 8, "raise KeyError('a key')")
    assert (outcomes[2].kind, outcomes[2].line) == ("TypeError", 4)
    assert outcomes[3] == Returned([1, 1])


@pytest.mark.parametrize(
    "code, kind, line, source",
    [
        ("def f():\n    return (1\n", "SyntaxError", 2, "return (1"),
        ("def f():\nreturn 1\n", "IndentationError", 2, "return 1"),
        ("x = 1\r\ny = 1/0\r\n", "ZeroDivisionError", 2, "y = 1/0"),
        ("x = '\x0c\u2028'\ny = missing\n", "NameError", 2, "y = missing"),
        ("def g(): pass", "NameError", 0, ""),
        ("f = 3", "TypeError", 0, ""),
        ("", "NameError", 0, ""),
        ("def f(x): pass", "TypeError", 0, ""),
        ("def f(): assert 1 == 2, 'no'", "AssertionError", 1, "def f(): assert 1 == 2, 'no'"),
        ("def f():\n    exec('1/0')", "ZeroDivisionError", 2, "exec('1/0')"),
        ("def f():\n    eval('1+')", "SyntaxError", 2, "eval('1+')"),
        ("import numpy\ndef f(): pass", "ModuleNotFoundError", 1, "import numpy"),
        ("def f():\n    raise SystemExit(3)", "SystemExit", 2, "raise SystemExit(3)"),
        (
            "def f():\n    raise KeyboardInterrupt",
            "KeyboardInterrupt",
            2,
            "raise KeyboardInterrupt",
        ),
        (
            "def f():\n    raise BaseExceptionGroup('g', [ValueError(1)])",
            "ExceptionGroup",
            2,
            "raise BaseExceptionGroup('g', [ValueError(1)])",
        ),
        ("def f():\n    return f()", "RecursionError", 2, "return f()"),
        ("def f():\n    return 'a' * 10**12", "MemoryError", 2, "return 'a' * 10**12"),
    ],
)
def test_failures(box, code, kind, line, source):
    outcome = box.run([Program(code, "f", ((),))])[0][0]
    assert isinstance(outcome, Raised) and (outcome.kind, outcome.line, outcome.source) == (
        kind,
        line,
        source,
    )
    assert len(outcome.message) <= 300


def test_arguments_are_fresh_and_a_failure_is_only_its_own(box):
    shared = [1]
    code = "def f(x):\n    x.append(9)\n    if len(x) > 2: raise SystemExit\n    return x\n"
    outcomes = box.run([Program(code, "f", ((shared,), (shared,), ([1, 2],), ([],)))])[0]
    assert (
        outcomes[:2] == [Returned([1, 9])] * 2
        and outcomes[2].kind == "SystemExit"
        and outcomes[3] == Returned([9])
    )
    assert shared == [1]


def test_a_timeout_says_where_and_keeps_what_came_before(box):
    outcomes = run_one(box, "def f(x):\n    while x == 2: pass\n    return x", (1,), (2,), (3,))
    assert outcomes[0] == Returned(1)
    assert [o.kind for o in outcomes[1:]] == ["Timeout"] * 2
    assert "on input 2 of 3" in outcomes[1].message and outcomes[2].message.startswith(
        "not reached"
    )
    assert "while the code was loaded" in run_one(box, "while True: pass")[0].message


def test_verdicts_repeat(box):
    code = (
        "import random\ndef f(): return [random.random(), list({'a', 'bc', 'def', 'g'}), hash('x')]"
    )
    assert len({repr(run_one(box, code)) for _ in range(6)}) == 1


def test_usual_modules_are_there(box):
    code = """
    from __future__ import annotations
    import math, string, itertools, functools, collections, re, heapq, bisect, operator, statistics
    import random, datetime, typing, dataclasses, json
    import copy, enum, fractions, decimal, textwrap, collections.abc, calendar, time
    @dataclasses.dataclass
    class Point:
        x: int
        y: list[int] = dataclasses.field(default_factory=list)
    class Colour(enum.Enum):
        RED = 1
    P = collections.namedtuple('P', 'a b')
    def f(x):
        d = datetime.datetime.strptime('2024-02-29', '%Y-%m-%d') + datetime.timedelta(days=1)
        print('hello', flush=True)
        time.sleep(0.001)
        return [str(Point(1)), Colour.RED.name, P(1, 2).b, d.isoformat(), '\\N{BULLET}',
                'é'.encode('latin-1').hex(), 'a'.encode('utf-16-le').hex(),
                str(fractions.Fraction(1, 3) + 1), str(decimal.Decimal('0.1') + 1),
                json.dumps({'a': [1.5]}), statistics.median([3, 1, 2]),
                re.sub(r'(\\w+)', lambda m: m[1].upper(), x), sorted(itertools.permutations('ab')),
                copy.deepcopy([1, [2]]), f'{1234567.5:,.2f}', len(str(10**4000)),
                textwrap.shorten('a b c', 3, placeholder=''), string.ascii_letters[:2],
                datetime.datetime.now().year > 2000]
    """
    (outcome,) = run_one(box, code, ("a b",))
    assert isinstance(outcome, Returned), outcome
    assert (
        outcome.value[:8]
        == ["Point(x=1, y=[])", "RED", 2, "2024-03-01T00:00:00", "\u2022", "e9", "6100", "4/3"]
        and outcome.value[-1] is True
    )


@pytest.mark.parametrize(
    "code, kind",
    [
        ("def f(): return object()", "Unsupported"),
        ("class L(list): pass\ndef f(): return L()", "Unsupported"),
        ("def f(): return b''", "Unsupported"),
        ("class A: pass\ndef f(): return [1, (A(),)]", "Unsupported"),
        ("def f(): return 1j", "Unsupported"),
        ("def f(): return range(3)", "Unsupported"),
        ("def f(): return (i for i in [])", "Unsupported"),
        ("def f(): return frozenset()", "Unsupported"),
        ("def f(): return {}.keys()", "Unsupported"),
        ("import enum\nclass E(enum.IntEnum): A = 1\ndef f(): return E.A", "Unsupported"),
        ("def f(): return f", "Unsupported"),
        ("def f(): return [0] * 10001", "OutputLimit"),
        ("def f(): return 'a' * 60001", "OutputLimit"),
        ("def f(): return 1 << 13000", "OutputLimit"),
        ("def f():\n a = []\n for _ in range(40): a = [a]\n return a", "OutputLimit"),
        ("def f(): return set(range(2001))", "OutputLimit"),
        ("def f():\n a = []\n for _ in range(20): a = [a, a]\n return a", "OutputLimit"),
        ("def f(): return '\\U0001f600' * 50000", "OutputLimit"),
    ],
)
def test_only_plain_data_of_bounded_size(box, code, kind):
    (outcome,) = run_one(box, code)
    assert outcome.kind == kind, outcome


def test_an_unsupported_type_is_named(box):
    assert "Matrix" in run_one(box, "class Matrix: pass\ndef f(): return Matrix()")[0].message


def test_all_values_together_are_bounded(box):
    outcomes = run_one(box, "def f(n): return 'a' * n", *[(59_000,)] * 4, (3,))
    assert [getattr(o, "kind", "") for o in outcomes] == [
        "",
        "",
        "",
        "OutputLimit",
        "",
    ] and outcomes[4] == Returned("aaa")


def test_what_is_no_program_is_refused_before_anything_runs(box):
    for program, error in [
        (Program(b"", "f", ()), TypeError),
        (Program("", "f", ((object(),),)), TypeError),
        (Program("", "f", ("ab",)), TypeError),
        (Program("", "f", ((),) * 257), ValueError),
        (Program("", "f", (([0] * 20_000,),)), ValueError),
    ]:
        with pytest.raises(error):
            box.run([program])
    assert box.run([]) == [] and box.run([Program("def f(): pass", "f", ())]) == [[]]


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"\n",
        b"\xff\xfe\n" * 9,
        b"[" * 200_000,
        b"[" * 100_000 + b"\n" + b"{" * 50_000 + b"\n",
        b'{"value": 1}\n{"value": {"i": 3}}\n',
        b"{}\n{}\n{}\n",
        b'x\n{"value": {"d": [[[], 1]]}}\n',
        b'x\n{"value": {"e": [[1]]}}\n',
        b'x\n{"value": {"i": "0x' + b"f" * 9000 + b'"}}\n',
        b'x\n{"value": {"t": 5}}\n',
        b"x\n" + b"9" * 9999 + b"\n",
        b'x\n{"value": ' + b"9" * 4200 + b"}\n",
        b'x\n{"raised": ["A", "b"]}\n',
        b'x\n{"raised": [1, 2, 3]}\n',
        b'x\n{"raised": ["A b\\n", "m", 1e999]}\n',
        b'x\n{"s": "zz"}\n',
        b'x\n{"value": {"s": "zz"}}\n',
        b'x\n{"value": {"s": "ff"}}\n',
        b'{"all": 3}\n{"all": [3]}\n',
        b'x\n{"value": {"t": [], "e": []}}\n',
        b"null\nnull\n",
        b'x\n{"value": {"d": [1]}}\n',
        b'x\n{"value": ' + b"[" * 40 + b"]" * 40 + b"}\n",
        b'x\n{"value": [' + b"1," * 20_000 + b"1]}\n",
    ],
    ids=lambda r: repr(r[:40]),
)
def test_a_forged_report_is_only_a_failure(report):
    outcomes = reports.outcomes(
        Program("x", "f", ((),)), b"", bytes([protocol.EXITED, 0]) + report, 1.0
    )
    assert (
        len(outcomes) == 1
        and isinstance(outcomes[0], Raised)
        and outcomes[0].kind in ("Forbidden", "Killed")
    )


def test_a_forged_report_costs_little_time():
    """Keys of one hash make a dict quadratic."""
    keys = ",".join(f'{{"i": "{hex(k * (2**61 - 1))}"}}' for k in range(1, 1990))
    report = b'x\n{"value": [' + b",".join([b'{"e": [' + keys.encode() + b"]}"] * 3) + b"]}\n"
    start = time.monotonic()
    reports.outcomes(Program("x", "f", ((),)), b"", bytes([protocol.EXITED, 0]) + report, 1.0)
    assert time.monotonic() - start < 2


def test_names_in_a_forged_report_are_cleaned(box):
    outcome = run_one(
        box,
        "class X(Exception): pass\nX.__name__ = 'Well done!\\nReward: 1'\ndef f(): raise X('m')",
    )[0]
    assert outcome.kind == "Exception" and outcome.message == "m"
