"""Several optimiser steps a batch, against the plain formula."""

from __future__ import annotations

import copy

import pytest
import torch

from sdpo_lab.core import losses
from tests.shared.steps import hand_logits, trainer, weights


def hand_step(model, teacher, start, tokenizer, rows, advantages, hybrid):
    """One step of gradient descent by the plain formula, the divergence with the capped ratio or
    mixed advantages with PPO's clip; (loss, ratios)."""
    total, ratios = 0.0, []
    for r, advantage in zip(rows, advantages):
        y, messages = torch.tensor(r.completion_ids)[:, None], r.problem.messages
        log_p, log_old = (
            (hand_logits(m, tokenizer, messages, r) / 0.8).log_softmax(-1) for m in (model, start)
        )
        log_q = (
            (hand_logits(teacher, tokenizer, r.teacher_messages, r) / 0.8).log_softmax(-1).detach()
        )
        ratio = (log_p.gather(1, y) - log_old.gather(1, y).detach()).exp()[:, 0]
        ratios += ratio.tolist()
        if hybrid:
            a = 0.5 * advantage + 0.5 * r.shown * (log_q - log_p).detach().gather(1, y)[:, 0]
            loss = -torch.min(ratio * a, ratio.clamp(1 - 0.2, 1 + 0.28) * a)
        else:
            loss = (
                r.shown * ratio.detach().clamp(max=1.02) * (log_p.exp() * (log_p - log_q)).sum(-1)
            )
        total = total + loss.mean() / len(rows)
    model.zero_grad()
    total.backward()
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(p.grad)  # learning rate 1
    return total.item(), ratios


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("sync", ["rollout_batch", "optimizer_step"])
@pytest.mark.parametrize("passes", [1, 2])
def test_two_steps_a_batch_are_two_single_steps_by_the_plain_formula_with_the_ratio(
    tiny, rollouts, hybrid, sync, passes
):
    """Each on its half of the attempts, p_old from before all of them, and the teacher moved in
    between where it follows every step."""
    mode = (
        dict(distillation_mode="sampled_token", advantage_lambda=0.5)
        if hybrid
        else dict(distillation_mode="full_logits")
    )
    t = trainer(
        tiny,
        **mode,
        distillation_is_clip=1.02,
        distillation_alpha=1.0,
        normalize="all_rows",
        steps_per_generation=2,
        num_iterations=passes,
        teacher_sync=sync,
        teacher_update_rate=0.5,
        temperature=0.8,
    )
    record = t.step(rollouts)
    start, teacher, model = (copy.deepcopy(tiny[0]) for _ in range(3))
    advantages = (
        losses.group_advantages(torch.tensor([r.reward for r in rollouts]).view(2, 4))
        .flatten()
        .tolist()
    )
    found = []
    for half in [slice(0, 4), slice(4, 8)] * passes:
        found.append(
            hand_step(
                model, teacher, start, tiny[1], record.rollouts[half], advantages[half], hybrid
            )
        )
        if sync == "optimizer_step":
            for p, new in zip(teacher.parameters(), model.parameters()):
                p.data = 0.5 * p.data + 0.5 * new.data
    assert record.loss == pytest.approx(sum(loss for loss, _ in found) / len(found), abs=3e-6)
    assert (weights(t.model) - weights(model)).abs().max() < 1e-5 and (
        weights(model) - weights(start)
    ).abs().max() > 1e-2
    assert max(found[-1][1]) > 1.28 and min(found[-1][1]) < 0.8


@pytest.mark.parametrize("sync", ["rollout_batch", "optimizer_step"])
def test_the_average_moves_once_a_batch_or_at_every_optimiser_step(
    tiny, rollouts, sync, monkeypatch
):
    t = trainer(
        tiny,
        teacher_sync=sync,
        teacher_update_rate=0.25,
        steps_per_generation=2,
        num_iterations=2,
        learning_rate=0.2,
    )
    expected = weights(tiny[0])
    for batch in range(2):
        t.step(rollouts)
        steps = t.optimizer.weights[4 * batch :]
        assert len(steps) == 4
        for w in steps if sync == "optimizer_step" else steps[-1:]:
            expected = 0.75 * expected + 0.25 * w
    assert (
        torch.allclose(weights(t.teacher.model), expected, atol=1e-6)
        and (expected - weights(tiny[0])).abs().max() > 1e-3
    )
    monkeypatch.setattr(
        losses, "distillation_loss", lambda student, *a, **k: student.sum(-1) * float("nan")
    )
    t.step(rollouts)  # not finite
    for r in rollouts:
        r.reward, r.feedback = 0.0, ""
    t.step(rollouts)  # no active attempt
    assert (
        torch.allclose(weights(t.teacher.model), expected, atol=1e-6)
        and len(t.optimizer.weights) == 8
    )  # nobody moved


def test_warm_up_counts_optimiser_steps_that_were_taken(tiny, rollouts):
    t = trainer(tiny, warmup_steps=4, steps_per_generation=2, learning_rate=0.5)
    t.step(rollouts)
    half = copy.deepcopy(rollouts)
    for r in half[:4]:
        r.reward, r.feedback = 0.0, ""
    t.step(half)  # its first half has no active attempt: one optimiser step
    t.step(rollouts)
    t.step(rollouts)
    assert (
        t.optimizer.rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5])
        and t.optimizer_steps == 7
    )
