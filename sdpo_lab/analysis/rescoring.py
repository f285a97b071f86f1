"""What the teacher makes of an attempt, in words, and what it would write itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sdpo_lab.analysis.credit import Credit, check_scored
from sdpo_lab.analysis.evaluation import sampling_model
from sdpo_lab.analysis.token_text import token_text
from sdpo_lab.core.checks import check_range, check_text
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import teacher_messages
from sdpo_lab.core.rollouts import Rollout, judge_rollouts, rollout
from sdpo_lab.core.task import Problem
from sdpo_lab.core.teachers import Teacher


def in_words(scored: Credit, least: float = 0.05) -> str:
    """The tokens that moved most, by `least` nats: "most lowered: 'town' (−4.2 nats)"."""
    moves = scored.advantages.tolist()
    parts = []
    for name, pick, sign in (("lowered", min, "−"), ("raised", max, "+")):
        move, t = pick((move, t) for t, move in enumerate(moves))
        if abs(move) < least or (move < 0) != (name == "lowered"):
            continue
        text = scored.tokens[t] or token_text(scored.tokenizer, scored.completion_ids[t])
        size = "∞" if math.isinf(move) else f"{abs(move):.1f}"
        parts.append(f"most {name}: {text!r} ({sign}{size} nats)")
    return "; ".join(parts) or f"no token moved by {least} nats or more"


def teacher_attempts(
    model: Any,
    tokenizer: Any,
    problem: Problem,
    n: int = 1,
    *,
    feedback: str = "",
    solution: str = "",
    attempt: str = "",
    teacher: Any = None,
    task: Any = None,
    config: SDPOConfig | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Rollout]:
    """`n` fresh attempts of the teacher: what it writes itself when it reads the question and these
    texts. Temperature 0 is greedy.

    They are attempts at `problem`, judged as such when `task` is given. The noise is `rollout`'s
    for the same problem and seed, so that they pair with the student's own attempts.
    `evaluation.evaluate_teacher` does this for many problems.
    """
    config = check_scored(model, tokenizer, problem, config)
    check_range("n", n, int, 1, 4096)
    for name, text in (("feedback", feedback), ("solution", solution), ("attempt", attempt)):
        check_text(name, text, "'' for nothing to show")
    messages = teacher_messages(problem.messages, solution, feedback, config, attempt)
    written = rollout(
        sampling_model(teacher) if isinstance(teacher, Teacher) else teacher or model,
        tokenizer,
        [replace(problem, messages=messages)],
        n,
        temperature,
        seed,
        max_completion_length=config.max_completion_length,
    )
    for r in written:
        r.problem, r.teacher_messages = problem, messages
        r.shown_feedback, r.shown_solution, r.shown_attempt = feedback, solution, attempt
    return written if task is None else judge_rollouts(task, written)
