"""Small distributions, and the closed form of their divergence."""

from __future__ import annotations

import torch


def logits(*rows):
    return torch.tensor([rows]).double().log()


def random_pair(seed, v=13, scale=2.0):
    g = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(2, 3, v, generator=g, dtype=torch.float64) for _ in range(2)]


def closed_form(p, q, alpha):
    if alpha == 0:
        return p - q
    if alpha == 1:
        return p * ((p / q).log() - (p * (p / q).log()).sum(-1, keepdim=True))
    m = (1 - alpha) * p + alpha * q
    return (1 - alpha) * p * ((p / m).log() - (p * (p / m).log()).sum(-1, keepdim=True))


def finite_differences(f, x, step=1e-5):
    """Gradient of the sum of f at x, one entry after the other."""
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        delta = torch.zeros_like(x)
        delta.view(-1)[i] = step
        gradient.view(-1)[i] = (f(x + delta).sum() - f(x - delta).sum()) / (2 * step)
    return gradient


def gradient(f, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


IDS = torch.tensor([[0, 3, 5], [2, 2, 1]])
MASK = torch.tensor([[1.0, 1, 0], [1, 1, 1]]).double()


def at(log_probs, ids=IDS):
    return log_probs.gather(-1, ids[..., None])[..., 0]
