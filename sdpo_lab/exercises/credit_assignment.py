"""The checks of 01_credit_assignment."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch

from sdpo_lab.exercises.common import (
    UNWRITTEN,
    Mistakes,
    ToyModel,
    check_descent,
    is_close,
    recognise,
)

#: Losses: of N samples s.rewards (N,), the log-probabilities s.log_p (N,) and logits s.z (N,) of
#: their actions.
POLICY_MISTAKES: Mistakes = {
    "the minus is missing. An optimiser descends: this one would unlearn what is rewarded": (
        lambda s: [(s.rewards * s.log_p).mean()]
    ),
    "each sample is weighed with p, as in r · p(a) without a logarithm. Drawing has done that "
    "already; the estimator is r · ∇ log p": lambda s: [
        -(s.rewards * s.log_p.exp()).mean(),
        (s.rewards * s.log_p.exp()).mean(),
    ],
    "p and its logarithm: r · p(a) · log p(a). Drawing has weighed with p already: the more "
    "probable action is there more often": lambda s: [
        -(s.rewards * s.log_p.exp() * s.log_p).mean(),
    ],
    "these are the logits of the actions, not their log-probabilities. Without log_softmax nothing "
    "is lowered where one is raised": lambda s: [
        -(s.rewards * s.z).mean(),
        -(s.rewards * s.z).sum(),
    ],
    "the rewards do not weigh the samples: this raises whatever was drawn, good or bad": (
        lambda s: [-s.log_p.mean(), -s.log_p.sum(), -s.rewards.mean() * s.log_p.mean()]
    ),
    "the sum over the samples. Take the mean, or the step grows with the number of samples": (
        lambda s: [-(s.rewards * s.log_p).sum(), (s.rewards * s.log_p).sum()]
    ),
    "the mean has been subtracted from the rewards. That is a baseline, and the next section; here "
    "the rewards are taken as they are": lambda s: [
        -((s.rewards - s.rewards.mean()) * s.log_p).mean(),
    ],
}

#: Of s.rewards (P, G) with the mean of each group s.mean (P, 1): what is not s.right (P, G).
GROUP_MISTAKES: Mistakes = {
    "the mean of the whole batch. An easy request lifts all its attempts over it, good and bad; "
    "the baseline is the mean of the own group, a row": lambda s: [s.rewards - s.rewards.mean()],
    "the mean ran over the requests: dimension 0. A group is a row, dimension 1": (
        lambda s: [s.rewards - s.rewards.mean(0, keepdim=True)]
    ),
    "there is no baseline: these are the rewards": lambda s: [s.rewards],
    "the sign is turned round: reward minus mean": lambda s: [-s.right],
    "divided by the standard deviation. The first version of GRPO does that; here, as in the SDPO "
    "paper, the advantage is reward minus mean alone": lambda s: [
        scaled
        for std in (s.rewards.std(1, keepdim=True), s.rewards.std(1, keepdim=True, correction=0))
        for scaled in (
            *(s.right / (std + tiny) for tiny in (1e-8, 1e-6, 1e-5, 1e-4, 1e-3)),
            s.right / std.clamp(min=1e-6),
        )
    ],
    "the mean of the OTHER attempts, without the own one. That is a baseline too, G / (G - 1) "
    "times as far; GRPO's mean is over the whole group": lambda s: [
        s.rewards - (s.rewards.sum(1, keepdim=True) - s.rewards) / (s.rewards.shape[1] - 1)
    ],
    "these are the means. The advantage is the reward minus its group's mean": (
        lambda s: [s.mean, s.mean[:, 0], s.mean.expand_as(s.rewards)]
    ),
    "one number for a group. Each attempt has an advantage of its own": (
        lambda s: [s.right.sum(1), s.right.mean(1)]
    ),
}

#: Losses: of T tokens s.ids with s.advantages (T,), from s.logits (L, V). `taken` picks the
#: tokens' numbers; s.before are their rows, s.log_probs (T,) is the right pick.
CREDIT_MISTAKES: Mistakes = {
    "the minus is missing: this raises what is blamed": lambda s: [-s.right],
    "the rows are shifted by one: the logits at a place are about the NEXT token, so those of the "
    "first token stand at the last of the prompt": lambda s: [
        -(s.advantages * taken(s.logits.log_softmax(-1)[s.cut :], s.ids)).mean(),
        -(s.advantages[:-1] * taken(s.logits.log_softmax(-1)[s.cut : -1], s.ids[:-1])).mean(),
    ],
    "the mean runs over the prompt too, so that a long question makes the step shorter. Divide by "
    "the tokens of the attempt": lambda s: [
        s.right * len(s.ids) / n for n in (len(s.logits), len(s.logits) - 1)
    ],
    "the sum over the tokens. Take the mean, or long attempts count more": (
        lambda s: [s.right * len(s.ids)]
    ),
    "the mean runs over the blamed tokens alone. Take it over all tokens of the attempt, so that "
    "one blame weighs the same whatever else is blamed": lambda s: [
        s.right * len(s.ids) / (s.advantages != 0).sum(),
        s.right * len(s.ids) / s.advantages.sum().abs(),
    ],
    "these are logits, not log-probabilities: log_softmax is missing": (
        lambda s: [-(s.advantages * taken(s.logits[s.before], s.ids)).mean()]
    ),
    "the logarithm is missing: these are probabilities": (
        lambda s: [-(s.advantages * s.log_probs.exp()).mean()]
    ),
    "the softmax ran over the places and not over the vocabulary: it belongs to the last "
    "dimension": lambda s: [
        -(s.advantages * taken(s.logits.log_softmax(0)[s.before], s.ids)).mean(),
        -(s.advantages * taken(s.logits[s.before].log_softmax(0), s.ids)).mean(),
    ],
    "the advantages do not weigh the tokens: this raises them all alike": (
        lambda s: [-s.log_probs.mean()]
    ),
    "the mean advantage went to every token. That is the outcome's credit again: each token has "
    "its own": lambda s: [-(s.advantages.mean() * s.log_probs).mean()],
}


def taken(rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The number of one token a row, (T, V), (T,) -> (T,)."""
    return rows.gather(1, ids[:, None])[:, 0]


