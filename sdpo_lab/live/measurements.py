"""What may be done with a run between two of its steps without changing it: measure it on problems
it does not train on, and score one of its attempts token by token."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator
from typing import Any

from sdpo_lab.analysis.credit import credit, shown_texts
from sdpo_lab.analysis.evaluation import sampling_model, solved, teacher_prompts
from sdpo_lab.core.checks import short_repr
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.core.task import draw_problems

STUDENT, TEACHER = "held_out_accuracy", "teacher_accuracy"  # the metrics that `measure` fills in


def measure(trainer: Any, n: int = 32, seed: int = 0) -> dict[str, float]:
    """Accuracy at T = 1 on `n` test problems, one attempt each, and with a teacher the teacher's
    own on `n` attempts. From 0 to 1.

    Problems and noise are the same every time, so that two measurements differ by the weights
    alone. The teacher is measured as by `trainer.evaluate(role="teacher")`: see `teacher_prompts`.
    At n = 32 the standard error of either is up to 0.09.
    """
    c, teacher, tokenizer, task = trainer.config, trainer.teacher, trainer.tokenizer, trainer.task

    def accuracy(model: Any, prompts: list, problems: list) -> float:
        right = solved(
            model,
            tokenizer,
            task,
            prompts,
            judged_as=problems,
            threshold=c.success_reward_threshold,
            num_generations=1,
            temperature=1.0,
            seed=seed,
            max_completion_length=c.max_completion_length,
            bf16=c.bf16,
        )
        return sum(right) / len(right)

    with trainer.lock:
        problems = draw_problems(task, n, "test", seed)
        accuracies = {STUDENT: accuracy(trainer.model, problems, problems)}
        if teacher is not None:
            prompts, problems = teacher_prompts(teacher, tokenizer, task, n, c, "test", seed)
            accuracies[TEACHER] = accuracy(sampling_model(teacher), prompts, problems)
        return accuracies


@contextlib.contextmanager
def autosave_after(trainer: Any) -> Iterator[None]:
    """A step inside saves itself when the block is over, not before: a line of the saved history is
    written once, and what is measured after the step belongs there."""
    with trainer.lock:  # nor does anybody else save it, or change where it is saved
        trainer.autosaves, held = None, trainer.autosaves
        try:
            yield
        finally:
            trainer.autosaves = held
        trainer.autosave_if_due()


def credit_of(trainer: Any, step: int, index: int) -> Any:
    """`lab.credit` of attempt number `index` of step `step`, from 0, under what its teacher was
    shown, by the weights of now.

    GRPO shows nothing and has no teacher: there it is what the model itself makes of the judge's
    text. Raises ValueError for an attempt that does not exist, or no longer: old steps keep their
    numbers only; TypeError for what is no whole number.
    """
    for name, value in (("step", step), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(
                f"{name} must be a whole number, a step's from 1 and an attempt's from 0; got "
                f"{short_repr(value)}"
            )
    with trainer.lock:
        attempt = find_attempt(trainer.history.records, step, index)
        texts = shown_texts(attempt) if trainer.teacher else {"feedback": attempt.feedback}
        return credit(
            trainer.model,
            trainer.tokenizer,
            attempt.problem,
            attempt,
            teacher=trainer.teacher,
            task=trainer.task,
            config=trainer.config,
            **texts,
        )


def find_attempt(records: list[Any], step: int, index: int) -> Rollout:
    """Raises ValueError for an attempt that is not kept, or is empty."""
    record = next((r for r in reversed(records) if r.step == step), None)
    if record is None or not 0 <= index < len(record.rollouts):
        kept = [r.step for r in records if r.rollouts]
        hint = "no attempt is kept of any step"
        if kept:
            hint = f"attempts are kept of steps {kept[0]} to {kept[-1]}, numbered from 0"
        raise ValueError(f"step {step} has no attempt {index}; {hint}")
    attempt = record.rollouts[index]
    if not attempt.completion_ids:
        raise ValueError(f"attempt {index} of step {step} is empty: there is no token to score")
    return attempt
