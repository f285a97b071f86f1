"""What is bad for each kind of argument, and what a refusal must say."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpo_lab.core.checks import MAX_REPR, printable, short_repr

NAN, INF, HUGE = math.nan, math.inf, 10**400
#: What says what would be right: "must be one of", "from 1 to 9", "give", "it has", "there are".
ALLOWED = re.compile(
    r"must|may contain|from -?[\d.e+-]+ (to|upwards)|\bgive\b|\bhas\b|there "
    r"(is|are)|holds|needs|goes with|shipped|use "
)


def refused(call, name: str, value: object) -> str:
    """Call it, and hold the message to its promise; returns the message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
    said = str(caught.value)
    assert re.search(rf"\b{name.replace('_', '[_ ]')}", said), (
        f"the message does not name {name}: {said}"
    )
    forms = {short_repr(value), type(value).__name__} | (
        {repr(value), str(value)} if isinstance(value, (str, float, Path)) else set()
    )
    if isinstance(value, list):  # what is wrong is in it, or how many there are
        forms |= {str(len(value))} | {
            form for v in value for form in (short_repr(v), str(v), type(v).__name__)
        }
    assert any(form[:MAX_REPR] in said for form in forms), (
        f"the message does not show {short_repr(value)}: {said}"
    )
    assert ALLOWED.search(said), f"the message does not say what is allowed: {said}"
    assert len(said) < 1500 and printable(said.replace("\n", " ")) == said.replace("\n", " "), (
        "a message is short and safe on a terminal"
    )
    return said


def ints(low: int, high: float = INF) -> list:
    return [
        "3",
        None,
        True,
        1.5,
        NAN,
        [],
        np.array([1, 2]),
        low - 1,
        HUGE,
        *([2**63] if high == INF else [int(high) + 1]),
    ]


def floats(low: float, high: float = INF) -> list:
    return [
        "3",
        None,
        True,
        NAN,
        INF,
        -INF,
        [],
        torch.ones(2),
        low - 1,
        HUGE,
        *([] if high == INF else [high * 2 + 1]),
    ]


def optional(bad: list) -> list:
    return [b for b in bad if b is not None]


CHOICE = ["no such choice", "", 3.5, None, [], NAN, b"all_rows", np.array([1, 2]), "x" * 100_000]
FLAG = ["yes", 1, 0, 2, None, [], NAN]
TEXT = [None, 3, b"text", ["text"]]
MODEL = [None, "lab-1m", 3, {}]
TOKENIZER = [None, "lab-1m", 3, str]
TASK = [None, "toolcall", 3, {}]
PROBLEM = [None, "question", 3, {"prompt": "question"}]
CONFIG = ["laptop", {}, 3]
TENSOR = [
    None,
    3.0,
    [0.1, 0.2],
    np.ones((1, 2, 4)),
    torch.ones(1, 2, 4, dtype=torch.long),
    torch.ones(1, 2, 5),
    torch.tensor(1.0),
]
IDS = [None, 3, [[1, 2]], torch.ones(1, 2), torch.ones(1, 3, dtype=torch.long)]
SPLIT = ["val", "", None, 3, []]
UNTRIED = [
    "meta",
    "xpu",
    "hpu",
    "xla",
    "vulkan",
    "ipu",
]  # torch knows them, and a model cannot be used there
MESSAGES = [None, "hi", 3, {"role": "user", "content": "hi"}]
