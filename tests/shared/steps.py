"""A trainer whose optimiser writes down the gradients, and whether two steps are the same."""

from __future__ import annotations

import copy

import pytest
import torch

import sdpo_lab as lab
from sdpo_lab.core.chat import encode_chat
from sdpo_lab.core.scoring import completion_logits
from sdpo_lab.tasks import Problem

SMALL = dict(
    generation_batch_size=8,
    num_generations=4,
    max_completion_length=12,
    learning_rate=1.0,
    weight_decay=0.0,
    max_grad_norm=1e9,
)
MODES = ("full_logits", "topk_logits", "sampled_token", "sequence")


class Vowels:
    """Rewards an even number of vowels; the feedback counts them, whatever the reward."""

    def problems(self, n, split="train", seed=0):
        return [
            Problem(f"{split}-{seed}-{i}", [{"role": "user", "content": f"write {i}"}])
            for i in range(n)
        ]

    def judge(self, problem, completion):
        count = sum(completion.count(v) for v in "aeiou")
        return float(count % 2 == 0), f"{count} vowels"


class Recorder(torch.optim.SGD):
    """Plain gradient descent that notes the gradient, the learning rate, and the weights after
    every step."""

    def __init__(self, model):
        super().__init__([p for p in model.parameters() if p.requires_grad], lr=1.0)
        self.gradients, self.rates, self.weights = [], [], []

    def step(self):
        self.gradients.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))
        self.rates.append(self.param_groups[0]["lr"])
        super().step()
        self.weights.append(
            torch.cat([p.detach().flatten() for p in self.param_groups[0]["params"]])
        )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def trainer(tiny, **fields):
    """On a copy of the model, with a recorder for optimiser."""
    model = copy.deepcopy(tiny[0])
    t = lab.SDPOTrainer(
        model,
        tiny[1],
        Vowels(),
        lab.SDPOConfig.from_dict({**lab.SDPOConfig.preset("laptop").to_dict(), **SMALL, **fields}),
    )
    t.optimizer = Recorder(model)
    return t


def assert_same(one, two):
    """Two records of (loss, gradients of the optimiser steps)."""
    assert one[0] == pytest.approx(two[0], abs=1e-6, rel=1e-6) and len(one[1]) == len(two[1])
    for a, b in zip(one[1], two[1]):
        assert (a - b).abs().max() <= 1e-6 * b.norm()


def step(tiny, rollouts, **fields):
    t = trainer(tiny, **fields)
    return t.step(rollouts).loss, t.optimizer.gradients


# -- several optimiser steps, by hand


def hand_logits(model, tokenizer, messages, r):
    prompt = encode_chat(tokenizer, messages)
    return model(torch.tensor([prompt + r.completion_ids])).logits[0, len(prompt) - 1 : -1]


# -- teachers

PROMPTS, COMPLETIONS = [[5, 6, 7], [8, 9, 10, 11, 12]], [[20, 21, 22, 23], [30, 31]]


def teacher_distribution(teacher, temperature=1.0):
    return teacher.read(PROMPTS, COMPLETIONS, temperature, False)(slice(None)).log_softmax(-1)


@torch.no_grad()
def distribution(model, temperature=1.0):
    logits = completion_logits(model, PROMPTS, COMPLETIONS) / temperature
    return torch.cat([row[: len(c)] for row, c in zip(logits, COMPLETIONS)]).log_softmax(-1)
