"""The checks of 02_self_teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sdpo_lab.analysis.credit import credit
from sdpo_lab.analysis.written import written_names
from sdpo_lab.exercises.common import UNWRITTEN, is_close, recognise


def two_tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(student, teacher, ids): log-probabilities (3, 4) of both roles, and the tokens written, of which none is anybody's first choice everywhere."""
    student = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.1, 0.6, 0.2, 0.1], [0.25, 0.15, 0.5, 0.1]])
    teacher = torch.tensor([[0.1, 0.2, 0.6, 0.1], [0.3, 0.1, 0.2, 0.4], [0.3, 0.1, 0.55, 0.05]])
    return student.log(), teacher.log(), torch.tensor([1, 1, 0])


def check_advantages(advantages: Callable) -> str:
    """Of `advantages(p, q, ids)`: log q - log p of the tokens that were written, (T, V), (T, V), (T,) -> (T,)."""
    p, q, ids = two_tables()
    found = advantages(p, q, ids)
    if found is None:
        return UNWRITTEN

    def at(table: torch.Tensor, tokens: torch.Tensor = ids) -> torch.Tensor:
        return table.gather(1, tokens[:, None])[:, 0]

    right = at(q) - at(p)
    if is_close(found, right):
        return "✓ advantages: below zero where the teacher, who knows more, would have written this token less likely"
    return "✗ advantages: " + recognise(
        found,
        right,
        {
            "the sign is turned round: the teacher's log-probability minus the student's": [-right],
            "these are all tokens of the vocabulary, (T, V). Pick the one that was written at each place: gather": [
                q - p
            ],
            "this is about the student's favourite token, not about the one that was written": [
                at(q, p.argmax(1)) - at(p, p.argmax(1))
            ],
            "this is about the teacher's favourite token, not about the one that was written": [
                at(q, q.argmax(1)) - at(p, q.argmax(1))
            ],
            "this is a difference of probabilities. An advantage is a difference of their logarithms": [
                at(q).exp() - at(p).exp()
            ],
            "this is a ratio of probabilities. Take its logarithm": [(at(q) - at(p)).exp()],
            "this is a ratio of logarithms. Subtract them": [at(q) / at(p)],
            "this is one number for the attempt. Keep the tokens apart: that is the point": [
                right.sum(),
                right.mean(),
            ],
            "this is a divergence, an average over the vocabulary. An advantage is about the token that was written": [
                (p.exp() * (p - q)).sum(-1),
                (q.exp() * (q - p)).sum(-1),
            ],
        },
    )


def check_shift_bits(shift_bits: Callable) -> str:
    """Of `shift_bits(p, q)`: Σ_t KL(teacher || student) in bits, (T, V), (T, V) -> ()."""
    p, q, ids = two_tables()
    found = shift_bits(p, q)
    if found is None:
        return UNWRITTEN
    found = torch.tensor(found) if isinstance(found, float) else found
    each, other = (q.exp() * (q - p)).sum(-1), (p.exp() * (p - q)).sum(-1)
    right, bit = each.sum() / math.log(2), math.log(2)
    if is_close(found, right):
        return "✓ shift_bits: how much a reader who believes the teacher would gain over one who believes the student"
    return "✗ shift_bits: " + recognise(
        found,
        right,
        {
            "these are nats. A bit is log 2 nats": [each.sum()],
            "multiplied by log 2 instead of divided": [each.sum() * bit],
            "this is KL(student || teacher). What the message tells is measured from the teacher's side: KL(teacher || student)": [
                other.sum() / bit,
                other.sum(),
            ],
            "this is the mean over the tokens. What a message tells about an attempt adds up": [
                each.mean() / bit,
                each.mean(),
            ],
            "this is one number for every token. Add them up": [each / bit, each],
            "nothing weighs the differences: the teacher's probabilities do, q.exp()": [
                (q - p).sum() / bit,
                (q - p).sum(),
            ],
        },
    )


def check_message(
    model: Any, tokenizer: Any, task: Any, problem: Any, completion: Any, message: str | None
) -> str:
    """Of a message in the reader's own words: does it make the teacher lower the wrong names of this attempt, and no right one?

    completion  a failed attempt at one `toolcall` call
    """
    if not message:
        return UNWRITTEN.replace("the function returns None", "the message is empty")
    said = task.judge(
        problem,
        credit(model, tokenizer, problem, completion).text.removesuffix(tokenizer.eos_token),
    ).feedback
    if message.strip() == said:
        return "✗ message: these are the judge's words. Say it in yours"
    if task.solution(problem) in message:
        return "✗ message: it quotes the right call. Then the teacher need not understand anything"
    c = credit(model, tokenizer, problem, completion, feedback=message)
    names = written_names(task, problem, c)
    moved = {w.name: w.advantage(c) for w in names}
    hurt = [w.name for w in names if w.right and moved[w.name] < -0.5]
    spared = [w.name for w in names if not w.right and moved[w.name] > -1]
    if hurt:
        return f"✗ message: it makes the teacher lower {hurt[0]!r}, by {-moved[hurt[0]]:.1f} nats, and that name is right"
    if len(spared) == sum(not w.right for w in names):
        return f"✗ message: the teacher lowers no wrong name by a nat ({', '.join(f'{n!r} {moved[n]:+.1f}' for n in spared)}). Name it, in quotes, or list what is accepted"
    lowered = [
        f"{w.name!r} by {-moved[w.name]:.1f} nats"
        for w in names
        if not w.right and w.name not in spared
    ]
    return f"✓ message: the teacher lowers {', '.join(lowered)}" + (
        f"; it does not know that {spared[0]!r} is wrong too" if spared else ""
    )
