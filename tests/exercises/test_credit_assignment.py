"""01_credit_assignment: its exercises know the classic mistakes, its solutions are folded, and each
section ends in something to see."""

from __future__ import annotations

import ast
import re

import jupytext
import pytest
import torch

from sdpo_lab.core import losses
from sdpo_lab.exercises.common import UNWRITTEN
from sdpo_lab.exercises.credit_assignment import (
    check_credit_loss,
    check_group_advantages,
    check_policy_loss,
)
from tests.conftest import ROOT
from tests.exercises.mistakes import assert_named, each_mistake

CELLS = jupytext.read(ROOT / "notebooks" / "01_credit_assignment.py", fmt="py:percent").cells
EXERCISES = ("policy_loss", "group_advantages", "credit_loss")
CHECKS = {
    "policy_loss": check_policy_loss,
    "group_advantages": check_group_advantages,
    "credit_loss": check_credit_loss,
}


def cell_of(source: str) -> int:
    """The number of the one code cell that holds `source`."""
    places = [i for i, c in enumerate(CELLS) if c.cell_type == "code" and source in c.source]
    assert len(places) == 1, f"stands in {len(places)} cells: {source}"
    return places[0]


def solution(name: str):
    """The function of the notebook's solution cell."""
    source = CELLS[cell_of(f"\ndef {name}(")].source
    names: dict = {"torch": torch}
    exec(source[: source.index("\n\n\nprint(")], names)
    return names[name]


@pytest.mark.parametrize("name", EXERCISES)
def test_solutions_are_folded_follow_their_exercise_and_are_right(name):
    place, stub = cell_of(f"\ndef {name}("), cell_of(f"def my_{name}(")
    assert stub < place
    assert (
        CELLS[place].metadata["jupyter"] == {"source_hidden": True}
        and CELLS[place].metadata["cellView"] == "form"
    )
    assert (
        f"check_{name}(my_{name})" in CELLS[stub].source
        and f"check_{name}({name})" in CELLS[place].source
    )
    assert CHECKS[name](solution(name)).startswith("✓ ")
    assert CHECKS[name](lambda *_: None) == UNWRITTEN


def test_every_section_shows_something():
    """The last code cell of a section prints, or ends in an expression; the header's alone does
    neither."""
    sections: dict[str, list[str]] = {}
    for c in CELLS:
        if c.cell_type == "markdown" and (heading := re.search(r"^## (.+)", c.source, re.M)):
            sections[heading[1]] = []
        elif c.cell_type == "code" and sections:
            list(sections.values())[-1].append(c.source)
    assert len(sections) >= 8
    for heading, codes in sections.items():
        assert "print(" in codes[-1] or isinstance(ast.parse(codes[-1]).body[-1], ast.Expr), heading


# -- (a wrong answer, how it is named)


def log_p(logits, actions):
    return logits.log_softmax(-1)[actions]


def taken(z, cut, ids):
    return z[cut - 1 : -1].log_softmax(-1).gather(1, ids[:, None])[:, 0]


def changed(rewards):
    rewards -= rewards.mean(1, keepdim=True)
    return rewards


