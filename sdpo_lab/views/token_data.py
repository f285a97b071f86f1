"""What a page needs to know of attempts to draw them token by token, as plain data."""

from __future__ import annotations

import difflib
import re
import weakref
from collections import Counter
from typing import Any

import numpy as np
import torch

from sdpo_lab.analysis.credit import Credit, token_text
from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.views.html import storable

QUANTITIES = (
    "advantage",
    "divergence",
    "student",
    "teacher",
    "student entropy",
    "teacher entropy",
    "oracle",
)
#: Where a colour scale may end, nats; round numbers, which small changes leave alone.
STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0)
SHARE = 0.97  #: of the values lie within the scale
ALONE = 5.0  #: nats; a value that stands alone widens the scale no further
#: Of equal words, one in each prompt, beyond which a difference is not looked for word by word.
MAX_PAIRS = 100_000
MIN_WORDS = 4  # in common between two differences; fewer are chance
#: Of each tokenizer, what `texts_of` has decoded.
TEXTS: weakref.WeakKeyDictionary[Any, dict[int, str]] = weakref.WeakKeyDictionary()


def page_data(
    attempts: list[dict[str, Any]], color_by: str = "advantage", scale: float | None = None
) -> dict[str, Any]:
    """What `tokenView(root, data)` draws, from `view_data` of each attempt. JSON-able.

    {"attempts", "color_by", "scale", "limits"}; `limits` says at how many nats the colour of
    "advantage", "oracle", "divergence" and "entropy" is full.
    """
    if not attempts:
        raise ValueError("there is no attempt to show")
    possible = [q for q in QUANTITIES if q != "oracle" or any(a["oracle"] for a in attempts)]
    if isinstance(color_by, str) and color_by == "oracle" and "oracle" not in possible:
        raise ValueError(
            "color_by='oracle' needs an oracle: pass task= to lab.credit, a task that has one "
            "(toolcall with one call)"
        )
    check_choice("color_by", color_by, possible)
    if scale is not None:
        check_range("scale", scale, float, 0.01, 100)

    entropies = [a[f"{role}_entropy"] for a in attempts for role in ("student", "teacher")]
    oracle = [[values(a, "oracle", t) for t in range(len(a["tokens"]))] for a in attempts]
    limits = {
        "advantage": limit([a["advantage"] for a in attempts], 1),
        "divergence": limit([a["divergence"] for a in attempts], 0.1),
        "entropy": limit(entropies, 0.5),
    }
    limits["oracle"] = max(limits["advantage"], limit(oracle, 1))
    if scale is not None:
        limits["advantage"] = limits["oracle"] = float(scale)
    return {"attempts": attempts, "color_by": color_by, "scale": scale, "limits": limits}


def limit(rows: list[list[Any]], least: float) -> float:
    """Where a colour scale over all these values ends.

    As far as `SHARE` of them go, from `least` to 10, rounded up to one of `STEPS`. The largest
    counts for no more than `ALONE`: one spike of any height does not wash out the rest.
    """
    numbers = (v for row in rows for v in row if isinstance(v, (int, float)))
    sizes = sorted(abs(v) for v in numbers if np.isfinite(v))
    wanted = max(sizes[int(SHARE * (len(sizes) - 1))], min(sizes[-1], ALONE)) if sizes else 0.0
    return next((s for s in STEPS if s >= max(wanted, least)), STEPS[-1])


def values(attempt: dict[str, Any], quantity: str, t: int) -> float:
    """The value of `quantity` at a token, nan where it has none."""

    def number(name: str) -> float:
        row = attempt[name]
        return float("nan") if row is None or row[t] is None else float(row[t])

    if quantity == "oracle":
        return number("teacher") - number("oracle")
    if quantity in ("student", "teacher"):
        return float(np.exp(number(quantity)))
    return number(quantity.replace(" ", "_"))


def view_data(credit: Credit, k: int = 8, title: str = "") -> dict[str, Any]:
    """What a page needs for one attempt of T tokens, as plain data that JSON can carry.

    Numbers are rounded to three digits after the point; one that is nan is None, an infinite one
    "inf" or "-inf". `tokens` are texts and `ends` their last bytes; `partial` has the bytes of
    those that are only part of a character, `special` the places of special tokens. `top[t]` are
    places in `vocabulary`: the sampled token, then the union of both roles' `k` most likely by
    falling probability; `top_student`, `top_teacher` their log-probabilities, `tail_*` the mass of
    all others. `prompts` are pieces [is it only in this one, text].
    """
    check_range("k", k, int, 1, 64)
    tokenizer, ids = credit.tokenizer, credit.completion_ids
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | set(tokenizer.all_special_ids)
    partial = {
        str(t): bytes_of(tokenizer, i)
        for t, (i, text) in enumerate(zip(ids, credit.tokens))
        if not text
    }
    student, teacher = prompts(credit.student_prompt, credit.teacher_prompt)
    oracle = credit.oracle_log_probs
    return {
        "title": storable(title),
        "tokens": [storable(t) for t in credit.tokens],
        "ends": [end for _, end in credit.spans],
        "special": [t for t, i in enumerate(ids) if i in special],
        "partial": partial,
        "student": rounded(credit.student_log_probs),
        "teacher": rounded(credit.teacher_log_probs),
        "advantage": rounded(credit.advantages),
        "divergence": rounded(credit.divergence, 4),
        "student_entropy": rounded(credit.student_entropy),
        "teacher_entropy": rounded(credit.teacher_entropy),
        "student_rank": credit.student_ranks.tolist(),
        "teacher_rank": credit.teacher_ranks.tolist(),
        "oracle": None if oracle is None else rounded(oracle),
        **alternatives(credit, k),
        "size": credit.student_distribution.shape[-1],
        "prompts": {"student": student, "teacher": teacher},
        "shown": {name: storable(text) for name, text in credit.shown.items()},
        "shift_bits": rounded(torch.tensor([credit.shift_bits]))[0],
    }


