"""The checks of 02_self_teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from sdpo_lab.analysis.credit import credit
from sdpo_lab.analysis.written import written_names
from sdpo_lab.exercises.common import UNWRITTEN, Mistakes, is_close, recognise

#: Of log-probabilities s.p and s.q (T, V), where s.right (T,) is right. `s.at` picks tokens (T,).
ADVANTAGE_MISTAKES: Mistakes = {
    "the sign is turned round: the teacher's log-probability minus the student's": (
        lambda s: [-s.right]
    ),
    "these are all tokens of the vocabulary, (T, V). Pick the one that was written at each place: "
    "gather": lambda s: [s.q - s.p],
    "this is about the student's favourite token, not about the one that was written": (
        lambda s: [s.at(s.q - s.p, s.p.argmax(1))]
    ),
    "this is about the teacher's favourite token, not about the one that was written": (
        lambda s: [s.at(s.q - s.p, s.q.argmax(1))]
    ),
    "this is a difference of probabilities. An advantage is a difference of their logarithms": (
        lambda s: [s.at(s.q.exp() - s.p.exp())]
    ),
    "this is a ratio of probabilities. Take its logarithm": lambda s: [s.right.exp()],
    "this is a ratio of logarithms. Subtract them": lambda s: [s.at(s.q / s.p)],
    "this is one number for the attempt. Keep the tokens apart: that is the point": (
        lambda s: [s.right.sum(), s.right.mean()]
    ),
    "this is a divergence, an average over the vocabulary. An advantage is about the token that "
    "was written": lambda s: [
        (s.p.exp() * (s.p - s.q)).sum(-1),
        (s.q.exp() * (s.q - s.p)).sum(-1),
    ],
}

BIT = math.log(2)  # in nats
#: Of log-probabilities s.p and s.q (T, V) and the KLs of both directions at each token (T,).
BITS_MISTAKES: Mistakes = {
    "these are nats. A bit is log 2 nats": lambda s: [s.forward.sum()],
    "multiplied by log 2 instead of divided": lambda s: [s.forward.sum() * BIT],
    "this is KL(student || teacher). What the message tells is measured from the teacher's side: "
    "KL(teacher || student)": lambda s: [s.reverse.sum() / BIT, s.reverse.sum()],
    "this is the mean over the tokens. What a message tells about an attempt adds up": (
        lambda s: [s.forward.mean() / BIT, s.forward.mean()]
    ),
    "this is one number for every token. Add them up": lambda s: [s.forward / BIT, s.forward],
    "nothing weighs the differences: the teacher's probabilities do, q.exp()": (
        lambda s: [(s.q - s.p).sum() / BIT, (s.q - s.p).sum()]
    ),
}


def two_tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(student, teacher, ids): log-probabilities (3, 4) of both roles, and the tokens written, of
    which none is anybody's first choice everywhere."""
    student = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.6, 0.2, 0.1], [0.25, 0.15, 0.5, 0.1]])
    teacher = torch.tensor([[0.1, 0.2, 0.6, 0.1], [0.3, 0.1, 0.2, 0.4], [0.3, 0.1, 0.55, 0.05]])
    return student.log(), teacher.log(), torch.tensor([1, 1, 0])


def check_advantages(advantages: Callable) -> str:
    """Of `advantages(p, q, ids)`: log q - log p of the tokens that were written,
    (T, V), (T, V), (T,) -> (T,)."""
    p, q, ids = two_tables()
    answer = advantages(p, q, ids)
    if answer is None:
        return UNWRITTEN

    def at(table: torch.Tensor, tokens: torch.Tensor = ids) -> torch.Tensor:
        return table.gather(1, tokens[:, None])[:, 0]

    right = at(q - p)
    if is_close(answer, right):
        return (
            "✓ advantages: below zero where the teacher, who knows more, would have written this "
            "token less likely"
        )
    s = SimpleNamespace(p=p, q=q, at=at, right=right)
    return recognise("advantages", answer, right, ADVANTAGE_MISTAKES, s)


def check_shift_bits(shift_bits: Callable) -> str:
    """Of `shift_bits(p, q)`: Σ_t KL(teacher || student) in bits, (T, V), (T, V) -> ()."""
    p, q, _ = two_tables()
    answer = shift_bits(p, q)
    if answer is None:
        return UNWRITTEN
    answer = torch.tensor(answer) if isinstance(answer, float) else answer
    forward = (q.exp() * (q - p)).sum(-1)  # (T,)
    reverse = (p.exp() * (p - q)).sum(-1)
    right = forward.sum() / BIT
    if is_close(answer, right):
        return (
            "✓ shift_bits: how much a reader who believes the teacher would gain over one who "
            "believes the student"
        )
    s = SimpleNamespace(p=p, q=q, forward=forward, reverse=reverse)
    return recognise("shift_bits", answer, right, BITS_MISTAKES, s)


def check_message(
    model: Any, tokenizer: Any, task: Any, problem: Any, completion: Any, message: str | None
) -> str:
    """Of a message in the reader's own words: does it make the teacher lower the wrong names of
    this attempt, and no right one?

    completion  a failed attempt at one `toolcall` call
    """
    if not message:
        return UNWRITTEN.replace("the function returns None", "the message is empty")
    attempt = credit(model, tokenizer, problem, completion).text.removesuffix(tokenizer.eos_token)
    if message.strip() == task.judge(problem, attempt).feedback:
        return "✗ message: these are the judge's words. Say it in yours"
    if task.solution(problem) in message:
        return "✗ message: it quotes the right call. Then the teacher need not understand anything"

    c = credit(model, tokenizer, problem, completion, feedback=message)
    names = written_names(task, problem, c)
    nats = {w.name: w.advantage(c) for w in names}
    hurt = [w.name for w in names if w.right and nats[w.name] < -0.5]
    wrong = [w.name for w in names if not w.right]
    spared = [name for name in wrong if nats[name] > -1]
    if hurt:
        return (
            f"✗ message: it makes the teacher lower {hurt[0]!r}, by {-nats[hurt[0]]:.1f} nats, and "
            "that name is right"
        )
    if len(spared) == len(wrong):
        each = ", ".join(f"{name!r} {nats[name]:+.1f}" for name in spared)
        return (
            f"✗ message: the teacher lowers no wrong name by a nat ({each}). Name it, in quotes, "
            "or list what is accepted"
        )
    lowered = ", ".join(f"{n!r} by {-nats[n]:.1f} nats" for n in wrong if n not in spared)
    more = f"; it does not know that {spared[0]!r} is wrong too" if spared else ""
    return f"✓ message: the teacher lowers {lowered}{more}"