WRONG_POLICY_LOSSES = {
    "the minus is missing": [lambda z, a, r: (r * log_p(z, a)).mean()],
    "weighed with p, as in r · p(a)": [
        lambda z, a, r: -(r * z.softmax(0)[a]).mean(),
        lambda z, a, r: (r * z.softmax(0)[a]).mean(),
        lambda z, a, r: -(r * log_p(z, a).exp().detach() * log_p(z, a)).mean(),
    ],
    "p and its logarithm": [lambda z, a, r: -(r * log_p(z, a).exp() * log_p(z, a)).mean()],
    "no gradient flows back": [
        lambda z, a, r: -r.mean(),
        lambda z, a, r: -(r * log_p(z, a).detach()).mean(),
    ],
    "not their log-probabilities": [lambda z, a, r: -(r * z[a]).mean()],
    "do not weigh the samples": [
        lambda z, a, r: -log_p(z, a).mean(),
        lambda z, a, r: torch.nn.functional.cross_entropy(z.expand(5, 4), a),
    ],
    "the sum over the samples": [lambda z, a, r: -(r * log_p(z, a)).sum()],
    "that is a baseline": [lambda z, a, r: -((r - r.mean()) * log_p(z, a)).mean()],
    "the shape is (5,)": [lambda z, a, r: -r * log_p(z, a)],
    "do not know this mistake": [lambda z, a, r: -(r * log_p(z, a)).mean() * 3],
    "returns a float": [lambda z, a, r: 1.0],
}
WRONG_ADVANTAGES = {
    "nan": [lambda r: (r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True)],
    "divided by the standard deviation": [
        lambda r: losses.group_advantages(r, scale=True),
        lambda r: (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-8),
    ],
    "there is no baseline": [lambda r: r, lambda r: r.clone()],
    "the mean of the whole batch": [lambda r: r - r.mean()],
    "over the requests": [lambda r: r - r.mean(0)],
    "keepdim=true": [lambda r: r - r.mean(1)],
    "the sign is turned round": [lambda r: r.mean(1, keepdim=True) - r],
    "the other attempts": [lambda r: r - (r.sum(1, keepdim=True) - r) / 3],
    "these are the means": [lambda r: r.mean(1), lambda r: r.mean(1, keepdim=True)],
    "one number for a group": [lambda r: (r - r.mean(1, keepdim=True)).mean(1)],
    "were changed": [changed],
    "do not know this mistake": [lambda r: (r - r.mean(1, keepdim=True)) * 2],
    "returns a list": [lambda r: [0.0]],
}
WRONG_CREDIT_LOSSES = {
    "the minus is missing": [lambda z, n, x, a: (a * taken(z, n, x)).mean()],
    "shifted by one": [
        lambda z, n, x, a: -(a * z[n:].log_softmax(-1).gather(1, x[:, None])[:, 0]).mean(),
        lambda z, n, x, a: -(a[:-1] * z[n:-1].log_softmax(-1).gather(1, x[:-1, None])[:, 0]).mean(),
    ],
    "the mean runs over the prompt": [
        lambda z, n, x, a: -(a * taken(z, n, x)).sum() / len(z),
        lambda z, n, x, a: -(a * taken(z, n, x)).sum() / (len(z) - 1),
    ],
    "the sum over the tokens": [lambda z, n, x, a: -(a * taken(z, n, x)).sum()],
    "over the blamed tokens alone": [
        lambda z, n, x, a: -(a * taken(z, n, x)).sum() / (a != 0).sum()
    ],
    "these are logits": [
        lambda z, n, x, a: -(a * z[n - 1 : -1].gather(1, x[:, None])[:, 0]).mean()
    ],
    "these are probabilities": [lambda z, n, x, a: -(a * taken(z, n, x).exp()).mean()],
    "over the places": [
        lambda z, n, x, a: -(a * z[n - 1 : -1].log_softmax(0).gather(1, x[:, None])[:, 0]).mean()
    ],
    "do not weigh the tokens": [lambda z, n, x, a: -taken(z, n, x).mean()],
    "the outcome's credit again": [lambda z, n, x, a: -(a.mean() * taken(z, n, x)).mean()],
    "no gradient flows back": [lambda z, n, x, a: -(a * taken(z, n, x).detach()).mean()],
    "the shape is (4,)": [lambda z, n, x, a: -a * taken(z, n, x)],
    "do not know this mistake": [lambda z, n, x, a: -(a * taken(z, n, x)).mean() * 3],
    "returns a float": [lambda z, n, x, a: 1.0],
}


@each_mistake(
    (
        (check_policy_loss, WRONG_POLICY_LOSSES),
        (check_group_advantages, WRONG_ADVANTAGES),
        (check_credit_loss, WRONG_CREDIT_LOSSES),
    )
)
def test_a_classic_mistake_is_named(check, function, words):
    assert_named(check, function, words)


def test_the_right_answer_passes_however_it_is_written():
    ratio = lambda z, a, r: -(r * (log_p(z, a) - log_p(z, a).detach()).exp()).mean()
    assert check_policy_loss(ratio).startswith("✓ "), "PPO's form: another value, the same gradient"
    assert check_policy_loss(
        lambda z, a, r: (
            r * torch.nn.functional.cross_entropy(z.expand(5, 4), a, reduction="none")
        ).mean()
    ).startswith("✓ ")
    assert check_group_advantages(losses.group_advantages).startswith("✓ ")
    assert check_group_advantages(
        lambda r: torch.stack([row - row.mean() for row in r])
    ).startswith("✓ ")
    assert check_credit_loss(
        lambda z, n, x, a: (
            a * torch.nn.functional.cross_entropy(z[n - 1 : -1], x, reduction="none")
        ).mean()
    ).startswith("✓ ")
