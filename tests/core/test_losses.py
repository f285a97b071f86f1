"""The losses: constants of other implementations, weights, clips, tails and limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_lab import losses
from tests.shared.distributions import IDS, MASK, at, gradient, logits, random_pair


def test_constants_of_other_implementations():
    """Values computed with the official code and TRL's."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    assert losses.distillation_loss(
        logits([0.8, 0.2]), logits([0.5, 0.5]), ids, mode="full_logits", alpha=0.0
    ).item() == pytest.approx(0.223144, abs=1e-6)
    s, t = logits([0.1, 0.9], [0.7, 0.3]), logits([0.4, 0.6], [0.2, 0.8])
    sampled = losses.distillation_loss(s, t, torch.tensor([[1, 0]]), mode="sampled_token")
    assert sampled[0].tolist() == pytest.approx([-0.042720, -0.446829], abs=1e-6)
    s, t = logits([0.5, 0.3, 0.2]), logits([0.2, 0.6, 0.2])
    assert losses.distillation_loss(
        s, t, ids, top_k=2, add_tail=False, alpha=0.0
    ).item() == pytest.approx(0.290788, abs=1e-6)
    assert losses.distillation_loss(
        s, t, ids, top_k=2, add_tail=True, alpha=0.0
    ).item() == pytest.approx(0.232630, abs=1e-6)


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
        loss = losses.distillation_loss(
            x, student.clone(), torch.zeros(2, 3, dtype=torch.long), mode=mode, alpha=1.0, top_k=4
        )
        loss.sum().backward()
        assert loss.abs().max() < 1e-12 and x.grad.abs().max() < 1e-12


def test_extreme_logits_stay_finite():
    student = torch.tensor([[[80.0, -80.0, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[-80.0, 80.0, 0.0]]])
    for alpha in (0.0, 0.5, 1.0):
        for k in (1, 2, 3):
            loss = losses.distillation_loss(
                student, teacher, torch.zeros(1, 1, dtype=torch.long), alpha=alpha, top_k=k
            )
            (grad,) = torch.autograd.grad(loss.sum(), student)
            assert torch.isfinite(loss).all() and torch.isfinite(grad).all()


def test_group_advantages():
    rewards = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    assert losses.group_advantages(rewards).tolist() == [[0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0]]
    scaled = losses.group_advantages(rewards, scale=True)
    assert (
        scaled[0, 0].item() == pytest.approx(0.5 / (math.sqrt(1 / 3) + 1e-4))
        and scaled[1].abs().max() == 0
    )


@pytest.mark.parametrize("reward", [1 / 3, 2 / 3, 0.1, 0.7])
@pytest.mark.parametrize("size", [2, 7, 8])
@pytest.mark.parametrize("scale", [False, True])
def test_equal_rewards_have_exactly_no_advantage(reward, size, scale):
    assert losses.group_advantages(torch.full((1, size), reward), scale).abs().max() == 0


@pytest.mark.parametrize(
    "normalize, expected", [("all_rows", 2 / 3), ("active_rows", 1.0), ("active_tokens", 1.0)]
)
def test_token_weights(normalize, expected):
    mask, active = (
        torch.tensor([[1.0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]]),
        torch.tensor([True, True, False]),
    )
    weights = losses.token_weights(mask, active, normalize)
    assert (
        weights.sum().item() == pytest.approx(expected)
        and weights[2].sum() == 0
        and weights[0, 3] == 0
    )
    if normalize == "active_tokens":
        assert weights[0, 0].item() == pytest.approx(1 / 4)
    nothing = losses.token_weights(mask, torch.tensor([False, False, False]), normalize)
    assert nothing.abs().sum() == 0  # no 0/0


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="full_logits.*got 'toplogits'"):
        losses.distillation_loss(
            *random_pair(1), torch.zeros(2, 3, dtype=torch.long), mode="toplogits"
        )


# -- more constants of other implementations


def test_the_cap_of_the_importance_ratio_has_trls_constants():
    """TRL's importance_sampling_clipping_caps_token_ratio and
    compute_loss_applies_importance_sampling_clip (sampled tokens, mean of two)."""
    weights = losses.importance_weights(
        torch.tensor([0.4, 0.3]).log(), torch.tensor([0.1, 0.2]).log(), clip=2.0
    )
    assert (torch.tensor([1.0, 2.0]) * weights).tolist() == pytest.approx([2, 3])
    s, t, old = (
        logits([0.2, 0.8], [0.4, 0.6]),
        logits([0.5, 0.5], [0.5, 0.5]),
        torch.tensor([[0.05, 0.4]]).double().log(),
    )
    ids = torch.zeros(1, 2, dtype=torch.long)
    loss = losses.distillation_loss(s, t, ids, mode="sampled_token") * losses.importance_weights(
        losses.token_log_probs(s, ids), old, clip=2.0
    )
    assert loss.mean().item() == pytest.approx(1.576945, abs=1e-6)


