"""Checks of 03_distillation_loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import torch

from sdpo_lab.exercises.common import UNWRITTEN, Mistakes, is_close, recognise

#: Of probabilities s.p and s.q (T, V), s.ratio = log p - log q, and of both KLs (T, 1).
GRADIENT_MISTAKES: Mistakes = {
    "the KL itself is not subtracted. A row must sum to 0, yours sums to the KL: softmax does not "
    "see a number added to all logits": lambda s: [s.p * s.ratio],
    "the sign is turned round. This is what a step of descent does; the gradient points uphill": (
        lambda s: [-s.right, -s.p * s.ratio]
    ),
    "this is the gradient of the other direction, KL(teacher || student): p - q": (
        lambda s: [s.p - s.q]
    ),
    "this is the gradient of the other direction, KL(teacher || student), and its sign is turned "
    "round: it is p - q": lambda s: [s.q - s.p],
    "nothing weighs. A word the student hardly writes must hardly count: multiply by p.exp()": (
        lambda s: [
            s.ratio - s.reverse,
            s.ratio,
            -s.ratio,
            s.ratio - s.p * s.ratio.sum(-1, keepdim=True),
        ]
    ),
    "the teacher's probabilities weigh. The student's do, p.exp(): KL(p||q) is an average over "
    "what the student writes": lambda s: [
        s.q * (s.ratio - s.reverse),
        s.q * s.ratio,
        s.q * (s.ratio + s.forward),
    ],
    "the KL of the other direction was subtracted": (
        lambda s: [s.p * (s.ratio - s.forward), s.p * (s.ratio + s.forward)]
    ),
    "the KL was added. It is subtracted": lambda s: [s.p * (s.ratio + s.reverse)],
    "this is the derivative with respect to the log-probabilities or the probabilities. The "
    "softmax between them and the logits is missing: the + 1 goes, and the KL is subtracted": (
        lambda s: [s.p * (s.ratio + 1), s.ratio + 1]
    ),
    "the KL of one place was subtracted from a word of all places. Sum with keepdim=True": (
        lambda s: [s.p * (s.ratio - s.reverse[:, 0])]
    ),
    "the same number was subtracted at all places. Each place has its own KL": (
        lambda s: [s.p * (s.ratio - s.reverse.sum()), s.p * (s.ratio - s.reverse.mean())]
    ),
    "the plain mean over the words was subtracted. It is the average under the student, the KL": (
        lambda s: [s.p * (s.ratio - s.ratio.mean(-1, keepdim=True))]
    ),
    "this is the KL, one number for every place. The gradient has one for every word": (
        lambda s: [s.reverse, s.reverse[:, 0]]
    ),
    "this is the advantage log q - log p of every word. Weigh it, turn its sign, and subtract the "
    "average": lambda s: [s.p * -s.ratio + s.reverse],
}

#: Of probabilities s.p (..., K), their logarithms s.logs, and s.mass (..., 1), their sum.
TAIL_MISTAKES: Mistakes = {
    "this is 1 minus the sum of the logs. Logs do not add up to a mass: sum the probabilities, "
    ".exp(), and take the log at the end": lambda s: [
        1 - s.logs.sum(-1, keepdim=True),
        (1 - s.logs.sum(-1, keepdim=True)).log(),
        1 - s.logs.sum(-1),
    ],
    "this is 1 minus the log of the mass inside. The 1 belongs to the mass: log(1 - mass)": (
        lambda s: [1 - s.mass.log(), 1 - s.mass[:, 0].log()]
    ),
    "this renormalises the words that were kept, as if there were no others. The bucket is for the "
    "others": lambda s: [s.logs - s.mass.log(), s.p / s.mass],
    "the words come back as they were. Return the mass that is not among them": lambda s: [s.logs],
    "this is the mass. Return its logarithm": lambda s: [1 - s.mass, 1 - s.mass[:, 0]],
    "this is the log of the mass inside, of the words that were kept. What is left is 1 minus it": (
        lambda s: [s.mass.log(), s.mass[:, 0].log()]
    ),
    "this is the mass inside. What is left is 1 minus it, and then the logarithm": (
        lambda s: [s.mass, s.mass[:, 0]]
    ),
    "the sign is turned round. The log of a mass is never positive": (
        lambda s: [-s.right, -s.right[:, 0]]
    ),
    "the numbers are right, but the last dimension is gone. Keep it, (..., 1), so that the bucket "
    "can stand beside the words: keepdim=True": lambda s: [s.right[:, 0]],
    "the words were put in front. Return the bucket alone, (..., 1)": (
        lambda s: [torch.cat([s.logs, s.right], -1)]
    ),
    "the sum ran over the rows. Each row is a distribution of its own: sum over dimension -1": (
        lambda s: [(1 - s.p.sum(0)).log(), (1 - s.p.sum(0, keepdim=True)).log()]
    ),
    "the sum ran over everything. Each row is a distribution of its own: sum over dimension -1": (
        lambda s: [(1 - s.p.sum()).log()]
    ),
    "the bucket is empty always: without it whatever the other words do is not seen": lambda s: [
        torch.full_like(s.right, -torch.inf),
        torch.full_like(s.right, math.log(1e-7)),
        torch.zeros_like(s.right),
    ],
}

#: Of s.ratio = log q - log p (B, T), s.mask, and s.credit (B, 1), its mean over an attempt: what
#: is no loss of every token.
SHAPE_MISTAKES: Mistakes = {
    "this is the advantage, and no loss yet. Multiply it with log p, which carries the gradient, "
    "and turn the sign": lambda s: [s.credit, s.credit[:, 0], -s.credit, -s.credit[:, 0]],
    "the tokens were averaged after the product. Return every token's loss, (B, T)": lambda s: [
        s.mean(s.right),
        s.mean(s.right)[:, 0],
        (s.right * s.mask).sum() / s.mask.sum(),
        s.right.mean(),
        (s.right * s.mask).sum(),
        (s.right * s.mask).mean(),
    ],
}
#: The same, in the right shape (B, T). `s.loss` is -credit · log p under the mask.
SEQUENCE_MISTAKES: Mistakes = {
    "every token has kept its own advantage: this is the token level. Average over the attempt "
    "first": lambda s: [s.loss(s.ratio)],
    "the average ran over the batch: attempts must not share their credit. Average over the last "
    "dimension": lambda s: [
        s.loss((s.ratio * s.mask).sum() / s.mask.sum()),
        s.loss(s.ratio.mean()),
        s.loss(s.credit.mean()),
    ],
    "the average ran over the attempts at each place. It belongs to the tokens of one attempt, "
    "dimension -1": lambda s: [
        s.loss(s.ratio.mean(0)),
        s.loss((s.ratio * s.mask).sum(0) / s.mask.sum(0)),
    ],
    "padding was averaged too. Multiply with the mask, and divide by the number of tokens it "
    "counts": lambda s: [
        s.loss(s.ratio.mean(-1, keepdim=True)),
        s.loss((s.ratio * s.mask).mean(-1, keepdim=True)),
        s.loss(s.ratio.sum(-1, keepdim=True) / s.mask.sum(-1, keepdim=True)),
    ],
    "this is the sum over the attempt. Divide by its number of tokens, or long attempts shout": (
        lambda s: [
            s.loss((s.ratio * s.mask).sum(-1, keepdim=True)),
            s.loss(s.ratio.sum(-1, keepdim=True)),
        ]
    ),
    "the credit is the mean log-probability of the teacher alone. The advantage compares two "
    "roles: log q - log p": lambda s: [s.loss(s.mean(s.q))],
    "the credit is the mean log-probability of the student alone. The advantage compares two "
    "roles: log q - log p": lambda s: [s.loss(s.mean(s.p))],
    "the sign is turned round: this makes likelier what the teacher likes less": (
        lambda s: [-s.loss(s.credit)]
    ),
    "the ratios of the probabilities were averaged. The advantage is the mean of their "
    "logarithms": lambda s: [s.loss(s.mean(s.ratio.exp())), s.loss(s.mean(s.ratio.exp()).log())],
    "this is the advantage, and no loss yet. Multiply it with log p, which carries the gradient": (
        lambda s: [-s.credit * s.mask, s.credit * s.mask]
    ),
    "the advantage multiplies the probability. In a policy gradient it multiplies log p": (
        lambda s: [-s.credit * s.p.exp() * s.mask]
    ),
}


def check_gradient(gradient: Callable) -> str:
    """Of `gradient(p, q)`: the gradient of KL(p||q) with respect to the student's logits, from
    log-probabilities, (T, V), (T, V) -> (T, V)."""
    # as many places as words, so that a KL without keepdim meets no error of shapes
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]).log()
    q = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.25, 0.25, 0.5]]).log()
    answer = gradient(p.clone(), q.clone())
    if answer is None:
        return UNWRITTEN
    ratio = p - q
    reverse = (p.exp() * ratio).sum(-1, keepdim=True)  # (T, 1)
    forward = -(q.exp() * ratio).sum(-1, keepdim=True)
    right = p.exp() * (ratio - reverse)
    if is_close(answer, right):
        return (
            "✓ gradient: each word's log p - log q against the average of it, weighed with the "
            "student's probability. A row sums to nothing"
        )
    s = SimpleNamespace(
        p=p.exp(), q=q.exp(), ratio=ratio, reverse=reverse, forward=forward, right=right
    )
    return recognise("gradient", answer, right, GRADIENT_MISTAKES, s)


def check_tail(tail: Callable) -> str:
    """Of `tail(log_probs)`: the log of the mass outside the given words, (..., K) -> (..., 1),
    finite where nothing is left."""
    p = torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.05, 0.02]])
    answer = tail(p.log().requires_grad_())
    if answer is None:
        return UNWRITTEN
    mass = p.sum(-1, keepdim=True)
    right = (1 - mass).log()
    if not is_close(answer, right):
        s = SimpleNamespace(p=p, logs=p.log(), mass=mass, right=right)
        return recognise("tail", answer, right, TAIL_MISTAKES, s)
    if not answer.requires_grad:
        return (
            "✗ tail: the numbers are right, but no gradient flows back. The student moves mass in "
            "and out of the bucket through it: no no_grad, no detach"
        )
    # all mass inside, to the rounding of float32
    full = torch.tensor([[1.0, 1e-12, 1e-13]]).log().requires_grad_()
    edge = tail(full)
    if not edge.isfinite().all():
        return (
            "✗ tail: right, until the words hold all the mass. Then it is "
            f"{float(edge.detach()):g}, and the loss is lost. Keep at least a little mass in the "
            "bucket, such as 1e-7: clamp before the log"
        )
    if edge.requires_grad and not torch.autograd.grad(edge.sum(), full)[0].isfinite().all():
        return (
            "✗ tail: finite where the words hold all the mass, but its gradient is not. Clamp "
            "before the log, not after it"
        )
    # 1 - exp(-1e-6) is one millionth; float32 has no such number between 1 - 1e-6 and 1
    small = float(tail(torch.tensor([[-1e-6]])).detach())
    if not math.isclose(small, math.log(1e-6), abs_tol=0.01):
        return (
            "✓ tail: right, and finite. Of a bucket of one millionth it loses digits to rounding; "
            "log(-expm1(logsumexp)) keeps them"
        )
    return (
        "✓ tail: the mass of all other words in one bucket, finite and exact where there is hardly "
        "any"
    )


def check_sequence(sequence_loss: Callable) -> str:
    """Of `sequence_loss(p, q, mask)`: the loss of every token at sequence level,
    (B, T) thrice -> (B, T).

    p and q are log-probabilities of the sampled tokens, mask is 1 on an attempt's tokens and 0 on
    padding. Only tokens under the mask are compared.
    """
    p = torch.tensor([[-0.1, -1.5, -0.4, -2.0], [-0.3, -0.7, -1.1, -0.2]]).requires_grad_()
    q = torch.tensor([[-0.2, -3.5, -0.1, -0.3], [-0.9, -0.5, -0.4, -0.9]]).requires_grad_()
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    answer = sequence_loss(p, q, mask)
    if answer is None:
        return UNWRITTEN

    def mean(values: torch.Tensor) -> torch.Tensor:  # of an attempt, (B, T) -> (B, 1)
        return (values * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)

    def loss(credit: torch.Tensor) -> torch.Tensor:
        return -credit * p * mask

    ratio = (q - p).detach()
    credit = mean(ratio)
    s = SimpleNamespace(
        p=p, q=q, mask=mask, ratio=ratio, credit=credit, right=-credit * p, mean=mean, loss=loss
    )
    if not isinstance(answer, torch.Tensor) or answer.shape != p.shape:
        return recognise("sequence", answer, s.right, SHAPE_MISTAKES, s)
    on_tokens = answer * mask  # what stands on padding does not count
    if not is_close(on_tokens, loss(credit)):
        return recognise("sequence", on_tokens, loss(credit), SEQUENCE_MISTAKES, s)
    if not answer.requires_grad:
        return (
            "✗ sequence: the numbers are right, but no gradient flows back to the student. Detach "
            "the credit alone"
        )
    to_p, to_q = torch.autograd.grad(on_tokens.sum(), (p, q), allow_unused=True)
    if to_q is not None and to_q.abs().max() > 0:
        return (
            "✗ sequence: the numbers are right, but the teacher gets a gradient. The credit is a "
            "fixed number: detach it"
        )
    if to_p is None or not is_close(to_p, -credit * mask):
        return (
            "✗ sequence: the numbers are right, but the student's gradient is not: it flows "
            "through the credit too. Detach the whole credit, and nothing else"
        )
    return "✓ sequence: one advantage for all tokens of an attempt, and the padding has no say"
