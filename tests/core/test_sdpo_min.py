"""The file for readers is the trainer, to a millionth; and a millionth is near enough to find a
broken line."""

import copy
import inspect
import types

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab import sdpo_min

SOURCE = inspect.getsource(sdpo_min)
SETTINGS = dict(seed=5, problems=4, attempts=4, length=12, lr=3e-4, rate=0.1)
SAME = dict(
    seed=5,
    generation_batch_size=16,
    num_generations=4,
    max_completion_length=12,
    learning_rate=3e-4,
    distillation_mode="full_logits",
    distillation_alpha=1.0,
    normalize="active_tokens",
    demonstration="first",
)
CONFIG, LIVE = (
    lab.SDPOConfig(**SAME, teacher_update_rate=0.1),
    lab.SDPOConfig(**SAME, teacher_model_kind="live"),
)


class Letters:
    """Likes answers whose length is a multiple of four, praises those, and has nothing to say of
    other multiples of five."""

    def problems(self, n, split="train", seed=0):
        return [
            lab.Problem(
                f"{split}-{seed}-{i}",
                [
                    {"role": "system", "content": "be brief"},
                    {"role": "user", "content": f"write {i} of {seed}"},
                ],
            )
            for i in range(n)
        ]

    def judge(self, problem, completion):
        size = len(completion)
        if completion.strip() and size % 4 == 0:
            return lab.Verdict(1.0, "well done")
        return lab.Verdict(0.0, "" if size % 5 == 0 else f"{size} letters")


def apart(one, two):
    """The largest difference between any two weights."""
    return max(
        float((x - y).detach().abs().max())
        for x, y in zip(one.parameters(), two.parameters(), strict=True)
    )


def broken(old, new):
    """sdpo_min with one piece of its text replaced."""
    assert SOURCE.count(old) == 1, f"{old!r} stands {SOURCE.count(old)} times in sdpo_min.py"
    module = types.ModuleType("broken")
    exec(compile(SOURCE.replace(old, new), "broken", "exec"), module.__dict__)
    return module


class Reference:
    """Three steps of the trainer in float64, and one step with the live student as its teacher."""

    def __init__(self, model, tokenizer):
        self.start, self.tokenizer = copy.deepcopy(model).double(), tokenizer
        with (
            torch.no_grad()
        ):  # contexts make more of a difference, and gradients are long enough to be clipped
            for layer in self.start.model.layers:
                layer.self_attn.q_proj.weight.mul_(4)
                layer.self_attn.v_proj.weight.mul_(4)
            self.start.model.norm.weight.mul_(3)
        trainer = lab.SDPOTrainer(copy.deepcopy(self.start), tokenizer, Letters(), CONFIG)
        self.steps = [
            (trainer.step(), copy.deepcopy(trainer.model), copy.deepcopy(trainer.teacher.model))
            for _ in range(3)
        ]
        live = lab.SDPOTrainer(copy.deepcopy(self.start), tokenizer, Letters(), LIVE)
        self.live = live.step(), live.model

    def compare(self, module):
        """The largest difference in reward, loss and weights of both roles, after every step."""
        student = copy.deepcopy(self.start)
        run = module.sdpo(student, self.tokenizer, Letters(), steps=3, **SETTINGS)
        for (reward, loss, teacher), (record, trained, trained_teacher) in zip(
            run, self.steps, strict=True
        ):
            yield max(
                abs(reward - record.reward),
                abs(loss - record.loss),
                apart(student, trained),
                apart(teacher, trained_teacher),
            )

    def compare_live(self, module):
        """The same after one step on the attempts of the live run, with the student in the
        teacher's place."""
        student, (record, trained) = copy.deepcopy(self.start), self.live
        attempts = [
            module.Attempt(r.problem, r.completion_ids, r.text, r.reward, r.feedback)
            for r in record.rollouts
        ]
        optimizer = torch.optim.AdamW(
            student.parameters(), lr=LIVE.learning_rate, weight_decay=LIVE.weight_decay
        )
        loss = module.step(
            student,
            student,
            self.tokenizer,
            optimizer,
            [attempts[i : i + 4] for i in range(0, 16, 4)],
        )
        return max(abs(loss - record.loss), apart(student, trained))


@pytest.fixture(scope="module")
def reference(tiny_original):
    return Reference(*tiny_original)