def check_policy_loss(policy_loss: Callable) -> str:
    """Of `policy_loss(logits, actions, rewards)`: a loss whose descent follows the estimated policy
    gradient, (K,), (N,), (N,) -> ().

    Only the gradient is looked at: losses of other values with the same gradient are as good.
    """
    actions = torch.tensor([2, 0, 2, 1, 3])
    rewards = torch.tensor([1.0, 0.2, 0.5, 0.0, 0.7])
    logits = torch.tensor([0.4, -0.3, 0.9, 0.0], requires_grad=True)
    log_p = logits.log_softmax(0)[actions]
    complaint = check_descent(
        "policy_loss",
        policy_loss(logits, actions, rewards),
        -(rewards * log_p).mean(),
        POLICY_MISTAKES,
        SimpleNamespace(logits=logits, rewards=rewards, log_p=log_p, z=logits[actions]),
        averaged="samples",
        detached="A reward is a number that knows nothing of them; what depends on them is the "
        "log-probability of the action that was drawn",
    )
    return complaint or (
        "✓ policy_loss: its gradient is minus the estimate, so that descent raises what was "
        "rewarded"
    )


def check_group_advantages(group_advantages: Callable) -> str:
    """Of `group_advantages(rewards)`: each reward minus the mean of its own group,
    (P, G) -> (P, G)."""
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.5]])
    given = rewards.clone()
    try:
        answer = group_advantages(given)
    except RuntimeError as error:  # PyTorch's words for shapes that do not fit
        return (
            "✗ group_advantages: the mean of the groups has lost its dimension, so that it cannot "
            f"be subtracted: keepdim=True ({error})"
        )
    if answer is None:
        return UNWRITTEN
    if not torch.equal(given, rewards):
        return (
            "✗ group_advantages: the rewards themselves were changed. Return a new tensor; -= "
            "writes into the old one"
        )
    mean = rewards.mean(1, keepdim=True)  # (P, 1)
    right = rewards - mean
    if is_close(answer, right):
        return (
            "✓ group_advantages: the group is the baseline, and where all are alike the advantage "
            "is zero"
        )
    if isinstance(answer, torch.Tensor) and answer.isnan().any():
        return (
            "✗ group_advantages: NaN. Where all rewards of a group are alike their standard "
            "deviation is zero, and 0 / 0 is not a number. Here the advantage is reward minus mean "
            "alone"
        )
    s = SimpleNamespace(rewards=rewards, mean=mean, right=right)
    return recognise("group_advantages", answer, right, GROUP_MISTAKES, s)


def check_credit_loss(credit_loss: Callable) -> str:
    """Of `credit_loss(logits, cut, ids, advantages)`: the mean over an attempt's T tokens of
    -advantage · log p, from the logits (L, V) of a prompt of `cut` tokens and the attempt. Only the
    gradient is looked at."""
    prompt, cut = [1, 4, 2], 3
    ids = torch.tensor([3, 0, 3, 1])
    advantages = torch.tensor([0.0, -1.0, 0.5, -2.0])
    whole = torch.tensor([prompt + ids.tolist()])
    logits = ToyModel()(whole).logits[0].detach().requires_grad_()  # (L, V)
    before = slice(cut - 1, -1)  # a row is about the next token
    log_probs = taken(logits.log_softmax(-1)[before], ids)  # (T,)
    right = -(advantages * log_probs).mean()
    complaint = check_descent(
        "credit_loss",
        credit_loss(logits, cut, ids, advantages),
        right,
        CREDIT_MISTAKES,
        SimpleNamespace(
            logits=logits,
            cut=cut,
            ids=ids,
            advantages=advantages,
            before=before,
            log_probs=log_probs,
            right=right,
        ),
        averaged="tokens of the attempt",
        detached="What is summed up must contain log p of the tokens, not detached",
    )
    return complaint or (
        "✓ credit_loss: each token of the attempt is moved by its own credit, and the others not "
        "at all"
    )
