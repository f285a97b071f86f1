"""How good a model is on problems it was not trained on, in four ways of sampling, with intervals."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import encode_teacher, reprompt
from sdpo_lab.core.rollouts import context_length, group_rollouts, judge_rollouts, rollout
from sdpo_lab.core.task import Task, draw_problems, judge_all
from sdpo_lab.core.teachers import Teacher


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

        return (
            f"{self.role} on {self.n} {self.split} problems: T=1 {show(self.accuracy, self.interval)}, T=0.6 "
            f"{show(self.accuracy_low_temperature, self.interval_low_temperature)}, greedy {show(self.greedy, self.interval_greedy)}, "
            f"pass@8 {show(self.pass_at_8, self.interval_pass_at_8)}"
        )


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, z * z
    centre, spread = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z2 / n)), min(1.0, (centre + spread) / (1 + z2 / n))


def evaluate_problems(
    model: Any,
    tokenizer: Any,
    task: Task,
    problems: list,
    *,
    threshold: float,
    max_completion_length: int,
    seed: int,
    split: str,
    role: str,
    judged_as: list | None = None,
) -> Evaluation:
    """Sample and judge in the four ways. `judged_as` are the problems the judge is given when `problems` are other prompts for them."""
    judged_as = judged_as or problems
    original = {p.id: q for p, q in zip(problems, judged_as)}

    def successes(which: list, attempts: int, temperature: float, top_p: float = 1.0) -> list[bool]:
        rollouts = rollout(
            model,
            tokenizer,
            which,
            attempts,
            temperature,
            seed,
            step=-1,
            top_p=top_p,
            max_completion_length=max_completion_length,
            batch_size=512,
        )
        verdicts = judge_all(
            task, [original[r.problem.id] for r in rollouts], [r.text for r in rollouts]
        )
        return [v.reward >= threshold for v in verdicts]

    def proportion(solved: list[bool]) -> tuple[float, tuple[float, float]]:
        return sum(solved) / len(solved), wilson(sum(solved), len(solved))

    n = len(problems)
    few = problems[: min(n, max(32, n // 8))]
    of_eight = successes(few, 8, 1.0)
    return Evaluation(
        *proportion(successes(problems, 1, 1.0)),
        *proportion(successes(problems, 1, 0.6, 0.95)),
        *proportion(successes(problems, 1, 0.0)),
        *proportion([any(of_eight[i : i + 8]) for i in range(0, len(of_eight), 8)]),
        n,
        split,
        role,
    )


def teacher_problems(
    teacher: Teacher, tokenizer: Any, task: Task, n: int, config: SDPOConfig, split: str, seed: int
) -> tuple[Any, list, list]:
    """(what writes as the teacher, `n` prompts as it is shown them, the problems they stand for): groups are sampled from the student and reprompted as in training."""
    c = config
    problems = draw_problems(task, -(-n // c.num_generations), split, seed)
    rollouts = rollout(
        teacher.student,
        tokenizer,
        problems,
        c.num_generations,
        c.temperature,
        seed,
        step=-2,
        top_p=c.top_p,
        max_completion_length=c.max_completion_length,
    )
    for g in group_rollouts(judge_rollouts(task, rollouts)):
        reprompt(g, c, random.Random(f"evaluate/{seed}/{g[0].problem.id}"))
    for r in rollouts[:n]:
        # shortens what is shown where it is too long
        encode_teacher(tokenizer, r, c, context_length(teacher.student))
    shown = [
        replace(r.problem, id=f"{r.problem.id}#{r.index}", messages=r.teacher_messages)
        for r in rollouts[:n]
    ]
    writer = (
        Mixture(teacher.model, teacher.student, teacher.rate)
        if teacher.kind == "trust_region"
        else teacher.model
    )
    return writer, shown, [r.problem for r in rollouts[:n]]


def evaluate_teacher(
    teacher: Teacher,
    tokenizer: Any,
    task: Task,
    n: int,
    config: SDPOConfig,
    settings: dict[str, Any],
) -> Evaluation:
    """How often the self-teacher is right: groups are sampled from the student and reprompted as in training, then the teacher writes
    a fresh answer in the place of each of `n` attempts, also of those it is shown nothing for."""
    writer, shown, problems = teacher_problems(
        teacher, tokenizer, task, n, config, settings["split"], settings["seed"]
    )
    return evaluate_problems(writer, tokenizer, task, shown, judged_as=problems, **settings)


class Mixture(torch.nn.Module):
    """Two models as one whose logits are their lerp: as much of a model as sampling needs."""

    def __init__(self, reference: Any, student: Any, rate: float) -> None:
        super().__init__()
        self.both, self.rate = torch.nn.ModuleList([reference, student]), rate
        self.config, self.generation_config, self.device = (
            student.config,
            student.generation_config,
            student.device,
        )

    def forward(self, past_key_values: Any = None, **inputs: Any) -> Any:
        outs = [
            m(past_key_values=c, **inputs)
            for m, c in zip(self.both, past_key_values.caches if past_key_values else (None, None))
        ]
        return SimpleNamespace(
            logits=torch.lerp(outs[0].logits, outs[1].logits, self.rate),
            past_key_values=BothCaches([o.past_key_values for o in outs]),
        )


@dataclass
class BothCaches:
    caches: list[Any]

    @property
    def layers(self) -> list[Any]:
        return [layer for c in self.caches for layer in c.layers]

    @layers.setter
    def layers(self, layers: list[Any]) -> None:
        for c in self.caches:
            c.layers, layers = layers[: len(c.layers)], layers[len(c.layers) :]

    def batch_repeat_interleave(self, repeats: int) -> None:
        for c in self.caches:
            c.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        for c in self.caches:
            c.batch_select_indices(indices)