def test_the_runs_to_compare_hold_every_case(reference):
    records = [record for record, _, _ in reference.steps]
    groups = [record.rollouts[i : i + 4] for record in records for i in range(0, 16, 4)]
    assert {sum(r.reward for r in g) for g in groups} >= {0, 1, 2}, (
        "groups with no success, one, and several"
    )
    every = [r for g in groups for r in g]
    for succeeded in (True, False):
        assert any(r.reward == succeeded and r.shown_solution for r in every)
        assert any(r.reward == succeeded and not r.active for r in every)
    assert any(r.shown_feedback for r in every)
    assert {r.truncated for r in every} == {True, False} and len(
        {len(r.completion_ids) for r in every}
    ) > 2
    assert all(record.metrics["grad_norm"] > 1 for record in records), "the clip is at work"


def test_it_is_the_trainer_to_a_millionth(reference):
    assert max(reference.compare(sdpo_min)) < 1e-6
    _, student, teacher = reference.steps[-1]
    assert apart(reference.start, student) > 1e-4 and apart(reference.start, teacher) > 1e-4, (
        "weights that stay would agree too"
    )


def test_one_step_with_the_live_student_as_teacher_too(reference):
    assert reference.compare_live(sdpo_min) < 1e-6
    assert apart(reference.start, reference.live[1]) > 1e-4


def test_the_tokens_are_the_trainer_s(reference):
    for r in reference.steps[0][0].rollouts:
        prompt = sdpo_min.encode(reference.tokenizer, r.problem.messages)
        (ids,) = sdpo_min.sample(
            reference.start,
            prompt,
            [(5, 1, r.problem.id, r.index)],
            reference.tokenizer.eos_token_id,
            12,
        )
        assert ids == r.completion_ids


def test_nothing_to_learn_changes_nothing(tiny):
    model, tokenizer = tiny
    task = types.SimpleNamespace(
        problems=Letters().problems, judge=lambda problem, completion: lab.Verdict(0.0, "")
    )
    before = copy.deepcopy(model)
    ((reward, loss, teacher),) = sdpo_min.sdpo(
        model, tokenizer, task, 1, problems=1, attempts=2, length=4
    )
    assert (
        reward == 0 and loss is None and apart(before, model) == 0 and apart(before, teacher) == 0
    )


BREAKS = {
    "the other direction of the KL": (
        "(p.exp() * (p - q.detach()))",
        "(q.detach().exp() * (q.detach() - p))",
    ),
    "no gradient through the student's probabilities": ("(p.exp() * (p", "(p.exp().detach() * (p"),
    "logits shifted by one": ("logits[len(prompt) - 1 : -1]", "logits[len(prompt) :]"),
    "mean of the attempts' means": (
        "torch.cat(losses).mean()",
        "torch.stack([x.mean() for x in losses]).mean()",
    ),
    "sum over the tokens": ("torch.cat(losses).mean()", "torch.cat(losses).sum()"),
    "no clip": ("model.parameters(), 1.0", "model.parameters(), 1e9"),
    "no weight decay": ("weight_decay=0.01", "weight_decay=0.0"),
    "rate of the average turned round": ("(1 - rate) * t + rate * s", "rate * t + (1 - rate) * s"),
    "teacher stays": ("follow(teacher, model, rate)\n        yield", "pass\n        yield"),
    "teacher reads the question alone": (
        "encode(tokenizer, chat)",
        "encode(tokenizer, a.problem.messages)",
    ),
    "no feedback": ("elif me.reward < 1 and me.feedback:", "elif False:"),
    "feedback for successes": ("elif me.reward < 1 and me.feedback:", "elif me.feedback:"),
    "an empty feedback": ("elif me.reward < 1 and me.feedback:", "elif me.reward < 1:"),
    "no demonstration": ("    if successes:", "    if False:"),
    "own answer as the demonstration": (" and j != i", ""),
    "last success": ("successes[0]", "successes[-1]"),
    "system message lost": ("return [*earlier, {", "return [{"),
    "another wording": ("Correctly solve", "Solve"),
    "noise without the attempt's index": (
        "(seed, number, problem.id, i)",
        "(seed, number, problem.id)",
    ),
    "noise of the next position": ("(position + 1)", "(position + 2)"),
    "noise without the step": ("(seed, number, problem.id, i)", "(seed, problem.id, i)"),
    "end token left out": ("row.index(end) + 1", "row.index(end)"),
    "what follows the end token counts": (
        "row[: row.index(end) + 1] if end in row else row",
        "row",
    ),
    "other problems": ("seed * 1_000_003 + number", "seed + number"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_line_is_found(reference, name):
    assert any(difference > 1e-6 for difference in reference.compare(broken(*BREAKS[name])))


def test_a_gradient_into_the_teacher_is_found(reference):
    """Only where student and teacher are one; a copy has no gradient to give."""
    assert reference.compare_live(broken("q.detach()", "q")) > 1e-6
