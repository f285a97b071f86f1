"""A random model of 40 thousand weights with a real tokenizer: what the core is tested on."""

import copy
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from small_models.make import Recipe, new_model

TINY = Recipe(name="tiny", width=32, layers=2, vocab_size=400, seed=1)


@pytest.fixture(scope="session")
def tiny_original():
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(
        Path(__file__).parent / "tiny"
    )  # a file, so that tests do not change with what the models are pre-trained on
    model = new_model(TINY, tokenizer).eval()
    with torch.no_grad():
        for p in (
            model.parameters()
        ):  # sharper than at initialisation, so that contexts make a difference
            if p.dim() > 1:
                p.mul_(4)
    return model, tokenizer


@pytest.fixture
def tiny(tiny_original):
    random.seed(0)
    model, tokenizer = tiny_original
    return copy.deepcopy(model), tokenizer


@pytest.fixture(autouse=True, scope="module")
def on_one_thread(one_thread):
    """All tests of the core."""
