"""One attempt under student and teacher as a few kilobytes of plain data, for a page."""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from sdpo_lab.analysis.credit import Credit
from sdpo_lab.analysis.token_text import token_text
from sdpo_lab.core.checks import check_kind, check_range

MOST_TOKENS = 512  # of an attempt
MOST_BYTES = 50_000  # of a picture as JSON
MOST_CHARACTERS = 2000  # of a text the teacher was shown


def picture(credit: Credit, top: int = 5) -> dict[str, Any]:
    """One attempt token by token as plain data that JSON can carry, at most 50 kB; what is too much
    is left out from the end.

    "tokens"              texts, T of them, at most 512; of one that is only part of a character its
                          bytes, such as "<E2 82>"
    "cut"                 how many tokens were left out
    "student", "teacher"  log-probabilities of the tokens, nats
    "advantage"           teacher minus student
    "student_entropy", "teacher_entropy"  nats
    "top"                 per token the union of both roles' `top` (0 to 20; fewer where there is no
                          room) most likely: [place in "vocabulary", student's probability,
                          teacher's]
    "vocabulary"          the texts of the tokens in "top"
    "shown"               {"feedback": text, ...}: what the teacher's prompt showed, each cut to
                          2000 characters
    "sum"                 Σ |advantage| of the tokens that are here, nats

    Numbers have three digits after the point; one that is not finite is None. Raises TypeError for
    what is no Credit, TypeError or ValueError for another `top`.
    """
    check_kind("credit", credit, Credit, "a Credit, as lab.credit returns")
    check_range("top", top, int, 0, 20)
    count = min(len(credit.tokens), MOST_TOKENS)
    while True:
        data = packed(credit, count, top)
        size = len(json.dumps(data))
        if size <= MOST_BYTES:
            return data
        if top:
            top -= 1
        else:
            count = min(count - 1, count * MOST_BYTES // size)


def packed(credit: Credit, count: int, top: int) -> dict[str, Any]:
    """`picture` of the first `count` tokens, whatever its size."""
    advantages = numbers(credit.advantages[:count])
    tokens = zip(credit.tokens[:count], credit.completion_ids)
    vocabulary, alternatives = most_likely(credit, count, top)
    return {
        "tokens": [clean(text or token_text(credit.tokenizer, i)) for text, i in tokens],
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


def most_likely(credit: Credit, count: int, top: int) -> tuple[list[int], list[list[list]]]:
    """(tokens, per position [place among them, student's probability, teacher's] of the union of
    both roles' `top` most likely, the likeliest first)."""
    roles = credit.student_distribution[:count], credit.teacher_distribution[:count]  # (count, V)
    k = min(top, roles[0].shape[-1])
    ids = torch.cat([role.nan_to_num(-1e9).topk(k).indices for role in roles], 1)  # (count, 2 k)
    chosen = [list(dict.fromkeys(row)) for row in ids.tolist()]  # each once, in order
    vocabulary = sorted({i for row in chosen for i in row})
    place = {i: n for n, i in enumerate(vocabulary)}
    alternatives = []
    for t, row in enumerate(chosen):
        student, teacher = (numbers(role[t, row].exp()) for role in roles)
        entries = [[place[i], p, q] for i, p, q in zip(row, student, teacher) if p or q]
        entries.sort(key=lambda entry: -max(entry[1] or 0, entry[2] or 0))
        alternatives.append(entries)
    return vocabulary, alternatives


def numbers(values: torch.Tensor) -> list[float | None]:
    """Three digits after the point; + 0.0 so that there is no -0."""
    return [round(v, 3) + 0.0 if math.isfinite(v) else None for v in values.double().tolist()]


def clean(text: str, most: int = 200) -> str:
    """At most `most` characters that JSON can carry: half a surrogate pair becomes its code."""
    if len(text) > most:
        text = f"{text[:most]} … (+{len(text) - most} characters)"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
