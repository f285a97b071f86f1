"""How good a model is on problems it was not trained on, sampled in four ways, with intervals."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import encode_teacher, reprompt
from sdpo_lab.core.rollouts import group_rollouts, judge_rollouts, rollout
from sdpo_lab.core.sampling import context_length
from sdpo_lab.core.task import Problem, Task, draw_problems, judge_all
from sdpo_lab.core.teachers import Teacher

Interval = tuple[float, float]
#: `rollout`'s step of an evaluation's attempts, and of those a teacher is shown. None of
#: training's, so that no evaluation has the noise of a training step.
STEP, STEP_SHOWN = -1, -2


@dataclass(frozen=True)
class Evaluation:
    """Accuracies on `n` problems. `float()` of it is `accuracy`. Intervals are Wilson's at 95 %."""

    accuracy: float  #: one attempt a problem at T = 1
    interval: Interval
    accuracy_low_temperature: float  #: one attempt at T = 0.6, top-p 0.95 (the paper's validation)
    interval_low_temperature: Interval
    greedy: float
    interval_greedy: Interval
    pass_at_8: float  #: any of 8 attempts at T = 1, on the first n/8 problems (at least 32, or all)
    interval_pass_at_8: Interval
    n: int
    split: str
    role: str

    def __float__(self) -> float:
        return self.accuracy

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        def line(name: str, value: float, interval: Interval) -> str:
            return f"{name} {value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"

        lines = (
            line("T=1", self.accuracy, self.interval),
            line("T=0.6", self.accuracy_low_temperature, self.interval_low_temperature),
            line("greedy", self.greedy, self.interval_greedy),
            line("pass@8", self.pass_at_8, self.interval_pass_at_8),
        )
        return f"{self.role} on {self.n} {self.split} problems: {', '.join(lines)}"


def wilson(successes: int, n: int, z: float = 1.959964) -> Interval:
    """Wilson's 95 % interval of a proportion (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, z * z
    centre, spread = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z2 / n)), min(1.0, (centre + spread) / (1 + z2 / n))


def solved(
    model: Any,
    tokenizer: Any,
    task: Task,
    problems: list[Problem],
    *,
    judged_as: list[Problem] | None = None,
    threshold: float,
    step: int = STEP,
    **sampling: Any,
) -> list[bool]:
    """Which fresh attempts at `problems` succeed, in problem order; `sampling` as `rollout` takes
    it.

    `judged_as` are the problems the judge is given when `problems` are other prompts for them.
    """
    originals = {p.id: original for p, original in zip(problems, judged_as or problems)}
    attempts = rollout(model, tokenizer, problems, step=step, **sampling)
    asked = [originals[a.problem.id] for a in attempts]
    verdicts = judge_all(task, asked, [a.text for a in attempts])
    return [v.reward >= threshold for v in verdicts]


def evaluate_problems(
    model: Any,
    tokenizer: Any,
    task: Task,
    problems: list[Problem],
    *,
    threshold: float,
    max_completion_length: int,
    seed: int,
    split: str,
    role: str,
    judged_as: list[Problem] | None = None,
) -> Evaluation:
    """Sample and judge in the four ways; `judged_as` as in `solved`."""
    judged_as = judged_as or problems

    def attempt(n: int, attempts: int, temperature: float, top_p: float = 1.0) -> list[bool]:
        return solved(
            model,
            tokenizer,
            task,
            problems[:n],
            judged_as=judged_as[:n],
            threshold=threshold,
            num_generations=attempts,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            max_completion_length=max_completion_length,
            batch_size=512,
        )

    def proportion(successes: list[bool]) -> tuple[float, Interval]:
        right, n = sum(successes), len(successes)
        return right / n, wilson(right, n)

    n = len(problems)
    of_eight = attempt(min(n, max(32, n // 8)), 8, 1.0)
    return Evaluation(
        *proportion(attempt(n, 1, 1.0)),
        *proportion(attempt(n, 1, 0.6, 0.95)),
        *proportion(attempt(n, 1, 0.0)),
        *proportion([any(of_eight[i : i + 8]) for i in range(0, len(of_eight), 8)]),
        n,
        split,
        role,
    )


def evaluate_teacher(
    teacher: Teacher,
    tokenizer: Any,
    task: Task,
    n: int,
    config: SDPOConfig,
    settings: dict[str, Any],
) -> Evaluation:
    """How often the self-teacher is right: it writes a fresh answer in the place of each of `n`
    attempts, see `teacher_prompts`. `settings` are those of `evaluate_problems`."""
    prompts, problems = teacher_prompts(
        teacher, tokenizer, task, n, config, settings["split"], settings["seed"]
    )
    model = sampling_model(teacher)
    return evaluate_problems(model, tokenizer, task, prompts, judged_as=problems, **settings)


def teacher_prompts(
    teacher: Teacher, tokenizer: Any, task: Task, n: int, config: SDPOConfig, split: str, seed: int
) -> tuple[list[Problem], list[Problem]]:
    """(`n` prompts as the teacher is shown them, the problems they stand for).

    Groups are sampled from the student and reprompted as in training; there is a prompt for each
    attempt, also of those the teacher is shown nothing for.
    """
    c = config
    problems = draw_problems(task, math.ceil(n / c.num_generations), split, seed)
    attempts = rollout(
        teacher.student,
        tokenizer,
        problems,
        c.num_generations,
        c.temperature,
        seed,
        step=STEP_SHOWN,
        top_p=c.top_p,
        max_completion_length=c.max_completion_length,
    )
    for group in group_rollouts(judge_rollouts(task, attempts)):
        reprompt(group, c, random.Random(f"evaluate/{seed}/{group[0].problem.id}"))
    prompts = []
    for a in attempts[:n]:
        # shortens `teacher_messages` where they are too long
        encode_teacher(tokenizer, a, c, context_length(teacher.student))
        name = f"{a.problem.id}#{a.index}"
        prompts.append(replace(a.problem, id=name, messages=a.teacher_messages))
    return prompts, [a.problem for a in attempts[:n]]


def sampling_model(teacher: Teacher) -> Any:
    """What can be sampled from as the teacher."""
    if teacher.kind == "trust_region":
        return Mixture(teacher.model, teacher.student, teacher.rate)
    return teacher.model


class Mixture(torch.nn.Module):
    """Two models as one whose logits are their lerp: as much of a model as sampling needs."""

    def __init__(self, reference: Any, student: Any, rate: float) -> None:
        super().__init__()
        self.both, self.rate = torch.nn.ModuleList([reference, student]), rate
        self.config, self.generation_config = student.config, student.generation_config
        self.device = student.device

    def forward(self, past_key_values: Any = None, **inputs: Any) -> Any:
        caches = past_key_values.caches if past_key_values else (None, None)
        outs = [m(past_key_values=cache, **inputs) for m, cache in zip(self.both, caches)]
        return SimpleNamespace(
            logits=torch.lerp(outs[0].logits, outs[1].logits, self.rate),
            past_key_values=BothCaches([out.past_key_values for out in outs]),
        )


@dataclass
class BothCaches:
    """The caches of two models as one."""

    caches: list[Any]

    @property
    def layers(self) -> list[Any]:
        return [layer for cache in self.caches for layer in cache.layers]

    @layers.setter
    def layers(self, layers: list[Any]) -> None:
        for cache in self.caches:
            n = len(cache.layers)
            cache.layers, layers = layers[:n], layers[n:]

    def batch_repeat_interleave(self, repeats: int) -> None:
        for cache in self.caches:
            cache.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        for cache in self.caches:
            cache.batch_select_indices(indices)