@pytest.mark.parametrize("normalize", ["all_rows", "active_rows", "active_tokens"])
def test_a_masked_token_is_ignored(normalize):
    s, t, ids = (
        logits([0.8, 0.2], [0.1, 0.9]),
        logits([0.5, 0.5], [0.7, 0.3]),
        torch.zeros(1, 2, dtype=torch.long),
    )
    weights = losses.token_weights(torch.tensor([[1.0, 0]]), torch.tensor([True]), normalize)
    assert (
        losses.distillation_loss(s, t, ids, mode="full_logits", alpha=0.0) * weights
    ).sum().item() == pytest.approx(0.223144, abs=1e-6)


def test_the_importance_ratio_has_no_lower_bound_and_no_gradient():
    new, old = (
        torch.tensor([0.0, 0, 0, -100], requires_grad=True),
        torch.tensor([-100.0, -0.5, 1, 0]),
    )
    weights = losses.importance_weights(new, old, clip=1e12)
    assert (
        weights.tolist()
        == pytest.approx([math.exp(20), math.exp(0.5), math.exp(-1), math.exp(-20)])
        and not weights.requires_grad
    )


# -- sequence, clip, ends of the family, tail


def test_sequence_credit_is_the_mean_over_the_mask():
    student, teacher = random_pair(14, v=6)
    log_p, ratio = (
        at(student.log_softmax(-1)),
        at(teacher.log_softmax(-1)) - at(student.log_softmax(-1)),
    )
    loss = losses.distillation_loss(student, teacher, IDS, mode="sequence", mask=MASK)
    assert torch.allclose(loss[0], -ratio[0, :2].mean() * log_p[0]) and torch.allclose(
        loss[1], -ratio[1].mean() * log_p[1]
    )
    assert torch.allclose(
        losses.distillation_loss(student, teacher, IDS, mode="sequence"),
        -ratio.mean(1, keepdim=True) * log_p,
    )
    nothing = losses.distillation_loss(
        student, teacher, IDS, mode="sequence", mask=torch.zeros(2, 3)
    )
    assert nothing.abs().max() == 0  # no 0/0


def test_a_sequence_of_one_token_is_that_sampled_token():
    student, teacher = random_pair(15, v=6)
    teacher, ids = teacher[:, :1], IDS[:, :1]
    one, seq = (
        lambda x, mode=mode: losses.distillation_loss(x, teacher, ids, mode=mode, clip=0.4)
        for mode in ("sampled_token", "sequence")
    )
    assert torch.equal(one(student[:, :1]), seq(student[:, :1])) and torch.equal(
        gradient(one, student[:, :1]), gradient(seq, student[:, :1])
    )


@pytest.mark.parametrize("mode", ["full_logits", "topk_logits", "sampled_token", "sequence"])
def test_padding_and_what_stands_in_it_change_nothing(mode):
    student, teacher = random_pair(16, v=6)
    mask, active = torch.cat([MASK, torch.zeros(2, 2)], 1), torch.tensor([True, True])
    results = []
    for junk in (0.0, 50.0):
        x, q = (
            torch.cat([logits, torch.full((2, 2, 6), junk).double() * torch.arange(6)], 1)
            for logits in (student, -teacher)
        )
        ids = torch.cat([IDS, torch.full((2, 2), int(junk) % 6)], 1)
        for n in (3, 4, 5):
            weights = losses.token_weights(mask[:, :n], active, "all_rows")
            f = lambda logits: (
                losses.distillation_loss(logits, q[:, :n], ids[:, :n], mode=mode, mask=mask[:, :n])
                * weights
            )
            results.append((f(x[:, :n]).sum(), gradient(f, x[:, :n])[:, :3]))
            assert (gradient(f, x[:, :n]) * (1 - mask[:, :n, None])).abs().max() == 0
    for value, grad in results:
        assert torch.allclose(value, results[0][0], atol=1e-14) and torch.allclose(
            grad, results[0][1], atol=1e-14
        )


