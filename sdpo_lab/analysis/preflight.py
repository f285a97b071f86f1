"""Before the run: will SDPO learn here, and if not, what to change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from sdpo_lab.analysis.credit import given_config
from sdpo_lab.analysis.evaluation import solved, wilson
from sdpo_lab.core.checks import check_model, check_range
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.loop import Loop
from sdpo_lab.core.records import StepRecord
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import Rollout, group_rollouts
from sdpo_lab.core.task import Problem, Task

MOST_ANSWERS = 256  # of the teacher, of each kind


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
        if not self.n:
            return "none to measure"
        low, high = self.interval
        return f"{float(self):.1%} ({low:.1%} to {high:.1%}, n={self.n})"


@dataclass(frozen=True)
class Preflight:
    """What `preflight` measured. `print(report)` shows it; `report.ready` is the answer."""

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
    """Try a task out: `n` training problems, a group of attempts at each, and the teacher's own
    answers. The weights stay as they are.

    The steps are those of a trainer with learning rate 0, so attempts, contexts and times are what
    training will have. A solution is a sibling's success, or else `task.solution(problem)` where
    the task has such a method. Raises what `SDPOTrainer` and the task raise.
    """
    check_model(model, tokenizer)
    config = given_config(config)
    check_range("n", n, int, 1, 10_000)
    if config.distillation_weight == 0:
        raise ValueError(
            "distillation_weight=0 is GRPO, which has no teacher to try out; use another config"
        )
    records = trial_steps(model, tokenizer, task, config, n, seed)
    groups = [group for record in records for group in group_rollouts(record.rollouts)]

    # the teacher's prompts: on each failed attempt, with its feedback and with a solution
    attempts = failed = solved_groups = 0
    with_feedback, with_solution = [], []
    for group in groups:
        right = [a.text for a in group if a.reward >= config.success_reward_threshold]
        attempts += len(group)
        failed += len(group) - len(right)
        solved_groups += bool(right)
        for a in group:
            if a.reward >= config.success_reward_threshold:
                continue
            question = a.problem.messages
            if a.feedback:
                prompt = teacher_messages(question, "", a.feedback, config)
                with_feedback.append((prompt, a.problem))
            if solution := known_solution(a, right, task):
                prompt = teacher_messages(question, solution, "", config)
                with_solution.append((prompt, a.problem))

    measured = dict(
        pass_at_1=Share(attempts - failed, attempts),
        pass_at_k=Share(solved_groups, len(groups)),
        k=config.num_generations,
        teacher_feedback=answers(model, tokenizer, task, config, with_feedback, seed),
        teacher_solution=answers(model, tokenizer, task, config, with_solution, seed),
        active=fmean(r.metrics["active_fraction"] for r in records),
        judge_said=len(with_feedback) / failed if failed else 1.0,
        seconds_per_step=median(r.seconds for r in records[1:]),  # the first one warms up
    )
    ready, advice = advise(**measured)
    return Preflight(**measured, ready=ready, advice=advice)


def trial_steps(
    model: Any, tokenizer: Any, task: Task, config: SDPOConfig, n: int, seed: int
) -> list[StepRecord]:
    """At least two steps that change no weight, on at least `n` problems."""
    was_training = model.training
    still = config.replace(learning_rate=0.0, warmup_steps=0, seed=seed)
    trainer = Loop(model, tokenizer, task, still)
    groups_per_step = config.generation_batch_size // config.num_generations
    try:
        return [trainer.step() for _ in range(max(2, math.ceil(n / groups_per_step)))]
    finally:
        model.train(was_training)


def known_solution(attempt: Rollout, successes: list[str], task: Task) -> str:
    """A sibling's success, or the task's own solution; "" when there is neither."""
    if successes and successes[0]:
        return successes[0]
    own = getattr(task, "solution", None)
    return own(attempt.problem) if callable(own) else ""


def answers(
    model: Any, tokenizer: Any, task: Task, config: SDPOConfig, prompts: list, seed: int
) -> Share:
    """How many of the teacher's fresh answers are right, one to each of `prompts`: (the teacher's
    messages, the problem they stand for)."""
    prompts = prompts[:: max(1, len(prompts) // MOST_ANSWERS)][:MOST_ANSWERS]
    if not prompts:
        return Share(0, 0)
    successes = solved(
        model,
        tokenizer,
        task,
        [Problem(f"{p.id}/{i}", messages, p.data) for i, (messages, p) in enumerate(prompts)],
        judged_as=[problem for _, problem in prompts],
        threshold=config.success_reward_threshold,
        num_generations=1,
        temperature=config.temperature,
        seed=seed,
        step=0,
        max_completion_length=config.max_completion_length,
        top_p=config.top_p,
        batch_size=config.generation_batch_size,
    )
    return Share(sum(successes), len(successes))


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
    roles = {"feedback": teacher_feedback, "a solution": teacher_solution}
    better = [n for n, s in roles.items() if s.n and s.interval[0] > pass_at_1.interval[1]]
    # a solution is only ever a sibling's
    usable = [name for name in better if name == "feedback" or pass_at_k.successes]
    problem = ""
    if student > 0.95:
        problem = (
            f"Nothing is left to learn: the model solves {student:.0%} already. Turn up the task's "
            "difficulty."
        )
    elif not pass_at_k.successes and judge_said == 0:
        problem = (
            f"SDPO has nothing to learn from: none of {pass_at_1.n} attempts succeeded and the "
            "judge says nothing of the failures. Give feedback in judge(), make the task easier, "
            "or take a stronger model."
        )
    elif not better:
        problem = (
            "SDPO will not learn here: shown feedback or a solution, the model answers no better "
            "than without, so its teacher has nothing to teach. Make the feedback say more, change "
            "the template, or take a model that reads its context (a larger one, or one tuned for "
            "chat)."
        )
    elif not usable:
        problem = (
            f"The model can use a solution, but none of {pass_at_1.n} attempts was one, and "
            "feedback does not help it. Make the feedback say more or the task easier."
        )
    elif active < 0.05:
        problem = (
            f"Only {active:.0%} of the attempts have a teacher that sees anything. Let the judge "
            "give feedback on failures, or raise num_generations so that more groups hold a "
            "success."
        )
    if problem:
        return False, problem
    advice = (
        f"SDPO should learn here: {' and '.join(better)} make{'s' if len(better) == 1 else ''} the "
        f"model clearly better than its bare {student:.1%}, and {active:.0%} of the attempts are "
        "active."
    )
    if "feedback" not in better and teacher_feedback.n:
        advice += (
            " Feedback alone does not help it: what is learnt comes from siblings that succeed."
        )
    return True, advice
