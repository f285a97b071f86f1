"""What a step says of itself, in numbers and words; settings that change beside a teacher."""

import copy
import math
import random

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab import losses
from sdpo_lab.core import losses as losses_of_core
from sdpo_lab.core.reprompt import reprompt
from sdpo_lab.core.rollouts import Rollout
from sdpo_lab.tasks import Problem
from tests.core.test_trainer import Vowels, fresh, trainer, weights  # noqa: F401  fresh: a fixture

QUESTION = [{"role": "user", "content": "write"}]


def attempts(*rows):
    """Attempts at two problems, half at each: (tokens, reward, feedback, entropy, truncated)."""
    half = len(rows) // 2
    return [
        Rollout(
            problem=Problem(f"p{i // half}", QUESTION),
            index=i % half,
            text=f"answer {i}",
            completion_ids=list(range(5, 5 + tokens)),
            entropy=entropy,
            truncated=truncated,
            reward=reward,
            feedback=feedback,
        )
        for i, (tokens, reward, feedback, entropy, truncated) in enumerate(rows)
    ]


def test_every_metric_of_a_batch_is_the_number_it_says(fresh):  # noqa: F811
    given = attempts(
        (3, 1.0, "", 0.5, False),
        (5, 0.0, "no", 1.5, True),
        (4, 0.0, "", 0.25, False),
        (8, 0.0, "", 0.75, True),
        (2, 0.0, "wrong", 1.0, True),
        (6, 0.0, "", 2.0, False),
        (1, 0.0, "", 0.5, False),
        (7, 0.5, "", 1.5, False),
    )
    record = trainer(fresh, include_environment_feedback=True).step(given)
    m = record.metrics
    assert record.reward == 1.5 / 8
    assert m["completion_length"] == 36 / 8
    assert m["entropy"] == 8.0 / 8
    assert m["truncated_fraction"] == 3 / 8
    assert m["success_fraction"] == 1 / 8
    assert m["self_distillation/success_group_fraction"] == 1 / 2
    # the three siblings of the success; it has none itself
    assert m["self_distillation/success_sample_fraction"] == 3 / 8
    assert m["self_distillation/feedback_available_fraction"] == 2 / 8
    assert m["self_distillation/feedback_used_fraction"] == 1 / 8
    assert m["self_distillation/reprompt_sample_fraction"] == 4 / 8
    assert m["active_fraction"] == 4 / 8
    assert m["self_distillation/empty_target_batch"] == m["skipped"] == m["not_finite"] == 0
    assert m["optimizer_steps"] == 1 and m["grad_norm"] > 0
    assert m["reprompt_shortened_fraction"] == 0


def test_shortened_prompts_are_counted_once_whatever_the_passes(fresh):  # noqa: F811
    given = attempts((3, 0.0, "far too long " * 60, 0.5, False), *[(3, 0.0, "", 0.5, False)] * 3)
    t = trainer(fresh, max_reprompt_len=100, num_iterations=2)
    with pytest.warns(UserWarning, match="did not fit .max_reprompt_len=100"):
        metrics = t.step(given).metrics
    assert metrics["reprompt_shortened_fraction"] == 1 / 4 and metrics["optimizer_steps"] == 2


WHY = [
    ([], 0.0, "", {}, "it is empty"),
    ([7], 1.0, "", dict(self_success="skip"), "it succeeded, and self_success is 'skip'"),
    ([7], 1.0, "", {}, "it succeeded, and no sibling did"),
    ([7], 0.0, "", {}, "no sibling succeeded, and the environment said nothing"),
    (
        [7],
        0.0,
        "",
        dict(use_successful_as_teacher=False),
        "use_successful_as_teacher is off, and the environment said nothing",
    ),
    (
        [7],
        0.0,
        "no",
        dict(include_environment_feedback=False),
        "no sibling succeeded, and include_environment_feedback is off",
    ),
]


@pytest.mark.parametrize("ids, reward, feedback, fields, why", WHY)
def test_why_an_attempt_takes_no_part(ids, reward, feedback, fields, why):
    r = Rollout(Problem("p", QUESTION), 0, "text", ids, reward=reward, feedback=feedback)
    reprompt([r], lab.SDPOConfig(**fields), random.Random(0))
    assert not r.active and r.why == why


def test_an_attempt_that_takes_part_has_no_reason():
    r = Rollout(Problem("p", QUESTION), 0, "text", [7], reward=0.0, feedback="no")
    reprompt([r], lab.SDPOConfig(), random.Random(0))
    assert r.active and r.why == ""


def test_a_change_of_the_rate_keeps_the_teacher_and_moves_it_so(fresh):  # noqa: F811
    t = trainer(fresh, teacher_update_rate=0.25)
    t.step()
    teacher, before = t.teacher, weights(t.teacher.model)
    t.apply(teacher_update_rate=0.5, learning_rate=2e-2)
    assert t.teacher is teacher and torch.equal(weights(teacher.model), before)
    t.step()
    expected = 0.5 * before + 0.5 * weights(t.model)
    assert torch.allclose(weights(teacher.model), expected, atol=1e-6)
    assert (expected - before).abs().max() > 1e-3