@pytest.mark.parametrize(
    "fields",
    [
        dict(mode="full_logits"),
        dict(top_k=4),
        dict(top_k=4, add_tail=False),
        dict(mode="sampled_token"),
        dict(mode="sequence"),
    ],
)
def test_a_clip_out_of_reach_is_none_in_value_and_gradient(fields):
    """With it the loss is written as a surrogate, whose gradient is another expression: equal
    because the sum of grad p is 0."""
    student, teacher = random_pair(17)
    ids = torch.randint(13, (2, 3), generator=torch.Generator().manual_seed(0))
    without, out_of_reach, within = (
        lambda x, clip=clip: losses.distillation_loss(x, teacher, ids, clip=clip, **fields)
        for clip in (None, 1e3, 0.3)
    )
    assert torch.allclose(without(student), out_of_reach(student), atol=1e-12)
    assert torch.allclose(gradient(without, student), gradient(out_of_reach, student), atol=1e-12)
    assert not torch.allclose(gradient(without, student), gradient(within, student), atol=1e-2)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("mode", ["full_logits", "topk_logits"])
def test_a_clip_is_refused_where_the_log_ratio_is_not_the_advantage(alpha, mode):
    with pytest.raises(ValueError, match=f"clip=5.0 needs alpha=1, got {alpha}"):
        losses.distillation_loss(
            *random_pair(1), torch.zeros(2, 3, dtype=torch.long), mode=mode, alpha=alpha, clip=5.0
        )


def test_a_clipped_log_ratio_is_never_beyond_the_clip_and_never_nan():
    student, teacher = (
        torch.tensor([-torch.inf, -1, -30, -2, -0.1]),
        torch.tensor([-torch.inf, -torch.inf, -1, -2.5, -40]),
    )
    assert losses.log_ratio(student, teacher, 5.0).tolist() == pytest.approx([0, -5, 5, -0.5, -5])


def test_the_jensen_shannon_family_tends_to_nothing_at_both_ends_where_it_jumps_to_a_divergence():
    p, q = (x.log_softmax(-1) for x in random_pair(18, scale=1.0))
    forward, reverse = losses.divergence(p, q, 0.0), losses.divergence(p, q, 1.0)
    for a in (1e-3, 1e-5):
        assert torch.allclose(losses.divergence(p, q, a) / a, forward, rtol=20 * a)
        assert torch.allclose(losses.divergence(p, q, 1 - a) / a, reverse, rtol=20 * a)
    middle = losses.divergence(p, q, 0.5)
    assert (
        torch.allclose(middle, losses.divergence(q, p, 0.5)) and (middle <= math.log(2)).all()
    )  # symmetric, and bounded
    assert (
        (losses.divergence(p, q, 1e-3) < middle).all()
        and (middle < forward).all()
        and (middle < reverse).all()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_least_tail_has_the_released_codes_mass_and_no_gradient(dtype):
    sharp, even = torch.tensor([[[60.0, 0, 0, 0]]], dtype=dtype), torch.zeros(1, 1, 4, dtype=dtype)
    assert losses.tail(sharp.log_softmax(-1)).item() == pytest.approx(-16.118, abs=1e-3)
    f = lambda x: losses.distillation_loss(
        x, even, torch.zeros(1, 1, dtype=torch.long), alpha=0.0, top_k=1
    )
    assert f(sharp).item() == pytest.approx(
        0.25 * math.log(0.25) + 0.75 * math.log(0.75 / 1e-7), rel=1e-6
    )
    assert (
        gradient(f, sharp).abs().max() < 1e-12
    )  # that of the one token is p - 1 = 0; with the tail's it would be .75
    unclamped = gradient(f, sharp / 6)
    assert unclamped[0, 0, 0].item() == pytest.approx(0.75, abs=1e-2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 12), st.sampled_from([torch.float32, torch.float64]))
def test_the_tail_is_a_probability_with_a_least_mass_and_the_support_sums_to_one(
    seed, scale, dtype
):
    student, teacher = (x.to(dtype) for x in random_pair(seed, scale=scale))
    for k in (1, 5, 12, 13, 40):
        for add_tail in (True, False):
            for log_probs in losses.top_k_support(student, teacher, k, add_tail):
                assert (
                    log_probs.shape[-1] == min(k, 13) + add_tail
                    and torch.isfinite(log_probs).all()
                    and (log_probs <= 1e-6).all()
                )
                assert (log_probs.exp().sum(-1) - 1).abs().max() < (
                    1e-6 if dtype == torch.float64 else 1e-4
                )
                assert not add_tail or (log_probs[..., -1] >= math.log(1e-7) - 1e-5).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_the_bound_rises_with_k_and_one_renormalised_token_says_nothing(seed, alpha):
    student, teacher = random_pair(seed)
    some = [
        losses.distillation_loss(student, teacher, IDS, alpha=alpha, top_k=k) for k in range(1, 13)
    ]
    assert all((b >= a - 1e-6).all() for a, b in zip(some, some[1:]))
    assert (
        losses.distillation_loss(student, teacher, IDS, alpha=alpha, top_k=1, add_tail=False)
        .abs()
        .max()
        < 1e-12
    )
