"""Before the run: will SDPO learn here, and if not, what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from sdpo_lab.analysis.evaluation import wilson
from sdpo_lab.core.checks import check_kind, check_model, check_range
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.loop import Loop
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import Rollout, group_rollouts, rollout
from sdpo_lab.core.task import Problem, Task, judge_all


@dataclass(frozen=True)
class Share:
    """`successes` of `n`, with Wilson's interval at 95 %. Nothing was counted where n = 0."""

    successes: int
    n: int

    def __float__(self) -> float:
        return self.successes / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.successes, self.n) if self.n else (0.0, 1.0)

    def __str__(self) -> str:
        return (
            f"{float(self):.1%} ({self.interval[0]:.1%} to {self.interval[1]:.1%}, n={self.n})"
            if self.n
            else "none to measure"
        )


@dataclass(frozen=True)
class Preflight:
    """What `preflight` found. `print(report)` shows it; `report.ready` is the answer as a bool."""

    pass_at_1: Share
    pass_at_k: Share  #: groups with a success, of all groups
    k: int  #: attempts in a group
    teacher_feedback: Share  #: fresh answers of the teacher, shown the feedback on a failed attempt
    teacher_solution: Share  #: shown a right answer to a problem whose attempt failed
    active: float  #: share of attempts that have something to learn from
    judge_said: float  #: share of failed attempts with a feedback
    seconds_per_step: float  #: sampling, judging, both passes and the update
    ready: bool
    advice: str  #: in a sentence or two: whether SDPO will learn here, and if not, what to change

    def __str__(self) -> str:
        rows = (
            ("pass@1", self.pass_at_1),
            (f"pass@{self.k}", self.pass_at_k),
            ("teacher, shown feedback", self.teacher_feedback),
            ("teacher, shown a solution", self.teacher_solution),
            ("active attempts", f"{self.active:.0%}"),
            ("a step", f"{self.seconds_per_step:.2f} s"),
        )
        return "\n".join(f"{name:<26} {value}" for name, value in rows) + f"\n{self.advice}"

    __repr__ = __str__


def preflight(
    model: Any,
    tokenizer: Any,
    task: Task,
    config: SDPOConfig | None = None,
    *,
    n: int = 32,
    seed: int = 0,
) -> Preflight:
    """Try a task out: `n` training problems, a group of attempts at each, and the teacher's own answers. The weights stay as they are.

    The steps are those of a trainer with learning rate 0, so attempts, contexts and times are what training will have. A solution is a sibling's
    success, or else `task.solution(problem)` where the task has such a method. Raises what `SDPOTrainer` and the task raise.
    """
    check_model(model, tokenizer)
    check_kind(
        "config", config, (SDPOConfig, type(None)), "an SDPOConfig, or None for the preset 'laptop'"
    )
    check_range("n", n, int, 1, 10_000)
    config = SDPOConfig.preset("laptop") if config is None else config
    if config.distillation_weight == 0:
        raise ValueError(
            "distillation_weight=0 is GRPO, which has no teacher to try out; use another config"
        )
    was_training = model.training
    trainer = Loop(
        model, tokenizer, task, config.replace(learning_rate=0.0, warmup_steps=0, seed=seed)
    )
    groups_a_step = config.generation_batch_size // config.num_generations
    try:
        records = [trainer.step() for _ in range(max(2, math.ceil(n / groups_a_step)))]
    finally:
        model.train(was_training)
    groups = [g for r in records for g in group_rollouts(r.rollouts)]
    attempts = [a for g in groups for a in g]
    right = {id(a) for a in attempts if a.reward >= config.success_reward_threshold}
    failed = [a for a in attempts if id(a) not in right]
    shown_feedback = [(a, "", a.feedback) for a in failed if a.feedback]
    shown_solution = [
        (a, s, "")
        for g in groups
        for a in g
        if id(a) not in right and (s := known_solution(a, g, right, task))
    ]
    found = dict(
        pass_at_1=Share(len(right), len(attempts)),
        pass_at_k=Share(sum(any(id(a) in right for a in g) for g in groups), len(groups)),
        k=config.num_generations,
        teacher_feedback=answers(model, tokenizer, task, config, shown_feedback, seed),
        teacher_solution=answers(model, tokenizer, task, config, shown_solution, seed),
        active=fmean(r.metrics["active_fraction"] for r in records),
        judge_said=len(shown_feedback) / len(failed) if failed else 1.0,
        seconds_per_step=median(r.seconds for r in records[1:]),
    )  # the first one warms up
    ready, advice = advise(**found)
    return Preflight(**found, ready=ready, advice=advice)


