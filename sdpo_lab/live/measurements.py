"""What may be done with a run between two of its steps without changing it: measure it on problems it does not train on, and score one of
its attempts token by token."""

from __future__ import annotations

import numbers
from typing import Any

from sdpo_lab.core.checks import shown
from sdpo_lab.core.task import draw_problems, judge_all

STUDENT, TEACHER = "held_out_accuracy", "teacher_accuracy"  # the metrics that `measure` fills in


def measure(trainer: Any, n: int = 32, seed: int = 0) -> dict[str, float]:
    """Accuracy at T = 1 on `n` test problems, one attempt each, and with a teacher the teacher's own on `n` attempts. From 0 to 1.

    Problems and noise are the same every time, so that two measurements differ by the weights alone. The teacher is measured as by
    `trainer.evaluate(role="teacher")`: groups are sampled from the student and reprompted as in training, then it writes a fresh answer in the place
    of each attempt. At n = 32 the standard error of either is up to 0.09.
    """
    from sdpo_lab.analysis.evaluation import teacher_problems
    from sdpo_lab.core.rollouts import judge_rollouts, rollout

    c, model, tokenizer, task = trainer.config, trainer.model, trainer.tokenizer, trainer.task
    lengths = dict(max_completion_length=c.max_completion_length, bf16=c.bf16)
    with trainer.lock:
        problems = draw_problems(task, n, "test", seed)
        found = {
            STUDENT: right(
                judge_rollouts(
                    task, rollout(model, tokenizer, problems, 1, 1.0, seed, step=-1, **lengths)
                ),
                c,
            )
        }
        if trainer.teacher is None:
            return found
        writer, shown, judged_as = teacher_problems(
            trainer.teacher, tokenizer, task, n, c, "test", seed
        )
        answers = rollout(writer, tokenizer, shown, 1, 1.0, seed, step=-1, **lengths)
        for r, verdict in zip(answers, judge_all(task, judged_as, [r.text for r in answers])):
            r.reward = float(verdict.reward)
        return found | {TEACHER: right(answers, c)}


def right(rollouts: list[Any], config: Any) -> float:
    """The share of attempts that succeeded."""
    return sum(r.reward >= config.success_reward_threshold for r in rollouts) / len(rollouts)


def credit_of(trainer: Any, step: int, index: int) -> Any:
    """`lab.credit` of attempt number `index` of step `step`, from 0, under what its teacher was shown, by the weights of now.

    GRPO shows nothing and has no teacher: there it is what the model itself makes of the judge's text. Raises ValueError for an attempt there is
    not, or is no longer: old steps keep their numbers only; TypeError for what is no whole number.
    """
    from sdpo_lab.analysis.credit import credit

    for name, value in (("step", step), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(
                f"{name} must be a whole number, a step's from 1 and an attempt's from 0; got {shown(value)}"
            )
    with trainer.lock:
        record = next((r for r in reversed(trainer.history.records) if r.step == step), None)
        if record is None or not 0 <= index < len(record.rollouts):
            kept = [r.step for r in trainer.history.records if r.rollouts]
            raise ValueError(
                f"step {step} has no attempt {index}"
                + (
                    f"; attempts are kept of steps {kept[0]} to {kept[-1]}, numbered from 0"
                    if kept
                    else "; no attempt is kept of any step"
                )
            )
        r = record.rollouts[index]
        if not r.completion_ids:
            raise ValueError(f"attempt {index} of step {step} is empty: there is no token to score")
        texts = (
            {"feedback": r.shown_feedback, "solution": r.shown_solution, "attempt": r.shown_attempt}
            if trainer.teacher
            else {"feedback": r.feedback}
        )
        return credit(
            trainer.model,
            trainer.tokenizer,
            r.problem,
            r,
            teacher=trainer.teacher,
            task=trainer.task,
            config=trainer.config,
            **texts,
        )
