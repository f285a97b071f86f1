"""Gradients of the losses: closed forms, finite differences, expectations."""

from __future__ import annotations

import pytest
import torch

from sdpo_lab import losses
from tests.shared.distributions import (
    IDS,
    MASK,
    at,
    closed_form,
    finite_differences,
    gradient,
    random_pair,
)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_gradient_is_the_closed_form(alpha):
    student, teacher = random_pair(1)
    student.requires_grad_()
    losses.distillation_loss(
        student, teacher, torch.zeros(2, 3, dtype=torch.long), mode="full_logits", alpha=alpha
    ).sum().backward()
    p, q = student.detach().softmax(-1), teacher.softmax(-1)
    assert torch.allclose(student.grad, closed_form(p, q, alpha), atol=1e-12)
    if alpha == 1:  # the first version of the paper forgot the weight p: it must not pass
        assert not torch.allclose(
            student.grad, (p / q).log() - (p / q).log().mean(-1, keepdim=True), atol=1e-3
        )


def test_sampled_token_estimates_the_reverse_kl_gradient():
    """Averaged over the student's own tokens, its gradient is that of the reverse KL (Prop.
    2.1)."""
    student, teacher = random_pair(4, v=5)
    student, teacher = student[:1, :1], teacher[:1, :1]
    p, total = student.softmax(-1)[0, 0], torch.zeros(5, dtype=torch.float64)
    for token in range(5):
        x = student.clone().requires_grad_()
        losses.distillation_loss(
            x, teacher, torch.tensor([[token]]), mode="sampled_token"
        ).sum().backward()
        total += p[token] * x.grad[0, 0]
    assert torch.allclose(
        total, closed_form(student.softmax(-1), teacher.softmax(-1), 1.0)[0, 0], atol=1e-12
    )


def test_no_gradient_reaches_the_teacher_and_half_precision_is_upcast():
    student, teacher = random_pair(5)
    student.requires_grad_()
    teacher.requires_grad_()
    losses.distillation_loss(student, teacher, torch.zeros(2, 3, dtype=torch.long)).sum().backward()
    assert teacher.grad is None and student.grad is not None
    low = losses.distillation_loss(
        student.detach().bfloat16(),
        teacher.detach().bfloat16(),
        torch.zeros(2, 3, dtype=torch.long),
    )
    assert low.dtype == torch.float32


def test_policy_loss_gradient_is_reinforce():
    student, _ = random_pair(6, v=4)
    student.requires_grad_()
    ids, advantages = (
        torch.tensor([[0, 1, 2], [3, 0, 1]]),
        torch.tensor([0.5, -1.0], dtype=torch.float64),
    )
    loss = losses.policy_loss(student, ids, advantages[:, None])
    assert torch.allclose(loss, -advantages[:, None].expand(2, 3))
    loss.sum().backward()
    one_hot = torch.nn.functional.one_hot(ids, 4)
    assert torch.allclose(
        student.grad,
        -advantages[:, None, None] * (one_hot - student.detach().softmax(-1)),
        atol=1e-12,
    )


