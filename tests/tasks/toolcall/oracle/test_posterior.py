"""The posterior against brute force: the real judge and every convention."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab.tasks.toolcall import ToolCall
from sdpo_lab.tasks.toolcall.oracle import (
    FallibleAuthor,
    NoPosterior,
    Posterior,
)
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, combinations, names_of
from tests.tasks.toolcall.oracle.common import (
    VALUES,
    ask,
    astuple,
    attempt_texts,
    brute_force,
    call_of,
    task_with,
)

# -- the posterior


@pytest.mark.parametrize("reward", ["exact", "fraction"])
@pytest.mark.parametrize("level", range(4))
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_the_posterior_is_what_brute_force_finds(level, reward, data):
    tool = data.draw(st.sampled_from(["weather", "table"]))
    truth = data.draw(st.sampled_from([r for _, r in combinations(BY_NAME[tool])]))
    attempts = data.draw(st.lists(attempt_texts(tool), min_size=0, max_size=4))
    task, problem, posterior = (
        task_with({tool: names_of(BY_NAME[tool], truth)}, level, reward),
        ask(tool),
        Posterior(level, reward=reward),
    )
    seen = [(text, task.judge(problem, text)) for text in attempts]
    for text, verdict in seen:
        posterior.update(problem, text, verdict.reward, verdict.feedback)
    expected = brute_force(tool, level, reward, seen)
    found = posterior.probabilities(tool)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[truth] > 0 and not posterior.empty, "the truth is never excluded"
    assert posterior.entropy(tool) == pytest.approx(
        -sum(p * math.log2(p) for p in expected.values() if p), abs=1e-9
    )
    for role, names in posterior.names(tool).items():
        for name, p in names.items():
            assert p == pytest.approx(
                sum(q for r, q in expected.items() if names_of(BY_NAME[tool], r)[role] == name),
                abs=1e-12,
            )
    top = max(expected, key=expected.get)
    assert posterior.accuracy(problem) == pytest.approx(expected[top])
    assert posterior.best(problem) == call_of(tool, top)
    untouched = Posterior(level).entropy("message")
    assert posterior.entropy("message") == untouched, (
        "an attempt at one tool tells nothing of another"
    )


@pytest.mark.parametrize("level", range(4))
def test_three_arguments_too(level):
    truth, tries = (0, 2, 0), [(0, 0, 0), (1, 0, 0), (3, 3, 0), (0, 2, 2)]
    task, problem, posterior = (
        task_with({"flight": names_of(BY_NAME["flight"], truth)}, level),
        ask("flight"),
        Posterior(level),
    )
    seen = [(call_of("flight", r), task.judge(problem, call_of("flight", r))) for r in tries]
    for text, verdict in seen:
        posterior.update(problem, text, verdict.reward, verdict.feedback)
    assert posterior.probabilities("flight") == pytest.approx(
        brute_force("flight", level, "exact", seen), abs=1e-12
    )


def test_a_solution_ends_the_doubt():
    for level in range(4):
        task = ToolCall(feedback=level)
        posterior = Posterior.of(task)
        for problem in task.problems(120):
            posterior.update(problem, task.solution(problem), 1.0)
        assert posterior.entropy() == pytest.approx(0, abs=1e-9)
        for problem in task.problems(50, "test"):
            assert (
                posterior.accuracy(problem) == 1
                and task.judge(problem, posterior.best(problem)).reward == 1
            )


def test_a_copy_learns_by_itself():
    a = Posterior(1)
    b = a.copy().update(ask("weather"), call_of("weather", (0, 0)), 1.0)
    assert (
        a.entropy("weather") > 1 and b.entropy("weather") == 0 and "weather: 0.00 bits" in repr(b)
    )


@pytest.mark.parametrize("novelty", ["combination", "pair", "nonsense"])
@pytest.mark.parametrize("level", [2, 3])
def test_outside_the_prior_there_is_no_posterior(novelty, level):
    task = ToolCall(feedback=level, novelty=novelty)
    posterior, problems = Posterior.of(task), task.problems(60)
    for problem in problems:
        if problem.data["calls"][0]["tool"] not in posterior.empty:
            text = posterior.best(problem)
            verdict = task.judge(problem, text)
            posterior.update(problem, text, verdict.reward, verdict.feedback)
    assert set(posterior.empty) == set(task.convention), "eight tools, and pairs are new for each"
    tool = posterior.empty[0]
    problem = next(p for p in problems if p.data["calls"][0]["tool"] == tool)
    for question in (posterior.probabilities, posterior.names, posterior.entropy):
        with pytest.raises(NoPosterior, match="outside the prior"):
            question(tool)
    for question in (
        posterior.best,
        posterior.accuracy,
        lambda p: posterior.answers(p, "x()"),
        lambda p: posterior.entropy(),
    ):
        with pytest.raises(NoPosterior, match="outside the prior"):
            question(problem)
    assert "empty" in repr(posterior)
    posterior.update(problem, "x(", 0.0, say_syntax(level))  # and it stays
    assert tool in posterior.empty


def say_syntax(level: int) -> str:
    return ToolCall(feedback=level).judge(ask("weather"), "x(").feedback


def test_words_no_judge_says_leave_nothing():
    assert Posterior(1).update(
        ask("weather"), call_of("weather", (0, 0)), 0.0, "try again"
    ).empty == ("weather",)
    assert Posterior(1).update(
        ask("weather", "table"), "weather()\ntable()", 0.0, "try again"
    ).empty == ("weather", "table")
    both = call_of("weather", (0, 0)) + "\n" + call_of("table", (0, 0))
    said = ToolCall(feedback=1).judge(ask("weather", "table"), both).feedback
    assert (
        said.startswith("line 1")
        and not Posterior(1).update(ask("weather", "table"), both, 0.0, said).empty
    )
    assert Posterior(1).update(ask("weather", "table"), both, 1.0, said).empty == (
        "weather",
        "table",
    ), "an error and a reward"


def test_refusals():
    with pytest.raises(ValueError, match="tool must be one of"):
        Posterior().probabilities("taxi")
    with pytest.raises(ValueError, match="feedback must be one of"):
        Posterior(4)
    with pytest.raises(ValueError, match="asks for 2"):
        Posterior().answers(ask("weather", "table"), "x()")
    with pytest.raises(ValueError, match="asks for 2"):
        Posterior().update_from_feedback(ask("weather", "table"), "x")


# -- several calls an attempt


def joint(level: int, reward: str, tools: tuple, seen: list) -> dict:
    """Brute force over the names of two tools together: {(ranks, ranks): probability}."""
    a, b = dict.fromkeys(tools)
    kept = {}
    for (p, r), (q, s) in itertools.product(combinations(BY_NAME[a]), combinations(BY_NAME[b])):
        task = task_with({a: names_of(BY_NAME[a], r), b: names_of(BY_NAME[b], s)}, level, reward)
        kept[r, s] = p * q * all(task.judge(ask(*tools), text) == verdict for text, verdict in seen)
    return {k: p / sum(kept.values()) for k, p in kept.items()}


@pytest.mark.parametrize("tools", [("weather", "table"), ("weather", "table", "weather")])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_messages_about_several_calls_factorise(level, tools):
    rng = random.Random(level)
    for _ in range(4):
        truth = {t: rng.choice(combinations(BY_NAME[t]))[1] for t in dict.fromkeys(tools)}
        task = task_with({t: names_of(BY_NAME[t], r) for t, r in truth.items()}, level)
        posterior, seen = Posterior(level), []
        for i in range(3):
            guess = [
                truth[t] if rng.random() < 0.6 else tuple(rng.choices(range(4), k=2)) for t in tools
            ]
            text = "\n".join(call_of(t, g) for t, g in zip(tools, guess))[
                : None if i else -1
            ]  # the first is cut short
            seen.append((text, task.judge(ask(*tools), text)))
            posterior.update(ask(*tools), text, seen[-1][1].reward, seen[-1][1].feedback)
        a, b = dict.fromkeys(tools)
        product = {
            (r, s): p * q
            for (r, p), (s, q) in itertools.product(
                posterior.probabilities(a).items(), posterior.probabilities(b).items()
            )
        }
        assert product == pytest.approx(joint(level, "exact", tools, seen), abs=1e-12)


@pytest.mark.parametrize("level, reward", [(0, "exact"), (0, "fraction"), (2, "fraction")])
def test_what_ties_two_tools_together_is_refused_unless_one_is_certain(level, reward):
    tools, truth = ("weather", "table"), {"weather": (1, 0), "table": (0, 3)}
    task = task_with({t: names_of(BY_NAME[t], r) for t, r in truth.items()}, level, reward)
    both = "\n".join(call_of(t, (0, 0)) for t in tools)
    verdict = task.judge(ask(*tools), both)
    posterior = Posterior(level, reward=reward)
    with pytest.raises(ValueError, match="weather, table.*ties them together"):
        posterior.update(ask(*tools), both, verdict.reward, verdict.feedback)
    posterior.update(ask("weather"), call_of("weather", (1, 0)), 1.0)
    seen = [
        (call_of("weather", (1, 0)) + "\n" + call_of("table", r)) for r in ((0, 0), (1, 0), (3, 3))
    ]
    for text in seen:
        verdict = task.judge(ask(*tools), text)
        posterior.update(ask(*tools), text, verdict.reward, verdict.feedback)
    single = task_with({"table": names_of(BY_NAME["table"], truth["table"])}, level, reward)
    alone = [
        (text.split("\n")[1], single.judge(ask("table"), text.split("\n")[1])) for text in seen
    ]
    # a fraction of two calls tells the same as of one, the other being right
    assert posterior.probabilities("table") == pytest.approx(
        brute_force("table", level, reward, alone), abs=1e-12
    )
    # right in both is no riddle, and neither is what is no call
    assert Posterior(level, reward=reward).update(ask(*tools), both, 1.0).accuracy(ask(*tools)) == 1
    noise = Posterior(level, reward=reward).update(
        ask(*tools), "weather(", *astuple(task.judge(ask(*tools), "weather("))
    )
    assert noise.entropy() == pytest.approx(Posterior().entropy())


# -- feedback without the attempt


@pytest.mark.parametrize("level", range(4))
def test_hearing_is_summing_over_what_the_author_may_have_written(level):
    author, problem, tool = FallibleAuthor(), ask("weather"), "weather"
    combos = [r for _, r in combinations(BY_NAME[tool])]
    likelihood: dict[str, np.ndarray] = {}
    for i, truth in enumerate(combos):
        task, wrong = task_with({tool: names_of(BY_NAME[tool], truth)}, level), 0.0
        for guess in itertools.product(range(4), repeat=2):
            p = math.prod(
                0.2 * (g == t) + 0.8 * (0.55, 0.2, 0.13, 0.12)[g] for g, t in zip(guess, truth)
            )
            names = names_of(BY_NAME[tool], guess)
            texts = [
                (0.89, call_of(tool, guess)),
                (0.03, "weather("),
                (0.03, f"weather({names['city']}='Oslo')"),
            ]
            texts += [
                (0.025, write_call(tool, names, VALUES[tool] | {role: "else"})) for role in names
            ]
            for share, text in texts:
                verdict = task.judge(problem, text)
                if verdict.reward == 0:
                    likelihood.setdefault(verdict.feedback, np.zeros(len(combos)))[i] += p * share
                    wrong += p * share
        for row in likelihood.values():
            row[i] /= wrong
    assert sum(likelihood.values()) == pytest.approx(np.ones(len(combos)))
    prior = np.array([p for p, _ in combinations(BY_NAME[tool])])
    for feedback, row in likelihood.items():
        assert author.likelihood(
            problem.data["calls"][0], combos, level, feedback
        ) == pytest.approx(row)
        found = Posterior(level).update_from_feedback(problem, feedback)
        assert list(found.probabilities(tool).values()) == pytest.approx(
            prior * row / (prior * row).sum()
        )
    if level == 0:
        assert Posterior(0).update_from_feedback(problem, "").entropy(tool) == pytest.approx(
            Posterior().entropy(tool)
        ), "wrong alone tells nothing: it begins anew until it is"


def test_the_attempt_adds_to_the_feedback():
    task = task_with({"weather": names_of(BY_NAME["weather"], (1, 0))}, 1)
    text = call_of("weather", (0, 0))
    feedback = task.judge(ask("weather"), text).feedback
    heard, read = (
        Posterior(1).update_from_feedback(ask("weather"), feedback),
        Posterior(1).update(ask("weather"), text, 0.0, feedback),
    )
    assert "'city'" in feedback
    for posterior in (heard, read):
        assert posterior.names("weather")["city"]["city"] == 0
    assert Posterior(1).update_from_feedback(ask("weather"), "no judge says so").empty == (
        "weather",
    )
