"""The loss of a micro-batch, head included, a chunk of tokens at a time: the vocabulary is never held for all tokens at once.

The formulas are those of `losses`, token by token; only the order of the work is another (tests hold the two equal).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sdpo_lab.core import losses
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout

#: Logits computed at once: 24 MiB in float32, 41 tokens of a vocabulary of 152 thousand. Fewer cost time (the gradient of the head is added up once a chunk),
#: more cost memory.
LOGITS_AT_ONCE = 6 * 2**20


@dataclass(frozen=True)
class Tokens:
    """What the loss needs to know of the completion tokens of a micro-batch, all attempts' one after another, each (N,)."""

    ids: torch.Tensor
    rows: torch.Tensor  #: which attempt of the micro-batch the token belongs to
    weights: torch.Tensor  #: `losses.token_weights`
    shown: torch.Tensor  #: 1 where the teacher sees more than the question, else 0
    rewards: torch.Tensor  #: GRPO's advantage of the attempt
    old: torch.Tensor | None = None  #: log p when the attempt was sampled; None: on policy
    credit: torch.Tensor | None = None  #: "sequence": the attempt's mean log-ratio

    @classmethod
    def of(
        cls,
        attempts: list[Rollout],
        weights: torch.Tensor,
        advantages: torch.Tensor,
        old: dict[int, torch.Tensor],
        hidden: torch.Tensor,
    ) -> Tokens:
        """Of whole attempts: `advantages` one each, `old` log-probabilities by their id(); where `hidden` is, in float32 or better."""
        lengths = torch.tensor([len(r.completion_ids) for r in attempts])

        exact = dict(device=hidden.device, dtype=torch.promote_types(hidden.dtype, torch.float32))

        def spread(
            values: torch.Tensor,
        ) -> torch.Tensor:  # one value an attempt to all of its tokens
            return values.repeat_interleave(lengths)

        return cls(
            ids=torch.tensor([i for r in attempts for i in r.completion_ids], device=hidden.device),
            rows=spread(torch.arange(len(attempts))).to(hidden.device),
            weights=weights.to(**exact),
            shown=spread(torch.tensor([float(r.shown) for r in attempts])).to(**exact),
            rewards=spread(advantages).to(**exact),
            old=torch.cat([old[id(r)] for r in attempts]) if old else None,
        )

    def __getitem__(self, part: slice) -> Tokens:
        return Tokens(*(None if x is None else x[part] for x in vars(self).values()))


def backward(
    config: SDPOConfig,
    hidden: torch.Tensor,
    student: Callable,
    teacher: Callable | None,
    tokens: Tokens,
    vocabulary: int,
) -> torch.Tensor:
    """Backpropagate the weighted sum of the tokens' losses, and return its value.

    hidden (N, H) of the student; student(hidden[part]) and teacher(part) give logits (C, V), a chunk of N at a time.
    Each chunk is taken back to the hidden states at once, and these to the network in the end.
    """
    if config.distillation_mode == "sequence" and teacher:
        tokens = replace(
            tokens, credit=sequence_credit(config, hidden, student, teacher, tokens, vocabulary)
        )
        teacher = None  # has said all it can
    # one block for the gradient: small ones kept from every chunk would lie between the large ones and keep the heap from being used again
    total, gradient = torch.zeros((), device=hidden.device), torch.empty_like(hidden)
    for part in chunks(len(hidden), vocabulary):
        leaf = hidden[part].detach().requires_grad_()
        loss = (
            token_losses(config, student(leaf), teacher and teacher(part), tokens[part])
            * tokens.weights[part]
        ).sum()
        loss.backward()
        gradient[part] = leaf.grad
        total = total + loss.detach()
    if hidden.requires_grad:  # not where the head alone trains
        hidden.backward(gradient)
    return total


def chunks(tokens: int, vocabulary: int) -> list[slice]:
    """The tokens in parts whose logits are at most `LOGITS_AT_ONCE` numbers."""
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    return [slice(i, i + size) for i in range(0, tokens, size)]


def token_losses(
    c: SDPOConfig, student: torch.Tensor, teacher: torch.Tensor | None, t: Tokens
) -> torch.Tensor:
    """The loss of every token under a configuration: SDPO, GRPO or a mixture, logits (C, V), (C, V) -> (C,).

    `distillation_weight` mixes the two losses (TRL), `advantage_lambda` the two advantages (paper §4.8). Where both
    advantages are the sampled token's ("sampled_token", "sequence") PPO's clip sees their mixture; over a support of many
    tokens GRPO's belongs to the sampled one alone, and what is summed are the two policy gradients.
    """
    clips = dict(old_log_probs=t.old, epsilon=c.epsilon, epsilon_high=c.epsilon_high)
    share, credit = c.advantage_lambda or 1 - c.distillation_weight, t.credit  # share: GRPO's
    if teacher is None and credit is None:
        return share * losses.policy_loss(student, t.ids, t.rewards, **clips)
    weighed = t.old is not None and c.distillation_is_clip is not None
    log_prob = (
        losses.token_log_probs(student, t.ids)
        if weighed or c.distillation_mode in ("sampled_token", "sequence")
        else None
    )
    if c.distillation_mode == "sampled_token":
        credit = losses.log_ratio(
            log_prob, losses.token_log_probs(teacher, t.ids), c.advantage_clip
        )
    if credit is not None and c.advantage_lambda:
        return losses.policy_loss(
            student, t.ids, share * t.rewards + (1 - share) * t.shown * credit, **clips
        )
    if credit is not None:
        loss = -credit * log_prob
    else:
        loss = losses.distillation_loss(
            student,
            teacher,
            t.ids,
            mode=c.distillation_mode,
            alpha=c.distillation_alpha,
            top_k=c.distillation_topk,
            add_tail=c.distillation_add_tail,
            clip=c.advantage_clip,
        )
    if weighed:
        loss = loss * losses.importance_weights(log_prob, t.old, c.distillation_is_clip)
    loss = (1 - share) * t.shown * loss
    return loss + share * losses.policy_loss(student, t.ids, t.rewards, **clips) if share else loss


@torch.no_grad()
def sequence_credit(
    c: SDPOConfig,
    hidden: torch.Tensor,
    student: Callable,
    teacher: Callable,
    t: Tokens,
    vocabulary: int,
) -> torch.Tensor:
    """The mean log-ratio of every token's attempt, (N,): it must be known before the first chunk is taken back."""
    ratios = torch.cat(
        [
            losses.log_ratio(
                losses.token_log_probs(student(hidden[part]), t.ids[part]),
                losses.token_log_probs(teacher(part), t.ids[part]),
                c.advantage_clip,
            )
            for part in chunks(len(hidden), vocabulary)
        ]
    )
    member = (
        t.rows[None] == torch.arange(int(t.rows.max()) + 1, device=t.rows.device)[:, None]
    ).to(ratios)  # (B, N)
    return ((member @ ratios) / member.sum(1).clamp(min=1))[t.rows]
