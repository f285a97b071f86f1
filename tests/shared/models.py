"""A random model of 40 thousand weights with a real tokenizer: what most is tested on."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer

from small_models.make import Recipe, new_model

TINY = Recipe(name="tiny", width=32, layers=2, vocab_size=400, seed=1)
#: A file, so that tests do not change with what the models are pre-trained on.
TOKENIZER = Path(__file__).parent / "tiny"


def random_tiny():
    """The model and its tokenizer, made anew; always the same weights."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    model = new_model(TINY, tokenizer).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:  # sharper than at initialisation: contexts make a difference
                p.mul_(4)
    return model, tokenizer
