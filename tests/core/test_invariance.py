"""What must not change a step: micro-batches, company, order."""

from __future__ import annotations

import copy
import random

import pytest

from sdpo_lab.tasks import Problem
from tests.shared.steps import MODES, assert_same, step, trainer

VARIANTS = (
    {m: dict(distillation_mode=m, distillation_alpha=1.0) for m in MODES}
    | {
        f"{m}, λ, two passes": dict(
            distillation_mode=m, distillation_alpha=1.0, advantage_lambda=0.5, num_iterations=2
        )
        for m in MODES
    }
    | {
        "w, clip, two steps": dict(
            distillation_weight=0.5,
            distillation_alpha=1.0,
            advantage_clip=0.5,
            steps_per_generation=2,
        ),
        "sequence, two steps twice": dict(
            distillation_mode="sequence",
            distillation_alpha=1.0,
            steps_per_generation=2,
            num_iterations=2,
        ),
        "grpo, two passes": dict(distillation_weight=0.0, num_iterations=2),
        "trust region": dict(teacher_model_kind="trust_region", num_iterations=2),
        "mean over all rows": dict(normalize="all_rows"),
        "mean over active rows": dict(normalize="active_rows"),
    }
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_micro_batches_change_nothing_in_any_mode_over_several_optimiser_steps(
    tiny, rollouts, variant
):
    """With steps as long as the gradient, so that every step but the first is taken somewhere
    else."""
    whole, threes, ones = (
        step(tiny, rollouts, **VARIANTS[variant], per_device_train_batch_size=size)
        for size in (64, 3, 1)
    )
    assert_same(threes, whole)
    assert_same(ones, whole)
    expected = VARIANTS[variant].get("steps_per_generation", 1) * VARIANTS[variant].get(
        "num_iterations", 1
    )
    assert len(whole[1]) == expected and (
        expected == 1 or (whole[1][0] - whole[1][1]).norm() > 0.1 * whole[1][0].norm()
    )


@pytest.mark.parametrize("mode", MODES)
def test_company_that_takes_no_part_changes_nothing_however_long(tiny, rollouts, mode):
    idle = copy.deepcopy(rollouts[:4])
    for r in idle:
        r.problem, r.reward, r.feedback = (
            Problem("idle", [{"role": "user", "content": "nothing " * 20}]),
            0.0,
            "",
        )
        r.completion_ids = r.completion_ids * 9
    fields = dict(distillation_mode=mode, distillation_alpha=1.0)
    for normalize in ("active_tokens", "active_rows"):
        assert_same(
            step(tiny, idle + rollouts, **fields, normalize=normalize),
            step(tiny, rollouts, **fields, normalize=normalize),
        )
    loss, (gradient,) = step(tiny, idle + rollouts, **fields, normalize="all_rows")
    alone, (whole,) = step(tiny, rollouts, **fields, normalize="all_rows")
    assert_same(
        (loss, [gradient]), (alone * 8 / 12, [whole * 8 / 12])
    )  # which is what this mean means


@pytest.mark.parametrize("mode", MODES)
def test_company_that_takes_part_adds_its_own_loss_and_nothing_else(tiny, rollouts, mode):
    fields = dict(
        distillation_mode=mode, distillation_alpha=1.0, normalize="all_rows", advantage_lambda=0.3
    )
    together, first, second = (
        step(tiny, rows, **fields) for rows in (rollouts, rollouts[:4], rollouts[4:])
    )
    assert_same(together, ((first[0] + second[0]) / 2, [(first[1][0] + second[1][0]) / 2]))


@pytest.mark.parametrize(
    "fields",
    [
        *({"distillation_mode": m, "distillation_alpha": 1.0} for m in MODES),
        {"distillation_weight": 0.5},
        {"distillation_weight": 0.0},
        {"normalize": "all_rows"},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_attempts_and_groups_changes_nothing_where_no_sibling_is_shown(
    tiny, rollouts, fields, seed
):
    order, fields = (
        random.Random(seed),
        {"distillation_alpha": 0.5, **fields, "use_successful_as_teacher": False},
    )
    groups = [order.sample(g, 4) for g in (rollouts[:4], rollouts[4:])]
    assert_same(step(tiny, groups[1] + groups[0], **fields), step(tiny, rollouts, **fields))


def test_the_order_changes_the_demonstration_and_nothing_but_the_demonstration(tiny, rollouts):
    group, fields = rollouts[:4], dict(demonstration="first", distillation_alpha=1.0)
    for r, (reward, text) in zip(group, ((1.0, "alpha"), (0.0, "b"), (1.0, "gamma"), (0.0, "d"))):
        r.reward, r.text = reward, text
    a, b, c, d = group
    t = trainer(tiny, **fields)
    plain = t.step(group).loss, t.optimizer.gradients
    assert [r.demonstration for r in t.history[-1].rollouts] == [2, 0, 0, 0]
    assert_same(step(tiny, [d, a, b, c], **fields), plain)  # the successes in the order they were
    t = trainer(tiny, **fields)
    turned = t.step([c, b, a, d])
    assert {r.index: r.demonstration for r in turned.rollouts} == {0: 2, 1: 2, 2: 0, 3: 2} and abs(
        turned.loss - plain[0]
    ) > 1e-3
    twin = copy.deepcopy(group)
    twin[0].text = twin[2].text = "the same"
    assert_same(
        step(tiny, [twin[i] for i in (2, 1, 0, 3)], **fields), step(tiny, twin, **fields)
    )  # no matter who said it