def test_another_kind_of_teacher_starts_from_the_student_of_that_moment(fresh):  # noqa: F811
    t = trainer(fresh)
    t.step()
    start, slow = weights(t.model), t.teacher
    t.apply(teacher_model_kind="frozen")
    assert t.teacher is not slow and t.teacher.kind == "frozen"
    t.step()
    assert torch.equal(weights(t.teacher.model), start)
    assert not torch.equal(weights(t.model), start)


def test_a_weight_of_zero_gives_the_teacher_up_and_another_brings_a_new_one(fresh):  # noqa: F811
    t = trainer(fresh, distillation_weight=0.5)
    t.step()
    t.apply(distillation_weight=0.0)
    assert t.teacher is None
    t.step()
    t.apply(distillation_weight=1.0)
    assert torch.equal(weights(t.teacher.model), weights(t.model))
    assert t.step().metrics["optimizer_steps"] == 1


def test_entries_without_mass_in_kl():
    third = math.log(1 / 3)
    inf = torch.inf
    a = torch.tensor([[-inf, math.log(0.5), math.log(0.5)]])
    b = torch.full((1, 3), third)
    assert losses.kl(a, b).item() == pytest.approx(math.log(1.5))
    assert losses.kl(a, a).item() == 0  # -inf on both sides is nothing, not nan
    assert losses.kl(b, a).item() == inf  # mass where the other has none


def test_a_subclass_that_overrides_prepare_still_works(fresh):  # noqa: F811
    """For one version: `prepare` was two stages in one."""
    model, tokenizer = fresh
    seen = []
    with pytest.warns(DeprecationWarning, match="Halved.prepare is called for one more version"):

        class Halved(lab.SDPOTrainer):
            def prepare(self, groups, number):
                seen.append((number, len(groups)))
                return 0.5 * super().prepare(groups, number)

    config = trainer((copy.deepcopy(model), tokenizer), distillation_weight=0.5).config
    halved = Halved(copy.deepcopy(model), tokenizer, Vowels(), config)
    plain = lab.SDPOTrainer(copy.deepcopy(model), tokenizer, Vowels(), config)
    rollouts = plain.step().rollouts
    assert [r.why for r in halved.step().rollouts] == [r.why for r in rollouts]
    assert seen == [(1, 2)] and halved.history[0].loss != plain.history[0].loss
    groups = [rollouts[:4], rollouts[4:]]
    assert torch.equal(halved.prepare(groups, 1), 0.5 * plain.prepare(groups, 1))


def test_advantages_of_a_subclass_decide_who_trains(fresh):  # noqa: F811
    """`compute_advantages` returns numbers; who takes part for them is decided after it."""

    class Longest(lab.SDPOTrainer):
        def compute_advantages(self, groups):
            lengths = [float(len(r.completion_ids)) for group in groups for r in group]
            return torch.tensor(lengths) - 4.0

    given = attempts(*[(tokens, 0.0, "", 0.5, False) for tokens in (3, 4, 0, 6)])
    t = trainer(fresh, distillation_weight=0.0)
    longest = Longest(t.model, t.tokenizer, Vowels(), t.config)
    before = weights(longest.model)
    record = longest.step(given)
    same = "all attempts of its group have the same reward"
    assert [r.active for r in record.rollouts] == [True, False, False, True]
    assert [r.why for r in record.rollouts] == ["", same, "it is empty", ""]
    assert math.isfinite(record.loss) and not torch.equal(before, weights(longest.model))


def test_a_skipped_step_after_the_bad_ones_is_no_reason_to_stop(fresh, monkeypatch):  # noqa: F811
    t = trainer(fresh)
    with monkeypatch.context() as m:
        m.setattr(losses_of_core, "distillation_loss", lambda s, *a, **k: s.sum(-1) * math.nan)
        t.step()
        t.step(attempts(*[(3, 0.0, "", 0.5, False)] * 4))  # skipped: it does not count
        t.step()
        with pytest.raises(FloatingPointError, match="3 steps in a row"):
            t.step()
    assert t.step(attempts(*[(3, 0.0, "", 0.5, False)] * 4)).metrics["skipped"] == 1
    assert t.bad_steps == 3 and t.step().metrics["not_finite"] == 0 and t.bad_steps == 0


def test_a_class_for_two_versions_is_taken_by_its_new_stages(fresh):  # noqa: F811
    with pytest.warns(DeprecationWarning, match="is called for one more version"):

        class Both(lab.SDPOTrainer):
            def prepare(self, groups, number):
                raise AssertionError("only a version without the stages calls it")

            def build_teacher_contexts(self, groups, number):
                super().build_teacher_contexts(groups, number)

            def compute_advantages(self, groups):
                return super().compute_advantages(groups)

    plain = trainer(fresh, distillation_weight=0.0)
    both = Both(copy.deepcopy(plain.model), plain.tokenizer, Vowels(), plain.config)
    assert both.step().loss == plain.step().loss


def test_functions_of_the_core_have_their_names_before_for_one_version():
    from sdpo_lab.core import objective, teachers

    assert objective.backward is objective.loss_and_backward
    assert teachers.frozen_copy is teachers.copy_of_trainable
