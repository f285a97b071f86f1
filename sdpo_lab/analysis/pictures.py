"""One attempt under student and teacher as a few kilobytes of plain data: what is kept of every step, and what a page draws."""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from sdpo_lab.analysis.credit import Credit, token_text
from sdpo_lab.core.checks import check_kind, check_range

MOST_TOKENS = 512  # of an attempt
MOST_BYTES = 50_000  # of a picture as JSON
MOST_CHARACTERS = 2000  # of a text the teacher was shown


def picture(credit: Credit, top: int = 5) -> dict[str, Any]:
    """One attempt token by token as plain data that JSON can carry, at most 50 kB; what is too much is left out from the end.

    "tokens"                            texts, T of them, at most 512; of one that is only part of a character its bytes, such as "<E2 82>"
    "cut"                               how many tokens were left out
    "student", "teacher"                log-probabilities of the tokens, nats
    "advantage"                         teacher minus student
    "student_entropy", "teacher_entropy"  nats
    "top"                               per token the union of both roles' `top` (0 to 20; fewer where there is no room) most likely:
                                        [place in "vocabulary", student's probability, teacher's]
    "shown"                             {"feedback": text, ...}: what the teacher's prompt showed, each cut to 2000 characters
    "sum"                               Σ |advantage| of the tokens that are here, nats

    Numbers have three digits after the point; one that is not finite is None. Raises TypeError for what is no Credit, TypeError or ValueError for another `top`.
    """
    check_kind("credit", credit, Credit, "a Credit, as lab.credit returns")
    check_range("top", top, int, 0, 20)
    count = min(len(credit.tokens), MOST_TOKENS)
    while True:
        data = packed(credit, count, top)
        if (size := len(json.dumps(data))) <= MOST_BYTES:
            return data
        top, count = (top - 1, count) if top else (0, min(count - 1, count * MOST_BYTES // size))


def packed(credit: Credit, count: int, top: int) -> dict[str, Any]:
    """`picture` of the first `count` tokens, whatever its size."""
    advantages = numbers(credit.advantages[:count])
    ids, columns = credit.completion_ids[:count], []
    for role in (credit.student_distribution[:count], credit.teacher_distribution[:count]):
        columns.append(role.nan_to_num(-1e9).topk(min(top, role.shape[-1])).indices)
    chosen = [list(dict.fromkeys(row)) for row in torch.cat(columns, 1).tolist()]
    vocabulary = {i: n for n, i in enumerate(sorted({i for row in chosen for i in row}))}
    alternatives = []
    for t, row in enumerate(chosen):
        found = zip(
            row,
            *(
                numbers(d[t, row].exp())
                for d in (credit.student_distribution, credit.teacher_distribution)
            ),
        )
        alternatives.append(
            sorted(
                ([vocabulary[i], p, q] for i, p, q in found if p or q),
                key=lambda a: -max(a[1] or 0, a[2] or 0),
            )
        )
    return {
        "tokens": [
            clean(text or token_text(credit.tokenizer, i)) for text, i in zip(credit.tokens, ids)
        ],
        "cut": len(credit.tokens) - count,
        "student": numbers(credit.student_log_probs[:count]),
        "teacher": numbers(credit.teacher_log_probs[:count]),
        "advantage": advantages,
        "student_entropy": numbers(credit.student_entropy[:count]),
        "teacher_entropy": numbers(credit.teacher_entropy[:count]),
        "top": alternatives,
        "vocabulary": [clean(token_text(credit.tokenizer, i)) for i in vocabulary],
        "shown": {name: clean(text, MOST_CHARACTERS) for name, text in credit.shown.items()},
        "sum": round(sum(abs(a) for a in advantages if a is not None), 3),
    }


def numbers(values: torch.Tensor) -> list[float | None]:
    return [
        round(v, 3) + 0.0 if math.isfinite(v) else None for v in values.double().tolist()
    ]  # + 0.0: no -0


def clean(text: str, most: int = 200) -> str:
    """At most `most` characters that JSON can carry: half a surrogate pair becomes its code."""
    return (
        (text if len(text) <= most else f"{text[:most]} … (+{len(text) - most} characters)")
        .encode("utf-8", "backslashreplace")
        .decode("utf-8")
    )
