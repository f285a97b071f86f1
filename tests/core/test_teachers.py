"""Which weights the teacher has, and what it writes."""

from __future__ import annotations

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.analysis.evaluation import Mixture
from sdpo_lab.tasks import Problem
from tests.shared.steps import (
    MODES,
    assert_same,
    distribution,
    hand_logits,
    step,
    teacher_distribution,
    trainer,
    weights,
)


def moved(tiny, **fields):
    """A trainer whose student has gone far from where it began."""
    t, g = trainer(tiny, **fields), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in t.model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return t


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_trust_region_teacher_is_the_normalised_geometric_mixture(tiny, rate, temperature):
    t = moved(tiny, teacher_model_kind="trust_region", teacher_update_rate=rate)
    reference, student = distribution(tiny[0], temperature), distribution(t.model, temperature)
    mixture = reference.exp() ** (1 - rate) * student.exp() ** rate
    found = teacher_distribution(t.teacher, temperature)
    assert torch.allclose(found.exp(), mixture / mixture.sum(-1, keepdim=True), atol=1e-6)
    t.step()
    assert torch.equal(
        weights(t.teacher.model), weights(tiny[0])
    )  # the reference stays; the mixture follows the student by itself
    assert torch.equal(found, teacher_distribution(t.teacher, temperature)) == (rate == 0)
    assert (reference - student).abs().max() > 0.5


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_the_trust_region_teacher_writes_what_its_distribution_says(tiny, rate):
    """Greedy answers of the mixture, token by token, with prompts of different length and attempts
    that end."""
    t = moved(tiny, teacher_model_kind="trust_region", teacher_update_rate=rate)
    problems = [
        Problem(str(i), [{"role": "user", "content": f"{chr(97 + 5 * i)} {i} " * (1 + i)}])
        for i in range(6)
    ]
    mixture = Mixture(t.teacher.model, t.model, rate).eval()
    settings = dict(num_generations=1, temperature=0, max_completion_length=20)
    endless = lab.rollout(mixture, tiny[1], problems, **settings)
    t.model.generation_config.eos_token_id = [
        endless[0].completion_ids[1],
        endless[3].completion_ids[7],
    ]
    attempts = lab.rollout(mixture, tiny[1], problems, **settings)
    assert len({len(r.completion_ids) for r in attempts}) > 1
    for r in attempts:
        logits = [hand_logits(m, tiny[1], r.problem.messages, r) for m in (tiny[0], t.model)]
        logits = (1 - rate) * logits[0] + rate * logits[1]
        chosen = logits.gather(1, torch.tensor(r.completion_ids)[:, None])[:, 0]
        assert (chosen >= logits.amax(-1) - 1e-4).all()


def test_the_trust_region_teacher_can_be_evaluated_and_its_ends_are_the_frozen_and_the_live_one(
    tiny,
):
    found = {
        (kind, rate): moved(tiny, teacher_model_kind=kind, teacher_update_rate=rate).evaluate(
            24, role="teacher"
        )
        for kind, rate in (
            ("trust_region", 0.0),
            ("frozen", 0.0),
            ("trust_region", 1.0),
            ("live", 0.0),
            ("trust_region", 0.5),
        )
    }
    assert (
        found["trust_region", 0.0] == found["frozen", 0.0]
        and found["trust_region", 1.0] == found["live", 0.0]
    )
    assert found["frozen", 0.0] != found["live", 0.0] and found["trust_region", 0.5].n == 24


@pytest.mark.parametrize("kind", lab.config.TEACHERS)
def test_every_teacher_starts_as_the_student_and_goes_its_own_way(tiny, rollouts, kind):
    t = trainer(tiny, teacher_model_kind=kind, teacher_update_rate=0.25)
    start = distribution(tiny[0])
    assert torch.allclose(teacher_distribution(t.teacher), start, atol=1e-5)
    t.step(rollouts)
    own = {"live": t.model, "frozen": tiny[0]}.get(kind) or t.teacher.model
    expected = (
        (0.75 * start + 0.25 * distribution(t.model)).log_softmax(-1)
        if kind == "trust_region"
        else distribution(own)
    )
    assert torch.allclose(teacher_distribution(t.teacher), expected, atol=1e-5)
    shared = {p.data_ptr() for p in t.teacher.model.parameters()} & {
        p.data_ptr() for p in t.model.parameters()
    }
    assert bool(shared) == (kind == "live") and (
        kind == "live" or not any(p.requires_grad for p in t.teacher.model.parameters())
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_first_step_is_the_same_for_every_teacher(tiny, rollouts, mode):
    """All begin as the student; were there a gradient through a teacher, the live one would have
    another."""
    fields = dict(distillation_mode=mode, distillation_alpha=1.0)
    frozen, *others = (
        step(tiny, rollouts, **fields, teacher_model_kind=kind)
        for kind in ("frozen", "ema", "trust_region", "live")
    )
    for other in others:
        assert_same(other, frozen)