def known_solution(attempt: Rollout, group: list[Rollout], right: set[int], task: Task) -> str:
    """A sibling's success, or the task's own solution; "" when there is neither."""
    sibling = next((a.text for a in group if id(a) in right), "")
    return sibling or (
        task.solution(attempt.problem) if callable(getattr(task, "solution", None)) else ""
    )


def answers(
    model: Any,
    tokenizer: Any,
    task: Task,
    config: SDPOConfig,
    shown: list[tuple[Rollout, str, str]],
    seed: int,
    most: int = 256,
) -> Share:
    """How many of the teacher's fresh answers are right, each in the place of a failed attempt."""
    shown = shown[:: max(1, len(shown) // most)][:most]
    asked = [
        Problem(
            f"{a.problem.id}/{i}",
            teacher_messages(a.problem.messages, solution, feedback, config),
            a.problem.data,
        )
        for i, (a, solution, feedback) in enumerate(shown)
    ]
    written = rollout(
        model,
        tokenizer,
        asked,
        1,
        config.temperature,
        seed,
        max_completion_length=config.max_completion_length,
        top_p=config.top_p,
        batch_size=config.generation_batch_size,
    )
    verdicts = judge_all(task, [a.problem for a, _, _ in shown], [w.text for w in written])
    return Share(sum(v.reward >= config.success_reward_threshold for v in verdicts), len(verdicts))


def advise(
    pass_at_1: Share,
    pass_at_k: Share,
    k: int,
    teacher_feedback: Share,
    teacher_solution: Share,
    active: float,
    judge_said: float,
    seconds_per_step: float,
) -> tuple[bool, str]:
    """(will SDPO learn here, in words)."""
    student = float(pass_at_1)
    better = [
        name
        for name, share in (("feedback", teacher_feedback), ("a solution", teacher_solution))
        if share.n and share.interval[0] > pass_at_1.interval[1]
    ]
    usable = [
        name for name in better if name == "feedback" or pass_at_k.successes
    ]  # a solution is only ever a sibling's
    if student > 0.95:
        return (
            False,
            f"Nothing is left to learn: the model solves {student:.0%} already. Turn up the task's difficulty.",
        )
    if not pass_at_k.successes and judge_said == 0:
        return False, (
            f"SDPO has nothing to learn from: none of {pass_at_1.n} attempts succeeded and the judge says nothing of the failures. Give feedback in judge(), make the task "
            "easier, or take a stronger model."
        )
    if not better:
        return False, (
            "SDPO will not learn here: shown feedback or a solution, the model answers no better than without, so its teacher has nothing to teach. Make the feedback say more, "
            "change the template, or take a model that reads its context (a larger one, or one tuned for chat)."
        )
    if not usable:
        return False, (
            f"The model can use a solution, but none of {pass_at_1.n} attempts was one, and feedback does not help it. Make the feedback say more or the task easier."
        )
    if active < 0.05:
        return (
            False,
            f"Only {active:.0%} of the attempts have a teacher that sees anything. Let the judge give feedback on failures, or raise num_generations so that more groups hold a success.",
        )
    share = f"{active:.0%} of the attempts are active"
    limit = (
        ""
        if "feedback" in better or not teacher_feedback.n
        else " Feedback alone does not help it: what is learnt comes from siblings that succeed."
    )
    return (
        True,
        f"SDPO should learn here: {' and '.join(better)} make{'s' if len(better) == 1 else ''} the model clearly better than its bare {student:.1%}, and {share}.{limit}",
    )
