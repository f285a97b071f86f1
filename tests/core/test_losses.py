"""The losses against numbers worked out elsewhere, closed forms, and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab import losses


def logits(*rows):
    return torch.tensor([rows]).double().log()


def test_constants_of_other_implementations():
    """Values computed with the official code and TRL's."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    assert losses.distillation_loss(logits([.8, .2]), logits([.5, .5]), ids, mode="full_logits", alpha=0.0).item() == pytest.approx(.223144, abs=1e-6)
    s, t = logits([.1, .9], [.7, .3]), logits([.4, .6], [.2, .8])
    sampled = losses.distillation_loss(s, t, torch.tensor([[1, 0]]), mode="sampled_token")
    assert sampled[0].tolist() == pytest.approx([-.042720, -.446829], abs=1e-6)
    s, t = logits([.5, .3, .2]), logits([.2, .6, .2])
    assert losses.distillation_loss(s, t, ids, top_k=2, add_tail=False, alpha=0.0).item() == pytest.approx(.290788, abs=1e-6)
    assert losses.distillation_loss(s, t, ids, top_k=2, add_tail=True, alpha=0.0).item() == pytest.approx(.232630, abs=1e-6)


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


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_gradient_is_the_closed_form(alpha):
    student, teacher = random_pair(1)
    student.requires_grad_()
    losses.distillation_loss(student, teacher, torch.zeros(2, 3, dtype=torch.long), mode="full_logits", alpha=alpha).sum().backward()
    p, q = student.detach().softmax(-1), teacher.softmax(-1)
    assert torch.allclose(student.grad, closed_form(p, q, alpha), atol=1e-12)
    if alpha == 1:  # the first version of the paper forgot the weight p: it must not pass
        assert not torch.allclose(student.grad, (p / q).log() - (p / q).log().mean(-1, keepdim=True), atol=1e-3)


@pytest.mark.parametrize("mode", ["full_logits", "topk_logits"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tail", [True, False])
def test_gradient_by_finite_differences(mode, alpha, tail):
    student, teacher = random_pair(2, v=6)
    ids = torch.zeros(2, 3, dtype=torch.long)

    def f(x):
        return losses.distillation_loss(x, teacher, ids, mode=mode, alpha=alpha, top_k=3, add_tail=tail)

    assert torch.autograd.gradcheck(f, student.requires_grad_(), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(1, 40))
def test_top_k_with_tail_never_exceeds_the_full_divergence(seed, alpha, k):
    student, teacher = random_pair(seed)
    ids = torch.zeros(2, 3, dtype=torch.long)
    full = losses.distillation_loss(student, teacher, ids, mode="full_logits", alpha=alpha)
    some = losses.distillation_loss(student, teacher, ids, alpha=alpha, top_k=k)
    assert (some <= full + 1e-9).all() and (some >= -1e-9).all()
    if k >= 13:  # more than the vocabulary is all of it; the tail keeps its least mass of 1e-7
        assert torch.allclose(some, full, atol=1e-5)


def test_equal_distributions_give_neither_loss_nor_gradient():
    student, _ = random_pair(3)
    for mode in ("full_logits", "topk_logits", "sampled_token"):
        x = student.clone().requires_grad_()
        loss = losses.distillation_loss(x, student.clone(), torch.zeros(2, 3, dtype=torch.long), mode=mode, alpha=1.0, top_k=4)
        loss.sum().backward()
        assert loss.abs().max() < 1e-12 and x.grad.abs().max() < 1e-12


def test_sampled_token_estimates_the_reverse_kl_gradient():
    """Averaged over the student's own tokens, its gradient is that of the reverse KL (Prop. 2.1)."""
    student, teacher = random_pair(4, v=5)
    student, teacher = student[:1, :1], teacher[:1, :1]
    p, total = student.softmax(-1)[0, 0], torch.zeros(5, dtype=torch.float64)
    for token in range(5):
        x = student.clone().requires_grad_()
        losses.distillation_loss(x, teacher, torch.tensor([[token]]), mode="sampled_token").sum().backward()
        total += p[token] * x.grad[0, 0]
    assert torch.allclose(total, closed_form(student.softmax(-1), teacher.softmax(-1), 1.0)[0, 0], atol=1e-12)


def test_no_gradient_reaches_the_teacher_and_half_precision_is_upcast():
    student, teacher = random_pair(5)
    student.requires_grad_()
    teacher.requires_grad_()
    losses.distillation_loss(student, teacher, torch.zeros(2, 3, dtype=torch.long)).sum().backward()
    assert teacher.grad is None and student.grad is not None
    low = losses.distillation_loss(student.detach().bfloat16(), teacher.detach().bfloat16(), torch.zeros(2, 3, dtype=torch.long))
    assert low.dtype == torch.float32


def test_extreme_logits_stay_finite():
    student = torch.tensor([[[80.0, -80.0, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[-80.0, 80.0, 0.0]]])
    for alpha in (0.0, 0.5, 1.0):
        for k in (1, 2, 3):
            loss = losses.distillation_loss(student, teacher, torch.zeros(1, 1, dtype=torch.long), alpha=alpha, top_k=k)
            (grad,) = torch.autograd.grad(loss.sum(), student)
            assert torch.isfinite(loss).all() and torch.isfinite(grad).all()


def test_group_advantages():
    rewards = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    assert losses.group_advantages(rewards).tolist() == [[.5, -.5, -.5, .5], [0, 0, 0, 0]]
    scaled = losses.group_advantages(rewards, scale=True)
    assert scaled[0, 0].item() == pytest.approx(.5 / (math.sqrt(1 / 3) + 1e-4)) and scaled[1].abs().max() == 0


@pytest.mark.parametrize("reward", [1 / 3, 2 / 3, 0.1, 0.7])
@pytest.mark.parametrize("size", [2, 7, 8])
@pytest.mark.parametrize("scale", [False, True])
def test_equal_rewards_have_exactly_no_advantage(reward, size, scale):
    assert losses.group_advantages(torch.full((1, size), reward), scale).abs().max() == 0


def test_policy_loss_gradient_is_reinforce():
    student, _ = random_pair(6, v=4)
    student.requires_grad_()
    ids, advantages = torch.tensor([[0, 1, 2], [3, 0, 1]]), torch.tensor([0.5, -1.0], dtype=torch.float64)
    loss = losses.policy_loss(student, ids, advantages[:, None])
    assert torch.allclose(loss, -advantages[:, None].expand(2, 3))
    loss.sum().backward()
    one_hot = torch.nn.functional.one_hot(ids, 4)
    assert torch.allclose(student.grad, -advantages[:, None, None] * (one_hot - student.detach().softmax(-1)), atol=1e-12)


@pytest.mark.parametrize("normalize, expected", [("all_rows", 2 / 3), ("active_rows", 1.0), ("active_tokens", 1.0)])
def test_token_weights(normalize, expected):
    mask, active = torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]), torch.tensor([True, True, False])
    weights = losses.token_weights(mask, active, normalize)
    assert weights.sum().item() == pytest.approx(expected) and weights[2].sum() == 0 and weights[0, 3] == 0
    if normalize == "active_tokens":
        assert weights[0, 0].item() == pytest.approx(1 / 4)
    nothing = losses.token_weights(mask, torch.tensor([False, False, False]), normalize)
    assert nothing.abs().sum() == 0  # no 0/0


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="full_logits.*got 'toplogits'"):
        losses.distillation_loss(*random_pair(1), torch.zeros(2, 3, dtype=torch.long), mode="toplogits")
