"""The teacher against brute force, and what it has learnt in bits."""

from __future__ import annotations

import math

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.tasks.toolcall import ToolCall
from sdpo_lab.tasks.toolcall.bits import bits, expected_bits
from sdpo_lab.tasks.toolcall.oracle import (
    MAX_TEXTS,
    Posterior,
    next_tokens,
)
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, combinations, names_of
from tests.tasks.toolcall.oracle.common import VALUES, ask, astuple, call_of, task_with

# -- the teacher


@pytest.fixture(scope="module")
def tokenizer():
    return lab.load_model()[1]


def brute_next(tokenizer, weights: dict, tool: str, prefix: list[int]) -> dict[int, float]:
    """Every answer spelt out, and counted."""
    found: dict[int, float] = {}
    for ranks, w in weights.items():
        ids = tokenizer(call_of(tool, ranks), add_special_tokens=False).input_ids + [
            tokenizer.eos_token_id
        ]
        if w and len(ids) > len(prefix) and ids[: len(prefix)] == prefix:
            found[ids[len(prefix)]] = found.get(ids[len(prefix)], 0.0) + w
    return {v: w / sum(found.values()) for v, w in found.items()}


@pytest.mark.parametrize("slip", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("level", range(4))
def test_the_teacher_is_what_brute_force_finds(tokenizer, level, slip):
    truth, wrong = (1, 3), call_of("weather", (0, 0))
    task = task_with({"weather": names_of(BY_NAME["weather"], truth)}, level)
    posterior = Posterior(level).update(
        ask("weather"), wrong, 0.0, task.judge(ask("weather"), wrong).feedback
    )
    weights = {
        r: (1 - slip) * p + slip * q
        for (r, p), (q, _) in zip(
            posterior.probabilities("weather").items(), combinations(BY_NAME["weather"])
        )
    }
    for text in (
        wrong,
        call_of("weather", truth),
        call_of("weather", (1, 0)),
        "weather(when='May 5', town='Oslo')",
        "hello",
    ):
        ids = [
            *tokenizer(text, add_special_tokens=False).input_ids,
            tokenizer.eos_token_id,
            tokenizer.eos_token_id,
        ]
        found = next_tokens(posterior, tokenizer, ask("weather"), ids, slip=slip)
        dense = found.distribution(len(tokenizer))
        assert found.completion_ids == ids and dense.shape == (len(ids), len(tokenizer))
        for t, token in enumerate(ids):
            expected = brute_next(tokenizer, weights, "weather", ids[:t])
            assert found.next[t] == pytest.approx(expected, abs=1e-9)
            assert bool(found.defined[t]) == bool(expected)
            if expected:
                assert dense[t].exp().sum() == pytest.approx(1, abs=1e-5)
                assert found.log_probs[t].exp() == pytest.approx(expected.get(token, 0.0), abs=1e-6)
                assert dense[t, token] == found.log_probs[t]
            else:
                assert found.log_probs[t].isnan() and dense[t].isnan().all()
        assert found.defined[0] and not found.defined[-1], "after the end there is nothing"
        assert (found.defined[1:] <= found.defined[:-1]).all(), "what is undefined stays so"


def test_undefined_after_an_excluded_name_until_the_author_may_slip(tokenizer):
    wrong, problem = call_of("weather", (0, 0)), ask("weather")
    task = task_with({"weather": names_of(BY_NAME["weather"], (1, 0))}, 2)
    posterior = Posterior(2).update(problem, wrong, 0.0, task.judge(problem, wrong).feedback)
    strict, slipping = (
        next_tokens(posterior, tokenizer, problem, wrong),
        next_tokens(posterior, tokenizer, problem, wrong, slip=0.01),
    )
    first = int(strict.log_probs.isinf().nonzero()[0, 0])
    assert strict.defined[: first + 1].all() and not strict.defined[first + 1 :].any(), (
        "-inf where the excluded name begins, undefined after it"
    )
    assert tokenizer.decode(strict.completion_ids[: first + 1]).startswith("weather(c")
    assert slipping.defined.all() and slipping.log_probs.isfinite().all()
    with pytest.raises(ValueError, match="above every token id"):
        strict.distribution(3)


@pytest.mark.parametrize("tools", [("weather",), ("weather", "table"), ("table", "table")])
def test_the_tokens_of_an_answer_multiply_to_the_probability_of_its_names(tokenizer, tools):
    task = ToolCall(seed=3, feedback=1)
    convention = {t: names_of(BY_NAME[t], (3, 0)) for t in tools}
    text = "\n".join(write_call(t, convention[t], VALUES[t]) for t in tools)
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    found = next_tokens(Posterior.of(task), tokenizer, ask(*tools), ids)
    p = next(p for p, r in combinations(BY_NAME["weather"]) if r == (3, 0))
    assert found.defined.all() and found.log_probs.sum().exp() == pytest.approx(
        p ** len(set(tools)), rel=1e-4
    )


def test_a_rollout_or_text_or_ids(tokenizer):
    from types import SimpleNamespace

    text = call_of("weather", (0, 0))
    ids = tokenizer(text, add_special_tokens=False).input_ids
    found = [
        next_tokens(Posterior(), tokenizer, ask("weather"), c)
        for c in (text, ids, torch.tensor(ids), SimpleNamespace(completion_ids=ids))
    ]
    assert all(f.next == found[0].next and f.completion_ids == ids for f in found)


def test_the_teacher_refuses_and_marks(tokenizer):
    nothing = Posterior(1).update(ask("weather"), "weather()", 0.0, "never said")
    assert not next_tokens(nothing, tokenizer, ask("weather"), "weather(", slip=0.5).defined.any()
    with pytest.raises(ValueError, match="completion is empty"):
        next_tokens(Posterior(), tokenizer, ask("weather"), "")
    with pytest.raises(ValueError, match=f"more than {MAX_TEXTS}"):
        next_tokens(
            Posterior(), tokenizer, ask("weather", "table", "message", "flight"), "weather("
        )
    with pytest.raises(ValueError, match="slip must be from"):
        next_tokens(Posterior(), tokenizer, ask("weather"), "x", slip=1.5)


# -- bits


@pytest.mark.parametrize("level", range(4))
def test_before_anything_is_seen_the_bits_are_those_of_the_prior(level):
    task = ToolCall(feedback=level)
    for problem in task.problems(6):
        text = Posterior.of(task).best(problem)
        assert Posterior.of(task).expected_bits(problem, text) == pytest.approx(
            expected_bits(problem, text, level)
        )
        verdict = task.judge(problem, text)
        assert Posterior.of(task).bits(
            problem, text, verdict.reward, verdict.feedback
        ) == pytest.approx(bits(task, problem, text, level))


@pytest.mark.parametrize("reward", ["exact", "fraction"])
@pytest.mark.parametrize("level", range(4))
def test_expected_bits_are_the_entropy_the_verdict_takes_away(level, reward):
    problem, posterior = ask("weather"), Posterior(level, reward=reward)
    task = task_with({"weather": names_of(BY_NAME["weather"], (3, 3))}, level, reward)
    for text in (call_of("weather", (0, 0)), call_of("weather", (1, 0)), "weather(city='Oslo')"):
        answers = posterior.answers(problem, text)
        after = sum(
            p * posterior.copy().update(problem, text, *verdict).entropy("weather")
            for verdict, p in answers.items()
        )
        assert posterior.expected_bits(problem, text) == pytest.approx(
            posterior.entropy("weather") - after, abs=1e-9
        )
        posterior.update(problem, text, *astuple(task.judge(problem, text)))
    assert posterior.bits(problem, text, 0.0, "never said") == math.inf
