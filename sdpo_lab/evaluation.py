"""How good a model is on problems it was not trained on, in four ways of sampling, with intervals."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sdpo_lab.rollouts import Rollout, rollout
from sdpo_lab.tasks.base import Task, judge_all


@dataclass(frozen=True)
class Evaluation:
    """Accuracies on `n` problems. `float()` of it is `accuracy`. Intervals are Wilson's at 95 %."""

    accuracy: float  #: one attempt a problem at T = 1
    interval: tuple[float, float]
    accuracy_low_temperature: float  #: one attempt at T = 0.6, top-p 0.95 (the paper's validation)
    interval_low_temperature: tuple[float, float]
    greedy: float
    interval_greedy: tuple[float, float]
    pass_at_8: float  #: at least one of eight attempts at T = 1, on the first n/8 problems (at least 32, or all)
    interval_pass_at_8: tuple[float, float]
    n: int
    split: str
    role: str

    def __float__(self) -> float:
        return self.accuracy

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        def show(value: float, interval: tuple[float, float]) -> str:
            return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"

        return (f"{self.role} on {self.n} {self.split} problems: T=1 {show(self.accuracy, self.interval)}, T=0.6 "
                f"{show(self.accuracy_low_temperature, self.interval_low_temperature)}, greedy {show(self.greedy, self.interval_greedy)}, "
                f"pass@8 {show(self.pass_at_8, self.interval_pass_at_8)}")


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, z * z
    centre, spread = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z2 / n)), min(1.0, (centre + spread) / (1 + z2 / n))


def judge_rollouts(task: Task, rollouts: list[Rollout]) -> list[Rollout]:
    """Fill in reward and feedback of every rollout that has none."""
    fresh = [r for r in rollouts if r.reward is None]
    for r, verdict in zip(fresh, judge_all(task, [r.problem for r in fresh], [r.text for r in fresh])):
        r.reward, r.feedback = float(verdict.reward), verdict.feedback
    return rollouts


def evaluate_problems(model: Any, tokenizer: Any, task: Task, problems: list, *, threshold: float, max_completion_length: int, seed: int, split: str,
                      role: str, judged_as: list | None = None) -> Evaluation:
    """Sample and judge in the four ways. `judged_as` are the problems the judge is given when `problems` are other prompts for them."""
    judged_as = judged_as or problems
    original = {p.id: q for p, q in zip(problems, judged_as)}

    def successes(which: list, attempts: int, temperature: float, top_p: float = 1.0) -> list[bool]:
        rollouts = rollout(model, tokenizer, which, attempts, temperature, seed, step=-1, top_p=top_p, max_completion_length=max_completion_length,
                           batch_size=512)
        verdicts = judge_all(task, [original[r.problem.id] for r in rollouts], [r.text for r in rollouts])
        return [v.reward >= threshold for v in verdicts]

    def proportion(solved: list[bool]) -> tuple[float, tuple[float, float]]:
        return sum(solved) / len(solved), wilson(sum(solved), len(solved))

    n = len(problems)
    few = problems[: min(n, max(32, n // 8))]
    of_eight = successes(few, 8, 1.0)
    return Evaluation(*proportion(successes(problems, 1, 1.0)), *proportion(successes(problems, 1, 0.6, 0.95)), *proportion(successes(problems, 1, 0.0)),
                      *proportion([any(of_eight[i : i + 8]) for i in range(0, len(of_eight), 8)]), n, split, role)
