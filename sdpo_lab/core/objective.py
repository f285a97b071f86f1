"""The loss of a micro-batch, head included, a chunk of tokens at a time.

The vocabulary is never held for all tokens at once. The formulas are those of `losses`, token by
token; only the order of the work is another (tests hold the two equal). Letters: see `loop`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from sdpo_lab.core import losses
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.rollouts import Rollout

#: Logits computed at once: 24 MiB in float32, 41 tokens of a vocabulary of 152 thousand. Fewer cost
#: time (the gradient of the head is added up once a chunk), more cost memory.
LOGITS_AT_ONCE = 6 * 2**20


@dataclass(frozen=True)
class Tokens:
    """What the loss needs to know of the completion tokens of a micro-batch, each (N,).

    Those of all attempts, one attempt's after another.
    """

    ids: Tensor
    rows: Tensor  #: which attempt of the micro-batch the token belongs to
    weights: Tensor  #: `losses.token_weights`
    #: 1 where the teacher sees more than the question, else 0. In the loop all of a micro-batch are
    #: alike (`Batch.micro_batches`), and without a teacher it is not read; tests mix both.
    distill_mask: Tensor
    group_advantages: Tensor  #: GRPO's, of the attempt
    old_log_probs: Tensor | None = None  #: when the attempt was sampled; None: on policy
    log_ratio: Tensor | None = None  #: "sequence": SDPO's advantage, the attempt's mean log-ratio

    @classmethod
    def of(
        cls,
        attempts: list[Rollout],
        weights: Tensor,
        advantages: Tensor,
        old_log_probs: list[Tensor] | None,
        hidden: Tensor,
    ) -> Tokens:
        """Of whole attempts: `weights` (N,), one of `advantages` and `old_log_probs` for each.

        On the device of `hidden`, in float32 or better.
        """
        lengths = torch.tensor([len(r.completion_ids) for r in attempts])
        shown = torch.tensor([float(r.shown) for r in attempts])
        rows = torch.arange(len(attempts)).repeat_interleave(lengths)  # (N,)
        ids = [i for r in attempts for i in r.completion_ids]
        exact = torch.promote_types(hidden.dtype, torch.float32)
        return cls(
            ids=torch.tensor(ids, device=hidden.device),
            rows=rows.to(hidden.device),
            weights=weights.to(hidden.device, exact),
            distill_mask=shown[rows].to(hidden.device, exact),
            group_advantages=advantages[rows].to(hidden.device, exact),
            old_log_probs=torch.cat(old_log_probs) if old_log_probs else None,
        )

    def __getitem__(self, part: slice) -> Tokens:
        given = {name: x[part] for name, x in vars(self).items() if x is not None}
        return replace(self, **given)


def loss_and_backward(
    config: SDPOConfig,
    hidden: Tensor,
    student_logits_of: Callable[[Tensor], Tensor],
    teacher_logits_of: Callable[[slice], Tensor] | None,
    tokens: Tokens,
    vocabulary: int,
) -> Tensor:
    """Backpropagate the weighted sum of the tokens' losses, and return its value.

    hidden (N, H) of the student; student_logits_of(hidden[part]) and teacher_logits_of(part) give
    logits (C, V). Each chunk is backpropagated to its hidden states as soon as its loss is known,
    so only one chunk's logits exist; their gradients then go through the network in a single
    backward.
    """
    if config.distillation_mode == "sequence" and teacher_logits_of:
        log_ratio = mean_log_ratio(
            config, hidden, student_logits_of, teacher_logits_of, tokens, vocabulary
        )
        tokens = replace(tokens, log_ratio=log_ratio)
        teacher_logits_of = None  # nothing else is asked of it
    total = torch.zeros((), device=hidden.device)
    # one block for the gradient: small ones kept from every chunk would lie between the large ones
    # and keep the heap from being used again
    gradient = torch.empty_like(hidden)
    for part in chunks(len(hidden), vocabulary):
        leaf = hidden[part].detach().requires_grad_()
        student_logits = student_logits_of(leaf)  # (C, V)
        teacher_logits = teacher_logits_of(part) if teacher_logits_of else None
        loss = token_losses(config, student_logits, teacher_logits, tokens[part])
        weighted = (loss * tokens.weights[part]).sum()
        weighted.backward()
        gradient[part] = cast(Tensor, leaf.grad)  # backward has filled it
        total = total + weighted.detach()
    if hidden.requires_grad:  # not where the head alone trains
        hidden.backward(gradient)
    return total


backward = loss_and_backward  #: its name before


def chunks(tokens: int, vocabulary: int) -> list[slice]:
    """The tokens in parts whose logits are at most `LOGITS_AT_ONCE` numbers."""
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    return [slice(first, first + size) for first in range(0, tokens, size)]


def token_losses(
    c: SDPOConfig, student_logits: Tensor, teacher_logits: Tensor | None, t: Tokens
) -> Tensor:
    """The loss of every token: SDPO, GRPO or a mixture, logits (C, V), (C, V) -> (C,).

    g is GRPO's share: `advantage_lambda` (λ) where that is set (paper §4.8), otherwise
    1 - `distillation_weight` (TRL); never both.

    no teacher: GRPO, or nothing shown       g GRPO
    λ = 0                                    g GRPO + (1 - g) SDPO
    λ > 0, "full_logits" or "topk_logits"    the same sum, with g = λ
    λ > 0, "sampled_token" or "sequence"     PPO's clip of the advantage g A_GRPO + (1 - g) A_SDPO

    "sequence" brings A_SDPO with it (`mean_log_ratio`) and needs no logits of the teacher here.
    Over a support of many tokens GRPO's advantage belongs to the sampled one alone, so the two
    policy gradients are summed.
    """
    grpo_weight = c.advantage_lambda if c.advantage_lambda > 0 else 1 - c.distillation_weight
    log_ratio, log_prob = t.log_ratio, None
    # "sequence", "sampled_token": losses.distillation_loss has both too, for readers and tests
    if log_ratio is not None:
        log_prob = losses.token_log_probs(student_logits, t.ids)
        loss = -log_ratio * log_prob
    elif teacher_logits is None:  # GRPO, or an attempt shown nothing
        return grpo_weight * policy_loss(c, student_logits, t.group_advantages, t)
    elif c.distillation_mode == "sampled_token":
        log_prob = losses.token_log_probs(student_logits, t.ids)
        teacher_log_prob = losses.token_log_probs(teacher_logits, t.ids)
        log_ratio = losses.log_ratio(log_prob, teacher_log_prob, c.advantage_clip)
        loss = -log_ratio * log_prob
    else:
        loss = divergence_loss(c, student_logits, teacher_logits, t)

    if log_ratio is not None and c.advantage_lambda:  # both advantages under one clip
        sdpo_advantages = (1 - grpo_weight) * t.distill_mask * log_ratio
        advantages = grpo_weight * t.group_advantages + sdpo_advantages
        return policy_loss(c, student_logits, advantages, t)

    if t.old_log_probs is not None and c.distillation_is_clip is not None:
        if log_prob is None:
            log_prob = losses.token_log_probs(student_logits, t.ids)
        loss = loss * losses.importance_weights(log_prob, t.old_log_probs, c.distillation_is_clip)
    loss = (1 - grpo_weight) * t.distill_mask * loss
    if grpo_weight:
        loss = loss + grpo_weight * policy_loss(c, student_logits, t.group_advantages, t)
    return loss


def policy_loss(c: SDPOConfig, student_logits: Tensor, advantages: Tensor, t: Tokens) -> Tensor:
    return losses.policy_loss(
        student_logits,
        t.ids,
        advantages,
        old_log_probs=t.old_log_probs,
        epsilon=c.epsilon,
        epsilon_high=c.epsilon_high,
    )


def divergence_loss(
    c: SDPOConfig, student_logits: Tensor, teacher_logits: Tensor, t: Tokens
) -> Tensor:
    return losses.distillation_loss(
        student_logits,
        teacher_logits,
        t.ids,
        mode=c.distillation_mode,
        alpha=c.distillation_alpha,
        top_k=c.distillation_topk,
        add_tail=c.distillation_add_tail,
        clip=c.advantage_clip,
    )


@torch.no_grad()
def mean_log_ratio(
    c: SDPOConfig,
    hidden: Tensor,
    student_logits_of: Callable[[Tensor], Tensor],
    teacher_logits_of: Callable[[slice], Tensor],
    t: Tokens,
    vocabulary: int,
) -> Tensor:
    """The mean log-ratio of every token's attempt, (N,), known before a chunk is backpropagated."""
    parts = []
    for part in chunks(len(hidden), vocabulary):
        log_prob = losses.token_log_probs(student_logits_of(hidden[part]), t.ids[part])
        teacher_log_prob = losses.token_log_probs(teacher_logits_of(part), t.ids[part])
        parts.append(losses.log_ratio(log_prob, teacher_log_prob, c.advantage_clip))
    log_ratio = torch.cat(parts)
    attempts = torch.arange(int(t.rows.max()) + 1, device=t.rows.device)
    member = (t.rows[None] == attempts[:, None]).to(log_ratio)  # (B, N)
    mean = (member @ log_ratio) / member.sum(1).clamp(min=1)
    return mean[t.rows]