@pytest.mark.parametrize("mode", ["full_logits", "topk_logits"])
@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.3, 0.5, 0.9, 1.0])
def test_gradient_by_finite_differences(mode, tail, alpha):
    student, teacher = random_pair(2, v=6)
    f = lambda x: losses.distillation_loss(
        x, teacher, IDS, mode=mode, alpha=alpha, top_k=3, add_tail=tail
    )
    assert torch.autograd.gradcheck(f, student.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("mode", ["sampled_token", "sequence"])
@pytest.mark.parametrize("clip", [None, 0.8])
def test_gradient_of_a_token_credit_by_finite_differences_with_the_credit_frozen(mode, clip):
    student, teacher = random_pair(7, v=6)
    credit = at(teacher.log_softmax(-1)) - at(student.log_softmax(-1))
    credit = credit if clip is None else credit.clamp(-clip, clip)
    if mode == "sequence":
        credit = ((credit * MASK).sum(1) / MASK.sum(1))[:, None].expand(2, 3)
    expected = finite_differences(lambda x: -credit * at(x.log_softmax(-1)), student)
    found = gradient(
        lambda x: losses.distillation_loss(x, teacher, IDS, mode=mode, clip=clip, mask=MASK),
        student,
    )
    assert torch.allclose(found, expected, atol=1e-8) and expected.abs().max() > 0.1


@pytest.mark.parametrize("support", ["full", "tail", "no tail"])
def test_gradient_of_a_clipped_divergence_by_finite_differences_with_the_advantage_frozen(support):
    student, teacher = random_pair(8, v=6)
    top = student.topk(3).indices

    def probabilities(logits):
        p = logits.softmax(-1)
        inside = p.gather(-1, top)
        mass = inside.sum(-1, keepdim=True)
        return {"full": p, "tail": torch.cat([inside, 1 - mass], -1), "no tail": inside / mass}[
            support
        ]

    advantage = (probabilities(teacher) / probabilities(student)).log()
    assert (advantage.abs() > 0.5).any() and (advantage.abs() < 0.5).any()
    expected = finite_differences(
        lambda x: -(probabilities(x) * advantage.clamp(-0.5, 0.5)).sum(-1), student
    )
    mode = "full_logits" if support == "full" else "topk_logits"
    found = gradient(
        lambda x: losses.distillation_loss(
            x, teacher, IDS, mode=mode, top_k=3, add_tail=support == "tail", clip=0.5
        ),
        student,
    )
    assert torch.allclose(found, expected, atol=1e-8) and expected.abs().max() > 0.1


@pytest.mark.parametrize("mode", ["full_logits", "topk_logits", "sampled_token", "sequence"])
def test_an_importance_weight_multiplies_each_tokens_gradient(mode):
    student, teacher = random_pair(9, v=6)
    old = at(student.log_softmax(-1)) - torch.tensor([[0.1, 2, -0.3], [-1, 0.5, 0]])
    weight = (at(student.log_softmax(-1)) - old).exp().clamp(max=1.5)
    assert (weight == 1.5).sum() == 2
    alone = gradient(lambda x: losses.distillation_loss(x, teacher, IDS, mode=mode), student)
    found = gradient(
        lambda x: (
            losses.distillation_loss(x, teacher, IDS, mode=mode)
            * losses.importance_weights(losses.token_log_probs(x, IDS), old, clip=1.5)
        ),
        student,
    )
    assert torch.allclose(found, weight[..., None] * alone, atol=1e-12)


def test_gradient_of_ppos_clip_by_finite_differences_and_where_it_is_nothing():
    """Ratios inside, above and below the interval, with advantages of either sign: 0 exactly where
    moving on is not wanted."""
    student, _ = random_pair(10, v=6)
    ratio = torch.tensor([[1.1, 1.5, 0.6], [1.1, 1.5, 0.6]]).double()
    advantage = torch.tensor([[1.0, 1, 1], [-1, -1, -1]]).double() * 0.7
    old = at(student.log_softmax(-1)) - ratio.log()
    f = lambda x: losses.policy_loss(x, IDS, advantage, old, epsilon=0.2, epsilon_high=0.28)
    assert torch.autograd.gradcheck(f, student.clone().requires_grad_(), atol=1e-7)
    assert torch.allclose(
        f(student), -0.7 * torch.tensor([[1.1, 1.28, 0.6], [-1.1, -1.5, -0.8]]).double()
    )
    found = gradient(f, student)
    assert torch.allclose(found, finite_differences(f, student), atol=1e-8)
    assert (found.abs().amax(-1) > 0).tolist() == [[True, False, True], [True, True, False]]


def test_gradient_of_the_policy_loss_on_policy_by_finite_differences_with_old_frozen():
    student, _ = random_pair(11, v=6)
    old, advantage = at(student.log_softmax(-1)), torch.tensor([[1.0], [-0.4]]).double()
    expected = finite_differences(
        lambda x: -(at(x.log_softmax(-1)) - old).exp() * advantage, student
    )
    assert torch.allclose(
        gradient(lambda x: losses.policy_loss(x, IDS, advantage), student), expected, atol=1e-8
    )


def test_the_formula_of_the_papers_first_version_fails_where_the_second_passes():
    """Prop. 2.1: sum over the vocabulary of p log(p/q) grad log p. Version 1 left out the p."""
    student, teacher = random_pair(12)
    p, ratio = student.softmax(-1), student.log_softmax(-1) - teacher.log_softmax(-1)
    grad_log_p = (
        torch.eye(13).double() - p[..., None, :]
    )  # row v: the gradient of log p_v with respect to the logits
    second, first = (
        ((weight * ratio)[..., None] * grad_log_p).sum(-2) for weight in (p, torch.ones_like(p))
    )
    found = gradient(
        lambda x: losses.distillation_loss(
            x, teacher, torch.zeros(2, 3, dtype=torch.long), mode="full_logits"
        ),
        student,
    )
    assert torch.allclose(found, second, atol=1e-12) and torch.allclose(
        second, closed_form(p, teacher.softmax(-1), 1.0), atol=1e-12
    )
    assert not torch.allclose(found, first, atol=0.1)
    assert (
        torch.nn.functional.cosine_similarity(found.flatten(), first.flatten(), 0) < 0.9
    )  # nor is it a matter of scale


def test_kl_as_an_advantage_has_no_gradient_in_expectation():
    """The divergence is one number for all tokens: as an advantage of the sampled one it is a
    baseline, and teaches nothing (radixark/miles #2410). The log-ratio of the sampled token teaches
    what the divergence's gradient does."""
    student, teacher = random_pair(13, v=5)
    student, teacher = student[:1, :1], teacher[:1, :1]
    p, kl = (
        student.softmax(-1)[0, 0],
        losses.distillation_loss(
            student, teacher, torch.zeros(1, 1, dtype=torch.long), mode="full_logits"
        ),
    )
    tokens, ratio = (
        [torch.tensor([[i]]) for i in range(5)],
        teacher.log_softmax(-1) - student.log_softmax(-1),
    )
    wrong = sum(
        p[i] * gradient(lambda x: losses.policy_loss(x, y, -kl), student)
        for i, y in enumerate(tokens)
    )
    right = sum(
        p[i] * gradient(lambda x: losses.policy_loss(x, y, at(ratio, y)), student)
        for i, y in enumerate(tokens)
    )
    true = gradient(
        lambda x: losses.distillation_loss(x, teacher, tokens[0], mode="full_logits"), student
    )
    assert (
        kl > 0.1
        and wrong.abs().max() < 1e-12
        and torch.allclose(right, true, atol=1e-12)
        and true.abs().max() > 0.05
    )
