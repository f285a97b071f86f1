"""What could a teacher be shown of an attempt? The real feedback, and others to compare it with."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sdpo_lab.analysis.credit import given_config
from sdpo_lab.core.checks import check_kind, check_range, check_task
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import remove_thinking
from sdpo_lab.core.rollouts import Rollout, judge_rollouts
from sdpo_lab.core.task import Problem, as_verdict
from sdpo_lab.tasks import load_task
from sdpo_lab.tasks.toolcall.world import nonsense_name

PRESETS = (
    "the real feedback",
    "another problem's feedback",
    "unrelated feedback",
    "nonsense",
    "the answer itself",
    "a sibling's success",
    "nothing",
)


def contexts(
    task: Any,
    problem: Problem,
    completion: str | Rollout,
    *,
    rollouts: Iterable[Rollout] = (),
    seed: int = 0,
    config: SDPOConfig | None = None,
) -> dict[str, dict[str, str]]:
    """What a teacher of this attempt could be shown: {name: {"feedback": text, "solution": text}},
    those of `PRESETS` there are, in their order.

    "the real feedback"           what the judge says of this attempt, or said of a judged
                                  `Rollout`; missing where it says nothing
    "another problem's feedback"  what it said of an attempt at another problem, of another kind
                                  where there is one (another tool); needs `rollouts`
    "unrelated feedback"          what the judge of another task said
    "nonsense"                    made-up words, as many as the real feedback has
    "the answer itself"           `task.solution(problem)`, of tasks that have it
    "a sibling's success"         an attempt at this problem that succeeded, not this one; needs
                                  `rollouts`
    "nothing"                     the question alone

    rollouts  attempts at this and other problems; they are judged where they have not been
    seed      which of several attempts, and which words
    config    its threshold of success, and whether a demonstration keeps its thoughts; the preset
              "laptop" when None
    """
    check_task(task, ("judge",))
    check_kind("problem", problem, Problem, "a Problem, as task.problems() gives them")
    check_kind("completion", completion, (str, Rollout), "a text or a Rollout")
    config = given_config(config)
    check_range("seed", seed, int, 0, 2**63 - 1)
    attempts_given = "attempts as lab.rollout returns them"
    check_kind("rollouts", rollouts, Iterable, attempts_given)
    rollouts = list(rollouts)
    for r in rollouts:
        check_kind("rollouts", r, Rollout, attempts_given)

    judged = isinstance(completion, Rollout) and completion.reward is not None
    text = completion.text if isinstance(completion, Rollout) else completion
    real = completion.feedback if judged else as_verdict(task.judge(problem, text)).feedback
    rollouts = judge_rollouts(task, [replace(r) for r in rollouts])
    # the draws of `rng`, in this order, are part of what a seed means
    rng = random.Random(f"contexts/{seed}/{problem.id}")
    name = getattr(task, "name", "")
    feedbacks = {
        "the real feedback": real,
        "another problem's feedback": others_feedback(problem, real, rollouts, rng),
        "unrelated feedback": unrelated_feedback(
            "toolcall" if name == "followup" else "followup", seed % 1000
        ),
        "nonsense": nonsense(len(real.split()) or 8, rng),
    }
    solutions = {}
    if hasattr(task, "solution"):
        solutions["the answer itself"] = task.solution(problem)
    if siblings := successes(problem, text, rollouts, config):
        chosen = rng.choice(siblings)
        shortened = config.remove_thinking_from_demonstration
        solutions["a sibling's success"] = remove_thinking(chosen) if shortened else chosen
    return {
        **{name: {"feedback": said, "solution": ""} for name, said in feedbacks.items() if said},
        **{name: {"feedback": "", "solution": text} for name, text in solutions.items()},
        "nothing": {"feedback": "", "solution": ""},
    }


def others_feedback(
    problem: Problem, real: str, rollouts: list[Rollout], rng: random.Random
) -> str:
    """The feedback on an attempt at another problem, of another kind where there is one; "" where
    there is none that says something else."""
    others = [r for r in rollouts if r.problem.id != problem.id and r.feedback]
    others = [r for r in others if r.feedback != real]
    of_another_kind = [r for r in others if not kinds_of(r.problem) & kinds_of(problem)]
    return rng.choice(of_another_kind or others).feedback if others else ""


def successes(
    problem: Problem, text: str, rollouts: list[Rollout], config: SDPOConfig
) -> list[str]:
    """Other texts than `text` that solved the problem."""
    texts = [
        r.text
        for r in rollouts
        if r.problem.id == problem.id and r.reward >= config.success_reward_threshold
    ]
    return [t for t in texts if t.strip() and t != text]


def nonsense(words: int, rng: random.Random) -> str:
    return " ".join(nonsense_name(rng, held_out=True) for _ in range(words))


def kinds_of(problem: Problem) -> set[str]:
    """What a problem of the shipped tasks is about: its tools or its kind; {} for others."""
    calls = problem.data.get("calls", [])
    kinds = {call["tool"] for call in calls if isinstance(call, dict) and "tool" in call}
    return kinds | ({str(problem.data["kind"])} if "kind" in problem.data else set())


@lru_cache(maxsize=64)
def unrelated_feedback(name: str, seed: int) -> str:
    """What the judge of a shipped task says of a wrong answer there."""
    # what is right under the next seed's convention is wrong under this one's
    here, elsewhere = load_task(name, seed=seed), load_task(name, seed=seed + 1)
    for n in range(100):
        problem = here.problems(1, seed=n)[0]
        if said := here.judge(problem, elsewhere.solution(problem)).feedback:
            return said
    raise RuntimeError(f"the tasks {here!r} and {elsewhere!r} agree on everything")
