"""The learner's curve against learners played out."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sdpo_lab.core.task import Problem
from sdpo_lab.tasks.toolcall import ToolCall
from sdpo_lab.tasks.toolcall.oracle import (
    Posterior,
    answer_table,
    chain,
    learner_curve,
)
from sdpo_lab.tasks.toolcall.requests import write_call
from sdpo_lab.tasks.toolcall.world import BY_NAME, combinations, names_of
from tests.tasks.toolcall.oracle.common import ask, astuple, task_with


@pytest.mark.parametrize("tool", ["weather", "flight"])
@pytest.mark.parametrize("level", range(4))
def test_the_chain_steps_as_the_posterior_does(level, tool):
    combos = combinations(BY_NAME[tool])
    said = answer_table(BY_NAME[tool], tuple(r for _, r in combos), level)
    for i in range(0, len(combos), 1 if tool == "weather" else 9):
        task, posterior, right = (
            task_with({tool: names_of(BY_NAME[tool], combos[i][1])}, level),
            Posterior(level),
            [],
        )
        for _ in range(8):
            text = posterior.best(ask(tool))
            verdict = task.judge(ask(tool), text)
            right.append(verdict.reward)
            posterior.update(ask(tool), text, verdict.reward, verdict.feedback)
        assert chain(np.array([p for p, _ in combos]), said, i, 7, [0.0, 1.0], 0) == pytest.approx(
            right
        )


def simulate(
    task: ToolCall, attempts: int, batch: int, group: int, within: str, rng: random.Random
) -> list[float]:
    """The learner played out with the real judge: accuracy after 0, `batch`, 2 `batch`, ...
    attempts."""
    posterior, curve = Posterior.of(task), []
    problems = {t.name: ask_any(t) for t in task.tools}
    for done in range(0, attempts + 1, batch):
        curve.append(np.mean([task.judge(p, posterior.best(p)).reward for p in problems.values()]))
        tried: dict[str, int] = {}
        seen = []
        for _ in range(batch // group):
            tool = rng.choice(list(problems))
            known = posterior.probabilities(tool)
            ranked = sorted((r for r, p in known.items() if p), key=lambda r: -known[r])
            for _ in range(group):
                nth = tried.get(tool, 0) % len(ranked) if within == "distinct" else 0
                tried[tool] = tried.get(tool, 0) + 1
                call = problems[tool].data["calls"][0]
                seen.append(
                    (
                        problems[tool],
                        write_call(tool, names_of(BY_NAME[tool], ranked[nth]), call["values"]),
                    )
                )
        for problem, text in seen:
            posterior.update(problem, text, *astuple(task.judge(problem, text)))
    return curve


def ask_any(tool) -> Problem:
    return Problem(
        tool.name,
        [],
        {
            "calls": [
                {
                    "tool": tool.name,
                    "values": {a.role: f"v{i}" for i, a in enumerate(tool.arguments)},
                }
            ]
        },
    )


@pytest.mark.parametrize(
    "level, batch, group, within",
    [
        (0, 1, 1, "same"),
        (1, 1, 1, "distinct"),
        (1, 8, 2, "distinct"),
        (1, 8, 1, "distinct"),
        (1, 8, 8, "same"),
        (3, 4, 1, "same"),
    ],
)
def test_the_curve_is_the_mean_of_learners_played_out(level, batch, group, within):
    task, runs = ToolCall(seed=1, feedback=level), 16
    curve = learner_curve(task, 32, batch=batch, group=group, within=within)
    rng = random.Random(0)
    played = np.array([simulate(task, 32, batch, group, within, rng) for _ in range(runs)])
    expected = curve.accuracy[::batch]
    spread = np.maximum(played.std(0, ddof=1), 0.05) / runs**0.5
    assert (abs(played.mean(0) - expected) < 4 * spread).all()
    assert (curve.accuracy == np.repeat(expected, batch)[:33]).all(), (
        "nothing is learned within a batch"
    )


@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("within", ["same", "distinct"])
def test_the_curve_climbs_to_one(within, batch):
    for level in range(4):
        curve = learner_curve(ToolCall(feedback=level), 400 * batch, batch=batch, within=within)
        assert (np.diff(curve.accuracy) >= -1e-12).all() and curve.accuracy[-1] == pytest.approx(
            1, abs=1e-6
        )
        assert (
            curve.accuracy[0] <= curve.accuracy[batch - 1] == curve.accuracy[0]
            and (curve.error == 0).all()
        )


@pytest.mark.parametrize("base", [0.02, 0.05, 0.2])
def test_more_feedback_needs_fewer_attempts_and_the_accepted_names_fewest(base):
    curves = [
        learner_curve(ToolCall(feedback=level, base_accuracy=base), 600, conventions=10)
        for level in range(4)
    ]
    # names are never shared between the arguments of a tool, so to know which are accepted is to
    # know all; setting 3 tells one at a time
    for less, more in ((0, 1), (1, 3), (3, 2)):
        assert (curves[less].accuracy <= curves[more].accuracy + 1e-9).all()
        assert curves[less].needed() >= curves[more].needed()
    assert base == 0.2 or curves[0].needed() > curves[1].needed() > curves[3].needed()


def test_a_larger_batch_never_helps_and_distinct_attempts_do():
    for level in range(4):
        task = ToolCall(feedback=level, base_accuracy=0.02)
        curves = {
            key: learner_curve(task, 640, batch=key[0], group=key[1], within=key[2]).accuracy
            for key in [
                (1, 1, "same"),
                (8, 8, "same"),
                (8, 8, "distinct"),
                (64, 8, "same"),
                (64, 8, "distinct"),
                (64, 1, "distinct"),
            ]
        }
        for batch in (8, 64):
            assert (curves[batch, 8, "distinct"] >= curves[batch, 8, "same"] - 1e-9).all()
            assert (curves[1, 1, "same"] >= curves[batch, 8, "same"] - 1e-9).all()
        assert (curves[8, 8, "distinct"][::64] >= curves[64, 8, "distinct"][::64] - 1e-9).all()


def test_a_setting_of_the_curve_by_hand():
    """Accepted names known after one attempt at each tool: 1 - (7/8)^n, and of batches of 8
    problems 1 - (7/8)^8k."""
    task = ToolCall(feedback=2)
    n = np.arange(65)
    assert learner_curve(task, 64).accuracy == pytest.approx(1 - (7 / 8) ** n)
    assert learner_curve(task, 64, batch=64, group=1).accuracy[-1] == pytest.approx(
        1 - (7 / 8) ** 64
    )
    assert learner_curve(task, 640, batch=64, within="same").accuracy[::64] == pytest.approx(
        1 - (7 / 8) ** (8 * np.arange(11))
    )
    assert learner_curve(task, 50).needed(0.9) == 18 and learner_curve(task, 5).needed(0.9) is None


def test_a_single_tool_by_hand():
    """Every attempt is this tool's: by reward alone the learner goes down the list, one a batch or
    a batch at once."""
    for base in (0.01, 0.05, 0.2):
        task = ToolCall(feedback=0, novelty="tool", base_accuracy=base)
        problem, posterior, place = ask_any(task.tools[0]), Posterior.of(task), 0
        while task.judge(problem, posterior.best(problem)).reward == 0:
            posterior.update(problem, posterior.best(problem), 0.0)
            place += 1
        one = learner_curve(task, 20).accuracy
        assert one.tolist() == [float(n >= place) for n in range(21)]
        assert (
            learner_curve(task, 160, batch=8, group=1, within="same").accuracy[::8].tolist()
            == one.tolist()
        )
        for batch in range(1, 20):
            tried = learner_curve(task, batch, batch=batch, group=1).accuracy[-1]
            assert tried == float(batch >= place), (
                "all before it have been excluded, or it was among them"
            )


def test_the_learner_refuses():
    with pytest.raises(ValueError, match="one call"):
        learner_curve(ToolCall(calls=2))
    for novelty in ("combination", "pair", "nonsense"):
        with pytest.raises(ValueError, match="outside the prior"):
            learner_curve(ToolCall(novelty=novelty))
    with pytest.raises(ValueError, match="multiple of group"):
        learner_curve(ToolCall(), batch=8, group=3)
    with pytest.raises(ValueError, match="Did you mean 'distinct'"):
        learner_curve(ToolCall(), within="distinctly")
