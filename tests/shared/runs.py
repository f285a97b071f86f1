"""A trainer on a copy of the random model, and what makes two trainers the same."""

from __future__ import annotations

import copy

import torch

import sdpo_lab as lab
from sdpo_lab.models.loading import add_adapter, lora_config
from sdpo_lab.runs import checkpoints
from tests.shared.tasks import SMALL, Vowels


def trainer(tiny, lora=None, task=None, **fields):
    model, tokenizer = tiny
    model = copy.deepcopy(model)
    model = add_adapter(model, lora_config(lora)) if lora else model
    return lab.SDPOTrainer(
        model, tokenizer, task or Vowels(), lab.SDPOConfig.preset("laptop", **{**SMALL, **fields})
    )


def same(one, two):
    """Everything that decides how it goes on."""
    tensors = [
        checkpoints.trainable(t.model)
        | {f"teacher/{k}": v for k, v in (t.teacher.copies() if t.teacher else {}).items()}
        | checkpoints.moments(t)
        | {f"all/{k}": v for k, v in t.model.state_dict().items()}
        for t in (one, two)
    ]
    assert tensors[0].keys() == tensors[1].keys() and tensors[0]
    assert [k for k in tensors[0] if not torch.equal(tensors[0][k], tensors[1][k])] == []
    histories = [
        [(r.step, r.reward, repr(r.loss), repr(r.metrics), repr(r.rollouts)) for r in t.history]
        for t in (one, two)
    ]
    assert histories[0] == histories[1] and one.history.changes == two.history.changes
    assert one.config == two.config and one.config.explicit == two.config.explicit
    assert (one.skipped_steps, one.bad_steps, one.optimizer_steps) == (
        two.skipped_steps,
        two.bad_steps,
        two.optimizer_steps,
    )