def alternatives(credit: Credit, k: int) -> dict[str, list]:
    """What else could have stood at each position: `top*`, `tail*`, `vocabulary` of `view_data`."""
    student, teacher = credit.student_distribution, credit.teacher_distribution
    p, q = (d.detach().cpu() for d in (student, teacher))  # (T, V), log-probabilities
    k = min(k, p.shape[-1])

    # The sampled token first, then the candidates of both roles by falling probability
    sampled = torch.tensor(credit.completion_ids)[:, None]
    likeliest = [d.nan_to_num(-1e9).topk(k).indices for d in (p, q)]
    ids = torch.cat([sampled, *likeliest], 1)  # (T, 2k+1), some of them twice
    likely = torch.maximum(p.gather(1, ids), q.gather(1, ids)).nan_to_num(-1e9)
    likely[:, 0] = torch.inf
    ids = ids.gather(1, likely.argsort(dim=1, descending=True, stable=True))
    columns = [first_places(row) for row in ids.tolist()]

    def kept(rows: list[list[Any]]) -> list[list[Any]]:
        return [[row[n] for n in places] for row, places in zip(rows, columns)]

    known = sorted(set(ids.flatten().tolist()))
    place = {i: n for n, i in enumerate(known)}
    found = {"top": [[place[i] for i in row] for row in kept(ids.tolist())]}
    for role, d in (("student", p), ("teacher", q)):
        log_probs = d.gather(1, ids).double()
        mass = torch.tensor([1 - sum(row) for row in kept(log_probs.exp().tolist())])
        found[f"top_{role}"] = kept(rounded(log_probs))
        found[f"tail_{role}"] = rounded(mass.clamp(min=0), 6)
    return {**found, "vocabulary": texts_of(credit.tokenizer, known)}


def first_places(row: list[int]) -> list[int]:
    """Where each number of a row stands for the first time."""
    return sorted({i: n for n, i in reversed(list(enumerate(row)))}.values())


def texts_of(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token; decoded once, since a page that follows typing asks many times."""
    known = TEXTS.setdefault(tokenizer, {})
    known |= {i: storable(token_text(tokenizer, i)) for i in ids if i not in known}
    return [known[i] for i in ids]


def rounded(values: torch.Tensor, digits: int = 3) -> list[Any]:
    """A tensor as nested lists of numbers; None, "inf" and "-inf" where JSON has no number."""
    array = values.detach().double().cpu().numpy().round(digits) + 0.0  # no -0
    return array.tolist() if np.isfinite(array).all() else named(array.tolist())


def finite(value: Any) -> float | None:
    """None for what JSON has no number for."""
    return value if isinstance(value, (int, float)) and np.isfinite(value) else None


def named(value: Any) -> Any:
    if isinstance(value, list):
        return [named(v) for v in value]
    if np.isfinite(value):
        return value
    return None if value != value else "inf" if value > 0 else "-inf"


def bytes_of(tokenizer: Any, token: int) -> str:
    """The bytes of a token that is only part of a character, such as "E2 82"; "?" if unknown."""
    text = token_text(tokenizer, token)
    return text[1:-1] if re.fullmatch(r"<[0-9A-F]{2}( [0-9A-F]{2})*>", text) else "?"


def prompts(student: str, teacher: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """Both prompts as pieces [1 where the other has nothing like it, text].

    The pieces of each make up its text.
    """
    a, b = (re.findall(r"\s|\w+|[^\w\s]", storable(text)) for text in (student, teacher))
    shorter = min(len(a), len(b))
    same = next((n for n in range(shorter) if a[n] != b[n]), shorter)
    rest = shorter - same
    after = next((n for n in range(rest) if a[-1 - n] != b[-1 - n]), rest)
    inside = [words[same : len(words) - after] for words in (a, b)]
    blocks = common_blocks(*inside)
    found = []
    for which, words in enumerate(inside):
        whole = (a, b)[which]
        pieces, done = [[0, "".join(whole[:same])]], 0
        for block in blocks:
            start = block[which]
            end = start + block[2]
            pieces += [[1, "".join(words[done:start])], [0, "".join(words[start:end])]]
            done = end
        pieces += [[1, "".join(words[done:])], [0, "".join(whole[len(words) + same :])]]
        found.append(merged(pieces))
    return found[0], found[1]


def common_blocks(a: list[str], b: list[str]) -> list[tuple[int, int, int]]:
    """(place in a, place in b, length) of what two lists of words have in common."""
    counts = [Counter(words) for words in (a, b)]
    if sum(n * counts[1][word] for word, n in counts[0].items()) > MAX_PAIRS:
        return []
    matches = difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return [
        tuple(m) for m in matches if sum(w.isalnum() for w in a[m.a : m.a + m.size]) >= MIN_WORDS
    ]


def merged(pieces: list[list[Any]]) -> list[list[Any]]:
    """Without empty pieces and neighbours of one kind; white space alone is no difference."""
    found: list[list[Any]] = []
    for marked, text in pieces:
        marked = marked if text.strip() else 0
        if found and found[-1][0] == marked:
            found[-1][1] += text
        elif text:
            found.append([marked, text])
    return found
