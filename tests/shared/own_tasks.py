"""Sums as rows of a list, and their judge."""

from __future__ import annotations

import sdpo_lab as lab
from tests.shared.tasks import SMALL

ROWS = [{"prompt": f"{a} + {b} =", "answer": a + b} for a in range(10) for b in range(10)]


def exact(row, completion):
    return (
        (1.0, "")
        if completion.strip() == str(row["answer"])
        else (0.0, f"expected {row['answer']}")
    )


def trainer(tiny, task, **fields):
    return lab.SDPOTrainer(*tiny, task, lab.SDPOConfig.preset("laptop", **{**SMALL, **fields}))
