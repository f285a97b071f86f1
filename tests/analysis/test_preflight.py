"""preflight: what it counts, that it changes nothing, and what it says in each situation."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.analysis.preflight import Share, advise, preflight
from tests.shared.tasks import SMALL, Vowels


def test_it_counts_what_a_trainer_would_see_and_leaves_the_weights_alone(tiny):
    model, tokenizer = tiny
    before = copy.deepcopy(model.state_dict())
    config = lab.SDPOConfig.preset("laptop", **SMALL)
    report = preflight(model, tokenizer, Vowels(), config, n=8, seed=3)
    assert (
        all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and not model.training
    )
    assert all(p.grad is None for p in model.parameters())
    trainer = lab.SDPOTrainer(
        copy.deepcopy(model), tokenizer, Vowels(), config.replace(learning_rate=0.0, seed=3)
    )
    records = [
        trainer.step()
        for _ in range(max(2, -(-8 * config.num_generations // config.generation_batch_size)))
    ]
    attempts = [r for record in records for r in record.rollouts]
    assert (report.pass_at_1.successes, report.pass_at_1.n) == (
        sum(r.reward == 1 for r in attempts),
        len(attempts),
    )
    assert report.active == pytest.approx(sum(r.active for r in attempts) / len(attempts))
    assert (
        report.teacher_feedback.n == min(256, sum(r.reward != 1 for r in attempts))
        and report.k == config.num_generations
    )
    assert (
        report.seconds_per_step > 0
        and report.advice in str(report)
        and f"pass@{report.k}" in str(report)
    )
    model.train()
    again = preflight(model, tokenizer, Vowels(), config, n=8, seed=3)
    assert (
        model.training
        and again.pass_at_1 == report.pass_at_1
        and again.teacher_feedback == report.teacher_feedback
    )


def test_a_task_without_feedback_and_without_success_is_called_hopeless(tiny):
    class Silent(Vowels):
        def judge(self, problem, completion):
            return 0.0, ""

    report = preflight(*tiny, Silent(), lab.SDPOConfig.preset("laptop", **SMALL), n=4)
    assert not report.ready and report.active == 0 and "nothing to learn from" in report.advice
    assert (
        report.teacher_feedback.n == 0
        and math.isnan(float(report.teacher_feedback))
        and "none to measure" in str(report)
    )


def test_a_solution_of_the_task_stands_in_for_a_sibling(tiny):
    class Known(Vowels):
        def judge(self, problem, completion):
            return float(completion == "secret"), ""

        def solution(self, problem):
            return "secret"

    report = preflight(*tiny, Known(), lab.SDPOConfig.preset("laptop", **SMALL), n=4)
    assert report.teacher_solution.n == report.pass_at_1.n and report.teacher_feedback.n == 0


SITUATIONS = {
    "good": (dict(), True, "should learn"),
    "solved": (dict(pass_at_1=Share(98, 100)), False, "Nothing is left to learn"),
    "silent and hopeless": (
        dict(
            pass_at_1=Share(0, 100),
            pass_at_k=Share(0, 12),
            judge_said=0.0,
            teacher_feedback=Share(0, 0),
            teacher_solution=Share(90, 100),
        ),
        False,
        "nothing to learn from",
    ),
    "a teacher that does not read": (
        dict(teacher_feedback=Share(12, 100), teacher_solution=Share(11, 100)),
        False,
        "answers no better",
    ),
    "solutions help but nobody has one": (
        dict(
            pass_at_1=Share(0, 100),
            pass_at_k=Share(0, 12),
            teacher_feedback=Share(0, 100),
            teacher_solution=Share(90, 100),
        ),
        False,
        "none of 100 attempts was one",
    ),
    "hardly anybody active": (dict(active=0.02), False, "raise num_generations"),
    "siblings alone": (dict(teacher_feedback=Share(10, 100)), True, "comes from siblings"),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_sentence_fits_the_situation(name):
    fields, ready, says = SITUATIONS[name]
    usual = dict(
        pass_at_1=Share(10, 100),
        pass_at_k=Share(6, 12),
        k=8,
        teacher_feedback=Share(60, 100),
        teacher_solution=Share(90, 100),
        active=0.8,
        judge_said=1.0,
        seconds_per_step=0.3,
    )
    found, advice = advise(**usual | fields)
    assert found is ready and says in advice


def test_grpo_and_bad_numbers_are_refused(tiny):
    with pytest.raises(ValueError, match="GRPO, which has no teacher"):
        preflight(*tiny, Vowels(), lab.SDPOConfig.preset("laptop", distillation_weight=0.0))
    with pytest.raises(ValueError, match="n must be from 1"):
        preflight(*tiny, Vowels(), n=0)
