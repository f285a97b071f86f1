"""Checks of 03_distillation_loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sdpo_lab.exercises.common import UNWRITTEN, is_close, recognise


def check_gradient(gradient: Callable) -> str:
    """Of `gradient(p, q)`: the gradient of KL(p||q) with respect to the student's logits, from log-probabilities, (T, V), (T, V) -> (T, V)."""
    # as many places as words, so that a KL without keepdim meets no error of shapes and can be told by its numbers
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]).log()
    q = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.25, 0.25, 0.5]]).log()
    found = gradient(p.clone(), q.clone())
    if found is None:
        return UNWRITTEN
    ratio = p - q
    reverse = (p.exp() * ratio).sum(-1, keepdim=True)  # (T, 1)
    forward = -(q.exp() * ratio).sum(-1, keepdim=True)
    right = p.exp() * (ratio - reverse)
    if is_close(found, right):
        return "✓ gradient: each word's log p - log q against the average of it, weighed with the student's probability. A row sums to nothing"
    wrong = {
        "the KL itself is not subtracted. A row must sum to 0, yours sums to the KL: softmax does not see a number added to all logits": [
            p.exp() * ratio
        ],
        "the sign is turned round. This is what a step of descent does; the gradient points uphill": [
            -right,
            -p.exp() * ratio,
        ],
        "this is the gradient of the other direction, KL(teacher || student): p - q": [
            p.exp() - q.exp()
        ],
        "this is the gradient of the other direction, KL(teacher || student), and its sign is turned round: it is p - q": [
            q.exp() - p.exp()
        ],
        "nothing weighs. A word the student hardly writes must hardly count: multiply by p.exp()": [
            ratio - reverse,
            ratio,
            -ratio,
            ratio - p.exp() * ratio.sum(-1, keepdim=True),
        ],
        "the teacher's probabilities weigh. The student's do, p.exp(): KL(p||q) is an average over what the student writes": [
            q.exp() * (ratio - reverse),
            q.exp() * ratio,
            q.exp() * (ratio + forward),
        ],
        "the KL of the other direction was subtracted": [
            p.exp() * (ratio - forward),
            p.exp() * (ratio + forward),
        ],
        "the KL was added. It is subtracted": [p.exp() * (ratio + reverse)],
        "this is the derivative with respect to the log-probabilities or the probabilities. The softmax between them and the logits is missing: "
        "the + 1 goes, and the KL is subtracted": [p.exp() * (ratio + 1), ratio + 1],
        "the KL of one place was subtracted from a word of all places. Sum with keepdim=True": [
            p.exp() * (ratio - reverse[:, 0])
        ],
        "the same number was subtracted at all places. Each place has its own KL": [
            p.exp() * (ratio - reverse.sum()),
            p.exp() * (ratio - reverse.mean()),
        ],
        "the plain mean over the words was subtracted. It is the average under the student, the KL": [
            p.exp() * (ratio - ratio.mean(-1, keepdim=True))
        ],
        "this is the KL, one number for every place. The gradient has one for every word": [
            reverse,
            reverse[:, 0],
        ],
        "this is the advantage log q - log p of every word. Weigh it, turn its sign, and subtract the average": [
            p.exp() * -ratio + reverse
        ],
    }
    return "✗ gradient: " + recognise(found, right, wrong)


