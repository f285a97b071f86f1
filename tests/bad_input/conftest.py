"""What calls are made with; nothing here trains."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import sdpo_lab as lab
from sdpo_lab.trainer import SDPOTrainer
from tests.bad_input.rows import QUESTION, Sums, small
from tests.shared.fake_trainer import FakeTrainer


@pytest.fixture(scope="module")
def one(tiny_original, tmp_path_factory):
    """What calls are made with; nothing here trains."""
    import copy

    model, tokenizer = tiny_original
    folder = tmp_path_factory.mktemp("bad")
    trainer = SDPOTrainer(copy.deepcopy(model), tokenizer, Sums(), small())
    trainer.save(folder / "saved")
    timeline = lab.Timeline(trainer, probe=(QUESTION, "ab", "no"))
    timeline.watch(None)
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        trainer=trainer,
        folder=folder,
        saved=folder / "saved",
        timeline=timeline,
        run=lab.views.LiveRun(FakeTrainer(), 2),
    )
