"""Which tokens of an attempt are names, and what is true of them."""

import pytest

import sdpo_lab as lab
from sdpo_lab.analysis.written import written_names

TASK = lab.load_task("toolcall", seed=100)


@pytest.fixture
def weather(tiny):
    """names(text, feedback) of an attempt at a call of `weather`, with the problem and its right
    names."""
    problem = next(p for p in TASK.problems(60, seed=1) if p.data["calls"][0]["tool"] == "weather")
    model, tokenizer = tiny

    def names(text):
        c = lab.credit(model, tokenizer, problem, text, feedback="no")
        return written_names(TASK, problem, c), c

    return names, problem, TASK.convention["weather"], problem.data["calls"][0]["values"]


def test_names_are_found_with_their_tokens_and_their_truth(weather):
    names, problem, right, values = weather
    (first, one), (second, two) = list(right.items())[:2]
    found, c = names(f"  weather({one}={values[first]!r}, nonsense={values[second]!r})")
    assert [(w.name, w.right, w.reported) for w in found] == [
        (one, True, False),
        ("nonsense", False, True),
    ]
    for w in found:
        piece = "".join(c.tokens[t] for t in w.tokens)
        assert w.name in piece and len(piece) < len(w.name) + 6
        assert w.advantage(c) == pytest.approx(float(sum(c.advantages[t] for t in w.tokens)))


def test_only_the_first_wrong_name_is_reported_and_a_right_name_needs_its_value(weather):
    names, problem, right, values = weather
    (first, one), (second, two) = list(right.items())[:2]
    found, _ = names(f"weather(a={values[first]!r}, b={values[second]!r})")
    assert [w.reported for w in found] == [True, False] and not any(w.right for w in found)
    swapped, _ = names(f"weather({one}={values[second]!r}, {two}={values[first]!r})")
    assert not any(w.right or w.reported for w in swapped), (
        "the judge complains of a value, not of a name"
    )


def test_bytes_and_not_characters_are_counted(weather):
    names, problem, right, values = weather
    found, c = names("weather(a='Zürich 👩', nonsense=1)")
    assert [w.name for w in found] == ["a", "nonsense"] and "nonsense" in "".join(
        c.tokens[t] for t in found[1].tokens
    )


@pytest.mark.parametrize(
    "text", ["weather(", "taxi(a=1)", "weather(a=1)\nweather(b=2)", "weather", "Sure! weather(a=1)"]
)
def test_what_is_no_call_of_the_tool_has_no_names(weather, text):
    assert weather[0](text)[0] == []


def test_several_calls_are_refused(tiny):
    task = lab.load_task("toolcall", seed=100, calls=2)
    problem = task.problems(1)[0]
    c = lab.credit(*tiny, problem, "weather(a=1)", feedback="no")
    with pytest.raises(ValueError, match="this problem asks for 2. Use load_task"):
        written_names(task, problem, c)