def check_tail(tail: Callable) -> str:
    """Of `tail(log_probs)`: the log of the mass outside the given words, (..., K) -> (..., 1), finite where nothing is left."""
    p = torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.05, 0.02]])
    given = p.log().requires_grad_()
    found = tail(given)
    if found is None:
        return UNWRITTEN
    mass, total = p.sum(-1, keepdim=True), p.sum()
    right = (1 - mass).log()
    logs = p.log()
    wrong = {
        "this is 1 minus the sum of the logs. Logs do not add up to a mass: sum the probabilities, .exp(), and take the log at the end": [
            1 - logs.sum(-1, keepdim=True),
            (1 - logs.sum(-1, keepdim=True)).log(),
            1 - logs.sum(-1),
        ],
        "this is 1 minus the log of the mass inside. The 1 belongs to the mass: log(1 - mass)": [
            1 - mass.log(),
            1 - mass[:, 0].log(),
        ],
        "this renormalises the words that were kept, as if there were no others. The bucket is for the others": [
            logs - mass.log(),
            p / mass,
        ],
        "the words come back as they were. Return the mass that is not among them": [logs],
        "this is the mass. Return its logarithm": [1 - mass, 1 - mass[:, 0]],
        "this is the log of the mass inside, of the words that were kept. What is left is 1 minus it": [
            mass.log(),
            mass[:, 0].log(),
        ],
        "this is the mass inside. What is left is 1 minus it, and then the logarithm": [
            mass,
            mass[:, 0],
        ],
        "the sign is turned round. The log of a mass is never positive": [-right, -right[:, 0]],
        "the numbers are right, but the last dimension is gone. Keep it, (..., 1), so that the bucket can stand beside the words: keepdim=True": [
            right[:, 0]
        ],
        "the words were put in front. Return the bucket alone, (..., 1)": [
            torch.cat([logs, right], -1)
        ],
        "the sum ran over the rows. Each row is a distribution of its own: sum over dimension -1": [
            (1 - p.sum(0)).log(),
            (1 - p.sum(0, keepdim=True)).log(),
        ],
        "the sum ran over everything. Each row is a distribution of its own: sum over dimension -1": [
            (1 - total).log()
        ],
        "the bucket is empty always: without it whatever the other words do is not seen": [
            torch.full_like(right, -torch.inf),
            torch.full_like(right, math.log(1e-7)),
            torch.zeros_like(right),
        ],
    }
    if not is_close(found, right):
        return "✗ tail: " + recognise(found, right, wrong)
    if not found.requires_grad:
        return "✗ tail: the numbers are right, but no gradient flows back. The student moves mass in and out of the bucket through it: no no_grad, no detach"
    full = (
        torch.tensor([[1.0, 1e-12, 1e-13]]).log().requires_grad_()
    )  # all mass inside, to the rounding of float32
    edge = tail(full)
    if not edge.isfinite().all():
        return (
            f"✗ tail: right, until the words hold all the mass. Then it is {float(edge.detach()):g}, and the loss is lost. "
            "Keep at least a little mass in the bucket, such as 1e-7: clamp before the log"
        )
    if edge.requires_grad and not torch.autograd.grad(edge.sum(), full)[0].isfinite().all():
        return "✗ tail: finite where the words hold all the mass, but its gradient is not. Clamp before the log, not after it"
    small = tail(
        torch.tensor([[-1e-6]])
    )  # 1 - exp(-1e-6) is one millionth; float32 has no such number between 1 - 1e-6 and 1
    if not math.isclose(float(small.detach()), math.log(1e-6), abs_tol=0.01):
        return "✓ tail: right, and finite. Of a bucket of one millionth it loses digits to rounding; log(-expm1(logsumexp)) keeps them"
    return "✓ tail: the mass of all other words in one bucket, finite and exact where there is hardly any"


