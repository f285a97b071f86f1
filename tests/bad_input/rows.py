"""A row: a call that works, and what is bad for each of its parameters."""

from __future__ import annotations

import dataclasses

import torch

from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.task import Problem
from tests.bad_input.values import MODEL, TEXT, TOKENIZER

CHAT = [{"role": "user", "content": "Will it rain?"}]
QUESTION = Problem("p", CHAT)
DISTRIBUTION = torch.zeros(1, 2, 4).log_softmax(-1)
LOGITS = dict(
    student_logits=DISTRIBUTION,
    teacher_logits=DISTRIBUTION,
    completion_ids=torch.ones(1, 2, dtype=torch.long),
)
BOTH = dict(student=DISTRIBUTION, teacher=DISTRIBUTION)


class Sums:
    """A task of one's own."""

    name = "sums"

    def problems(self, n, split="train", seed=0):
        return [
            Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": f"{i} + {seed} ="}])
            for i in range(n)
        ]

    def judge(self, problem, completion):
        return float(len(completion) % 2), f"{len(completion)} letters"


class Gives(Sums):
    """A task with problems of one's own making, and a judge that returns what it is told to."""

    def __init__(self, problems=None, verdict=(1.0, "")) -> None:
        self.made, self.verdict = problems, verdict

    def problems(self, n, split="train", seed=0):
        return super().problems(n, split, seed) if self.made is None else self.made(n)

    def judge(self, problem, completion):
        return self.verdict


def small(**fields) -> SDPOConfig:
    return SDPOConfig.preset(
        "laptop",
        **{**dict(generation_batch_size=4, num_generations=2, max_completion_length=4), **fields},
    )


@dataclasses.dataclass
class Row:
    """A call that works, what is bad for each of its parameters, and the parameters that take
    anything, with the reason."""

    good: object  #: function of the fixtures `x` -> (callable, its arguments)
    bad: dict[str, list]
    free: dict[str, str] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(
        default_factory=dict
    )  #: parameter -> how the message names it


@dataclasses.dataclass(frozen=True)
class From:
    """What is made of the fixtures, when the row is tried."""

    make: object

    @staticmethod
    def the(x, value):
        return value.make(x) if isinstance(value, From) else value


def given(function, **arguments):
    """A call that works: of the fixtures, (the function, its arguments)."""
    return lambda x: (
        From.the(x, function),
        {name: From.the(x, value) for name, value in arguments.items()},
    )


M, T = (
    dict(model=From(lambda x: x.model), tokenizer=From(lambda x: x.tokenizer)),
    dict(model=MODEL, tokenizer=TOKENIZER),
)
SHOWN = dict(feedback=TEXT, solution=TEXT, attempt=TEXT)
ANY_TEACHER = "a model or a Teacher; what is neither fails in its first call"
