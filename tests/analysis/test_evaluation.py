import copy

import pytest

import sdpo_lab as lab
from sdpo_lab.analysis.evaluation import wilson
from sdpo_lab.tasks import Problem


def test_wilson_s_interval():
    """Against values of the textbook formula worked out by hand and elsewhere."""
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


class Known:
    """Right for the problems whose number is even: accuracies are known whatever the model
    writes."""

    def problems(self, n, split="train", seed=0):
        return [
            Problem(f"{split}{i}", [{"role": "user", "content": f"{i}"}], {"right": i % 2 == 0})
            for i in range(n)
        ]

    def judge(self, problem, completion):
        return (1.0, "") if problem.data["right"] else (0.0, "no")


def test_accuracies_are_those_of_the_judge(tiny):
    model, tokenizer = tiny
    trainer = lab.SDPOTrainer(
        model,
        tokenizer,
        Known(),
        lab.SDPOConfig.preset(
            "laptop", generation_batch_size=8, num_generations=4, max_completion_length=4
        ),
    )
    e = trainer.evaluate(40)
    assert (
        e.accuracy == e.accuracy_low_temperature == e.greedy == e.pass_at_8 == 0.5
        and e.n == 40
        and e.split == "test"
    )
    assert e.interval == pytest.approx(wilson(20, 40)) and e.interval_pass_at_8 == pytest.approx(
        wilson(16, 32)
    )
    teacher = trainer.evaluate(
        40, role="teacher"
    )  # 10 problems in groups of 4: each attempt's own problem is what is judged
    assert teacher.accuracy == 0.5 and teacher.n == 40


def test_the_teacher_reads_what_the_student_does_not():
    """The shipped model: the self-teacher's own accuracy lies far above the student's, on unseen
    problems."""
    model, tokenizer = lab.load_model()
    trainer = lab.SDPOTrainer(model, tokenizer, lab.load_task("toolcall", seed=301))
    before = copy.deepcopy(model.state_dict())
    student, teacher = trainer.evaluate(64), trainer.evaluate(64, role="teacher")
    assert teacher.interval[0] > student.interval[1] and float(teacher) > 0.7
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
