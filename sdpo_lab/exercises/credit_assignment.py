"""The checks of 01_credit_assignment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sdpo_lab.exercises.common import UNWRITTEN, ToyModel, is_close, recognise


def no_loss(name: str, found: Any, over: str, detached: str) -> str:
    """Why what came back is not one number with a gradient, in words; "" when it is."""
    if found is None:
        return UNWRITTEN
    if not isinstance(found, torch.Tensor):
        return f"✗ {name}: returns a {type(found).__name__}, a tensor was expected"
    if found.numel() != 1:
        return f"✗ {name}: the shape is {tuple(found.shape)}. A loss is one number: take the mean over the {over}"
    return (
        "" if found.requires_grad else f"✗ {name}: no gradient flows back to the logits. {detached}"
    )


def check_policy_loss(policy_loss: Callable) -> str:
    """Of `policy_loss(logits, actions, rewards)`: a loss whose descent follows the estimated policy gradient, (K,), (N,), (N,) -> ().

    Only the gradient is looked at: losses of other values with the same gradient are as good.
    """
    values, actions, rewards = (
        [0.4, -0.3, 0.9, 0.0],
        torch.tensor([2, 0, 2, 1, 3]),
        torch.tensor([1.0, 0.2, 0.5, 0.0, 0.7]),
    )

    def gradient(loss: Callable) -> torch.Tensor:
        logits = torch.tensor(values, requires_grad=True)
        return torch.autograd.grad(loss(logits.log_softmax(0), logits), logits)[0]

    logits = torch.tensor(values, requires_grad=True)
    found = policy_loss(logits, actions, rewards)
    if complaint := no_loss(
        "policy_loss",
        found,
        "samples",
        "A reward is a number that knows nothing of them; what depends on them is "
        "the log-probability of the action that was drawn",
    ):
        return complaint
    moved = torch.autograd.grad(found.sum(), logits, allow_unused=True)[0]
    moved = torch.zeros_like(logits) if moved is None else moved
    log_p, p = (lambda lp: lp[actions]), (lambda lp: lp[actions].exp())
    right = gradient(lambda lp, z: -(rewards * log_p(lp)).mean())
    if is_close(moved, right):
        return "✓ policy_loss: its gradient is minus the estimate, so that descent raises what was rewarded"
    centred = rewards - rewards.mean()
    wrong = {
        "the minus is missing. An optimiser descends: this one would unlearn what is rewarded": [
            -right
        ],
        "each sample is weighed with p, as in r · p(a) without a logarithm. Drawing has done that already; the estimator is r · ∇ log p": [
            gradient(lambda lp, z: -(rewards * p(lp)).mean()),
            gradient(lambda lp, z: (rewards * p(lp)).mean()),
        ],
        "p and its logarithm: r · p(a) · log p(a). Drawing has weighed with p already: the more probable action is there more often": [
            gradient(lambda lp, z: -(rewards * p(lp) * log_p(lp)).mean())
        ],
        "these are the logits of the actions, not their log-probabilities. Without log_softmax nothing is lowered where one is raised": [
            gradient(lambda lp, z: -(rewards * z[actions]).mean()),
            gradient(lambda lp, z: -(rewards * z[actions]).sum()),
        ],
        "the rewards do not weigh the samples: this raises whatever was drawn, good or bad": [
            gradient(lambda lp, z: -log_p(lp).mean()),
            gradient(lambda lp, z: -log_p(lp).sum()),
            gradient(lambda lp, z: -rewards.mean() * log_p(lp).mean()),
        ],
        "the sum over the samples. Take the mean, or the step grows with the number of samples": [
            gradient(lambda lp, z: -(rewards * log_p(lp)).sum()),
            gradient(lambda lp, z: (rewards * log_p(lp)).sum()),
        ],
        "the mean has been subtracted from the rewards. That is a baseline, and the next section; here the rewards are taken as they are": [
            gradient(lambda lp, z: -(centred * log_p(lp)).mean())
        ],
    }
    return "✗ policy_loss: " + recognise(moved, right, wrong).replace(
        "the shape is right, the numbers", "the gradient's shape is right, its numbers"
    )


def check_group_advantages(group_advantages: Callable) -> str:
    """Of `group_advantages(rewards)`: each reward minus the mean of its own group, (P, G) -> (P, G)."""
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.5]])
    given = rewards.clone()
    try:
        found = group_advantages(given)
    except RuntimeError as error:  # PyTorch's words for shapes that do not fit
        return f"✗ group_advantages: the mean of the groups has lost its dimension, so that it cannot be subtracted: keepdim=True ({error})"
    if found is None:
        return UNWRITTEN
    if not torch.equal(given, rewards):
        return "✗ group_advantages: the rewards themselves were changed. Return a new tensor; -= writes into the old one"
    mean, std = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True)
    right, others = rewards - mean, (rewards.sum(1, keepdim=True) - rewards) / 3
    if is_close(found, right):
        return "✓ group_advantages: the group is the baseline, and where all are alike the advantage is zero"
    if isinstance(found, torch.Tensor) and found.isnan().any():
        return (
            "✗ group_advantages: NaN. Where all rewards of a group are alike their standard deviation is zero, and 0 / 0 is not a number. "
            "Here the advantage is reward minus mean alone"
        )
    biased = rewards.std(1, keepdim=True, correction=0)
    scaled = [
        right / (s + tiny) for s in (std, biased) for tiny in (1e-8, 1e-6, 1e-5, 1e-4, 1e-3)
    ] + [right / s.clamp(min=1e-6) for s in (std, biased)]
    wrong = {
        "the mean of the whole batch. An easy request lifts all its attempts over it, good and bad; the baseline is the mean of the own group, a row": [
            rewards - rewards.mean()
        ],
        "the mean ran over the requests: dimension 0. A group is a row, dimension 1": [
            rewards - rewards.mean(0, keepdim=True)
        ],
        "there is no baseline: these are the rewards": [rewards],
        "the sign is turned round: reward minus mean": [-right],
        "divided by the standard deviation. The first version of GRPO does that; here, as in the SDPO paper, the advantage is reward minus mean alone": scaled,
        "the mean of the OTHER attempts, without the own one. That is a baseline too, G / (G - 1) times as far; GRPO's mean is over the whole group": [
            rewards - others
        ],
        "these are the means. The advantage is the reward minus its group's mean": [
            mean,
            mean[:, 0],
            mean.expand_as(rewards),
        ],
        "one number for a group. Each attempt has an advantage of its own": [
            right.sum(1),
            right.mean(1),
        ],
    }
    return "✗ group_advantages: " + recognise(found, right, wrong)


def check_credit_loss(credit_loss: Callable) -> str:
    """Of `credit_loss(logits, cut, ids, advantages)`: the mean over an attempt's T tokens of -advantage · log p, from the logits (L, V) of a prompt
    of `cut` tokens and the attempt. Only the gradient is looked at."""
    prompt, ids, advantages = (
        [1, 4, 2],
        torch.tensor([3, 0, 3, 1]),
        torch.tensor([0.0, -1.0, 0.5, -2.0]),
    )
    whole, cut = torch.tensor([prompt + ids.tolist()]), len(prompt)
    start = ToyModel()(whole).logits[0].detach()  # (L, V)

    def gradient(loss: Callable) -> torch.Tensor:
        z = start.clone().requires_grad_()
        return torch.autograd.grad(loss(z), z)[0]

    def taken(z: torch.Tensor, places: slice, tokens: torch.Tensor = ids) -> torch.Tensor:
        return z[places].gather(1, tokens[:, None])[:, 0]

    logits = start.clone().requires_grad_()
    found = credit_loss(logits, cut, ids, advantages)
    if complaint := no_loss(
        "credit_loss",
        found,
        "tokens of the attempt",
        "What is summed up must contain log p of the tokens, not detached",
    ):
        return complaint
    moved = torch.autograd.grad(found.sum(), logits, allow_unused=True)[0]
    moved = torch.zeros_like(logits) if moved is None else moved
    before = slice(cut - 1, -1)
    right = gradient(lambda z: -(advantages * taken(z.log_softmax(-1), before)).mean())
    if is_close(moved, right):
        return "✓ credit_loss: each token of the attempt is moved by its own credit, and the others not at all"
    blamed = (advantages != 0).sum()
    wrong = {
        "the minus is missing: this raises what is blamed": [-right],
        "the rows are shifted by one: the logits at a place are about the NEXT token, so those of the first token stand at the last of the prompt": [
            gradient(lambda z: -(advantages * taken(z.log_softmax(-1), slice(cut, None))).mean()),
            gradient(
                lambda z: (
                    -(advantages[:-1] * taken(z.log_softmax(-1), slice(cut, -1), ids[:-1])).mean()
                )
            ),
        ],
        "the mean runs over the prompt too, so that a long question makes the step shorter. Divide by the tokens of the attempt": [
            right * len(ids) / n for n in (cut + len(ids), cut + len(ids) - 1)
        ],
        "the sum over the tokens. Take the mean, or long attempts count more": [right * len(ids)],
        "the mean runs over the blamed tokens alone. Take it over all tokens of the attempt, so that one blame weighs the same whatever else is blamed": [
            right * len(ids) / blamed,
            right * len(ids) / advantages.sum().abs(),
        ],
        "these are logits, not log-probabilities: log_softmax is missing": [
            gradient(lambda z: -(advantages * taken(z, before)).mean())
        ],
        "the logarithm is missing: these are probabilities": [
            gradient(lambda z: -(advantages * taken(z.softmax(-1), before)).mean())
        ],
        "the softmax ran over the places and not over the vocabulary: it belongs to the last dimension": [
            gradient(lambda z: -(advantages * taken(z.log_softmax(0), before)).mean()),
            gradient(lambda z: -(advantages * taken(z[before].log_softmax(0), slice(None))).mean()),
        ],
        "the advantages do not weigh the tokens: this raises them all alike": [
            gradient(lambda z: -taken(z.log_softmax(-1), before).mean())
        ],
        "the mean advantage went to every token. That is the outcome's credit again: each token has its own": [
            gradient(lambda z: -(advantages.mean() * taken(z.log_softmax(-1), before)).mean())
        ],
    }
    return "✗ credit_loss: " + recognise(moved, right, wrong).replace(
        "the shape is right, the numbers", "the gradient's shape is right, its numbers"
    )