def check_sequence(sequence_loss: Callable) -> str:
    """Of `sequence_loss(p, q, mask)`: the loss of every token at sequence level, (B, T) thrice -> (B, T).

    p and q are log-probabilities of the sampled tokens, mask is 1 on an attempt's tokens and 0 on padding. Only tokens under the mask are compared.
    """
    p = torch.tensor([[-0.1, -1.5, -0.4, -2.0], [-0.3, -0.7, -1.1, -0.2]]).requires_grad_()
    q = torch.tensor([[-0.2, -3.5, -0.1, -0.3], [-0.9, -0.5, -0.4, -0.9]]).requires_grad_()
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    found = sequence_loss(p, q, mask)
    if found is None:
        return UNWRITTEN
    ratio, count = (q - p).detach(), mask.sum(-1, keepdim=True)

    def mean(values: torch.Tensor) -> torch.Tensor:  # of an attempt, (B, T) -> (B, 1)
        return (values * mask).sum(-1, keepdim=True) / count

    right = -mean(ratio) * p
    if not isinstance(found, torch.Tensor) or found.shape != right.shape:
        single = {
            "this is the advantage, and no loss yet. Multiply it with log p, which carries the gradient, and turn the sign": [
                mean(ratio),
                mean(ratio)[:, 0],
                -mean(ratio),
                -mean(ratio)[:, 0],
            ],
            "the tokens were averaged after the product. Return every token's loss, (B, T)": [
                mean(right),
                mean(right)[:, 0],
                (right * mask).sum() / mask.sum(),
                right.mean(),
                (right * mask).sum(),
                (right * mask).mean(),
            ],
        }
        return "✗ sequence: " + recognise(found, right, single)
    given, found = found, found * mask  # what stands on padding does not count

    def equals(credit: Any, sign: int = -1) -> torch.Tensor:
        return sign * credit * p * mask

    wrong = {
        "every token has kept its own advantage: this is the token level. Average over the attempt first": [
            equals(ratio)
        ],
        "the average ran over the batch: attempts must not share their credit. Average over the last dimension": [
            equals((ratio * mask).sum() / mask.sum()),
            equals(ratio.mean()),
            equals(mean(ratio).mean()),
        ],
        "the average ran over the attempts at each place. It belongs to the tokens of one attempt, dimension -1": [
            equals(ratio.mean(0)),
            equals((ratio * mask).sum(0) / mask.sum(0)),
        ],
        "padding was averaged too. Multiply with the mask, and divide by the number of tokens it counts": [
            equals(ratio.mean(-1, keepdim=True)),
            equals((ratio * mask).mean(-1, keepdim=True)),
            equals(ratio.sum(-1, keepdim=True) / count),
        ],
        "this is the sum over the attempt. Divide by its number of tokens, or long attempts shout": [
            equals((ratio * mask).sum(-1, keepdim=True)),
            equals(ratio.sum(-1, keepdim=True)),
        ],
        "the credit is the mean log-probability of the teacher alone. The advantage compares two roles: log q - log p": [
            equals(mean(q))
        ],
        "the credit is the mean log-probability of the student alone. The advantage compares two roles: log q - log p": [
            equals(mean(p))
        ],
        "the sign is turned round: this makes likelier what the teacher likes less": [
            equals(mean(ratio), 1)
        ],
        "the ratios of the probabilities were averaged. The advantage is the mean of their logarithms": [
            equals(mean(ratio.exp())),
            equals(mean(ratio.exp()).log()),
        ],
        "this is the advantage, and no loss yet. Multiply it with log p, which carries the gradient": [
            -mean(ratio) * mask,
            mean(ratio) * mask,
        ],
        "the advantage multiplies the probability. In a policy gradient it multiplies log p": [
            -mean(ratio) * p.exp() * mask
        ],
    }
    if not is_close(found, equals(mean(ratio))):
        return "✗ sequence: " + recognise(found, equals(mean(ratio)), wrong)
    if not given.requires_grad:
        return "✗ sequence: the numbers are right, but no gradient flows back to the student. Detach the credit alone"
    to_p, to_q = torch.autograd.grad(found.sum(), (p, q), allow_unused=True)
    if to_q is not None and to_q.abs().max() > 0:
        return "✗ sequence: the numbers are right, but the teacher gets a gradient. The credit is a fixed number: detach it"
    if to_p is None or not is_close(to_p, -mean(ratio) * mask):
        return "✗ sequence: the numbers are right, but the student's gradient is not: it flows through the credit too. Detach the whole credit, and nothing else"
    return "✓ sequence: one advantage for all tokens of an attempt, and the padding has no say"
