"""03_distillation_loss: its exercises know the classic mistakes, its solutions are the package's
losses, and its identities hold for other numbers too."""

from __future__ import annotations

import ast

import jupytext
import pytest
import torch

from sdpo_lab import exercises as checks
from sdpo_lab.core import losses
from sdpo_lab.exercises import check_gradient, check_sequence, check_tail
from tests.conftest import ROOT
from tests.exercises.mistakes import assert_named, each_mistake

CELLS = [
    c
    for c in jupytext.read(ROOT / "notebooks" / "03_distillation_loss.py", fmt="py:percent").cells
    if c.cell_type == "code"
]
SOLUTIONS = ("gradient", "tail", "sequence_loss")


def solution(name: str) -> tuple[int, ast.FunctionDef]:
    """(number of its cell, the function) of a solution in the notebook."""
    (found,) = [
        (i, node)
        for i, c in enumerate(CELLS)
        for node in ast.parse(c.source).body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    return found


def load(name: str):
    names: dict = {"torch": torch}
    exec(ast.unparse(solution(name)[1]), names)
    return names[name]


gradient, tail, sequence_loss = map(load, SOLUTIONS)


def change(name: str, old: str, new: str):
    """A solution of the notebook with one piece of its text replaced."""
    source = ast.unparse(solution(name)[1])
    assert source.count(old) == 1, (old, source)
    names: dict = {"torch": torch}
    exec(source.replace(old, new), names)
    return names[name]


# -- the notebook


@pytest.mark.parametrize(
    "name, check", list(zip(SOLUTIONS, (check_gradient, check_tail, check_sequence))), ids=SOLUTIONS
)
def test_solutions_are_folded_follow_their_exercise_and_pass(name, check):
    place, _ = solution(name)
    assert (
        CELLS[place].metadata["jupyter"] == {"source_hidden": True}
        and CELLS[place].metadata["cellView"] == "form"
    )
    stub, _ = solution(f"my_{name}")
    assert stub < place
    assert (
        f"{check.__name__}(my_{name})" in CELLS[stub].source
        and f"{check.__name__}({name})" in CELLS[place].source
    )
    assert check(load(f"my_{name}")) == checks.UNWRITTEN
    assert check(load(name)).startswith("✓ ")


def test_solutions_are_the_package_s_losses():
    generator = torch.Generator().manual_seed(0)
    z, to, ids = (
        torch.randn(2, 5, 7, generator=generator),
        torch.randn(2, 5, 7, generator=generator),
        torch.randint(7, (2, 5), generator=generator),
    )
    z.requires_grad_()
    losses.distillation_loss(z, to, ids, mode="full_logits").sum().backward()
    p, q = z.detach().log_softmax(-1), to.log_softmax(-1)
    assert torch.allclose(gradient(p, q), z.grad, atol=1e-6)
    assert torch.allclose(tail(p[..., :3]), losses.tail(p[..., :3]))
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    sampled = (x.gather(-1, ids[..., None])[..., 0] for x in (p, q))
    assert torch.allclose(
        sequence_loss(*sampled, mask),
        losses.distillation_loss(z, to, ids, mode="sequence", mask=mask).detach(),
        atol=1e-6,
    )


# -- the checks: (how a wrong answer is named, wrong answers)


def mean(p, q, mask):
    return ((q - p) * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)


def average(p, q):
    return (p.exp() * (p - q)).sum(-1, keepdim=True)


WRONG_GRADIENTS = {
    "the KL itself is not subtracted": [lambda p, q: p.exp() * (p - q)],
    "the sign is turned round. This is what a step": [
        lambda p, q: -gradient(p, q),
        lambda p, q: p.exp() * (q - p),
    ],
    "of the other direction, KL(teacher || student): p - q": [lambda p, q: p.exp() - q.exp()],
    "and its sign is turned round": [lambda p, q: q.exp() - p.exp()],
    "nothing weighs": [
        lambda p, q: p - q,
        lambda p, q: q - p,
        lambda p, q: p - q - average(p, q),
        lambda p, q: (p - q) - p.exp() * (p - q).sum(-1, keepdim=True),
    ],
    "the teacher's probabilities weigh": [
        lambda p, q: q.exp() * (p - q - average(p, q)),
        lambda p, q: q.exp() * (p - q),
        lambda p, q: q.exp() * (p - q + average(q, p)),
    ],
    "the KL of the other direction was": [
        lambda p, q: p.exp() * (p - q - average(q, p)),
        lambda p, q: p.exp() * (p - q + average(q, p)),
    ],
    "the KL was added": [lambda p, q: p.exp() * (p - q + average(p, q))],
    "the softmax between them": [lambda p, q: p.exp() * (p - q + 1), lambda p, q: p - q + 1],
    "keepdim=True": [lambda p, q: p.exp() * (p - q - average(p, q)[:, 0])],
    "the same number was subtracted": [
        lambda p, q: p.exp() * (p - q - (p.exp() * (p - q)).sum()),
        lambda p, q: p.exp() * (p - q - average(p, q).mean()),
    ],
    "the plain mean over the words": [
        lambda p, q: p.exp() * (p - q - (p - q).mean(-1, keepdim=True))
    ],
    "one number for every place": [average, lambda p, q: average(p, q)[:, 0]],
    "do not know this mistake": [lambda p, q: 2 * gradient(p, q)],
    "returns a float": [lambda p, q: float(average(p, q).sum())],
    "the shape is (3, 2)": [lambda p, q: gradient(p, q)[:, :2]],
}
WRONG_TAILS = {
    "1 minus the sum of the logs": [
        lambda x: 1 - x.sum(-1, keepdim=True),
        lambda x: (1 - x.sum(-1, keepdim=True)).log(),
        lambda x: 1 - x.sum(-1),
    ],
    "1 minus the log of the mass": [
        lambda x: 1 - x.logsumexp(-1, keepdim=True),
        lambda x: 1 - x.logsumexp(-1),
    ],
    "renormalises": [lambda x: x.log_softmax(-1), lambda x: x.softmax(-1)],
    "come back as they were": [lambda x: x],
    "this is the mass. ": [
        lambda x: 1 - x.exp().sum(-1, keepdim=True),
        lambda x: -torch.expm1(x.logsumexp(-1)),
    ],
    "log of the mass inside, of": [
        lambda x: x.logsumexp(-1, keepdim=True),
        lambda x: x.logsumexp(-1),
    ],
    "this is the mass inside": [lambda x: x.exp().sum(-1, keepdim=True), lambda x: x.exp().sum(-1)],
    "never positive": [lambda x: -tail(x)],
    "the last dimension is gone": [
        lambda x: tail(x)[..., 0],
        change("tail", "keepdim=True", "keepdim=False"),
    ],
    "the words were put in front": [lambda x: torch.cat([x, tail(x)], -1)],
    "ran over the rows": [
        lambda x: (1 - x.exp().sum(0)).log(),
        change("tail", "logsumexp(-1", "logsumexp(0"),
    ],
    "ran over everything": [lambda x: (1 - x.exp().sum()).log()],
    "the bucket is empty": [
        lambda x: torch.full_like(x[:, :1], -torch.inf),
        lambda x: torch.zeros_like(x[:, :1]),
    ],
    "no gradient flows": [lambda x: tail(x.detach()), torch.no_grad()(tail)],
    "it is -inf": [
        change("tail", ".clamp(max=-1e-07)", ""),
        lambda x: (1 - x.exp().sum(-1, keepdim=True)).log(),
    ],
    "but its gradient is not": [
        lambda x: (1 - x.exp().sum(-1, keepdim=True)).log().clamp(min=-16),
        lambda x: torch.nan_to_num((1 - x.exp().sum(-1, keepdim=True)).log(), neginf=-16.0),
    ],
    "do not know this mistake": [lambda x: tail(x) + 1],
    "returns a float": [lambda x: 0.0],
}
WRONG_SEQUENCES = {
    "the token level": [
        lambda p, q, mask: -(q - p).detach() * p,
        lambda p, q, mask: -(q - p).detach() * p * mask,
    ],
    "ran over the batch": [
        lambda p, q, mask: -(((q - p) * mask).sum() / mask.sum()).detach() * p,
        lambda p, q, mask: -(q - p).mean().detach() * p,
        lambda p, q, mask: -mean(p, q, mask).mean().detach() * p,
    ],
    "ran over the attempts at each place": [
        lambda p, q, mask: -(q - p).mean(0).detach() * p,
        lambda p, q, mask: -(((q - p) * mask).sum(0) / mask.sum(0)).detach() * p,
    ],
    "padding was averaged too": [
        lambda p, q, mask: -(q - p).mean(-1, keepdim=True).detach() * p,
        lambda p, q, mask: -((q - p) * mask).mean(-1, keepdim=True).detach() * p,
        change("sequence_loss", "((q - p) * mask)", "(q - p)"),
    ],
    "the sum over the attempt": [
        change("sequence_loss", " / mask.sum(-1, keepdim=True)", ""),
        lambda p, q, mask: -(q - p).sum(-1, keepdim=True).detach() * p,
    ],
    "of the teacher alone": [change("sequence_loss", "(q - p)", "q")],
    "of the student alone": [change("sequence_loss", "(q - p)", "p")],
    "the sign is turned round": [
        change("sequence_loss", "-credit", "credit"),
        change("sequence_loss", "(q - p)", "(p - q)"),
    ],
    "the ratios of the probabilities": [change("sequence_loss", "(q - p)", "(q - p).exp()")],
    "no loss yet": [
        lambda p, q, mask: -mean(p, q, mask).expand_as(p),
        lambda p, q, mask: mean(p, q, mask),
        lambda p, q, mask: -mean(p, q, mask)[:, 0],
    ],
    "multiplies the probability": [lambda p, q, mask: -mean(p, q, mask).detach() * p.exp()],
    "averaged after the product": [
        lambda p, q, mask: (sequence_loss(p, q, mask) * mask).sum() / mask.sum(),
        lambda p, q, mask: sequence_loss(p, q, mask).mean(),
    ],
    "no gradient flows": [lambda p, q, mask: sequence_loss(p, q, mask).detach()],
    "the teacher gets a gradient": [
        change("sequence_loss", ".detach()", ""),
        lambda p, q, mask: -mean(p.detach(), q, mask) * p,
    ],
    "flows through the credit too": [lambda p, q, mask: -mean(p, q.detach(), mask) * p],
    "do not know this mistake": [lambda p, q, mask: 2 * sequence_loss(p, q, mask)],
    "returns a list": [lambda p, q, mask: [0.0]],
    "the shape is (4, 2)": [lambda p, q, mask: sequence_loss(p, q, mask).T],
}


@each_mistake(
    (
        (check_gradient, WRONG_GRADIENTS),
        (check_tail, WRONG_TAILS),
        (check_sequence, WRONG_SEQUENCES),
    )
)
def test_a_classic_mistake_is_named(check, function, words):
    assert_named(check, function, words)


def by_autograd(p, q):
    z = p.clone().requires_grad_()
    return torch.autograd.grad(losses.kl(z.log_softmax(-1), q).sum(), z)[0]


def test_the_right_answer_passes_however_it_is_written():
    assert check_gradient(by_autograd).startswith("✓ ")
    assert check_gradient(lambda p, q: p.exp() * (p - q) - p.exp() * average(p, q)).startswith("✓ ")
    assert check_tail(losses.tail).startswith("✓ ") and "expm1" not in check_tail(losses.tail)
    assert check_sequence(lambda p, q, mask: sequence_loss(p, q, mask) * mask).startswith("✓ "), (
        "what stands on padding is free"
    )
    assert check_sequence(
        lambda p, q, mask: -mean(p, q, mask).detach() * p.masked_fill(mask == 0, 7.0)
    ).startswith("✓ ")


def test_a_clamped_tail_that_rounds_passes_with_a_word_on_it():
    rounding = check_tail(lambda x: (1 - x.exp().sum(-1, keepdim=True)).clamp(min=1e-7).log())
    assert rounding.startswith("✓ ") and "expm1" in rounding


# -- what the notebook says of its numbers


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_with_another_teacher_only_the_assertion_of_section_8_fails():
    """The last lines of the notebook promise it: everything else that is asserted is an
    identity."""
    names, failed = {"get_ipython": None, "display": print}, []
    for cell in CELLS:
        try:
            exec(
                compile(
                    cell.source.replace(
                        "teacher = torch.tensor([0.02, 0.05, 0.04, 0.87, 0.02])",
                        "teacher = student.flip(0)",
                    ),
                    "cell",
                    "exec",
                ),
                names,
            )
        except AssertionError:
            failed.append(cell.source)
    assert torch.equal(names["teacher"], names["student"].flip(0))
    assert len(failed) == 1 and "t_free[-1]" in failed[0]
