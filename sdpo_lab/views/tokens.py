"""Attempts as running text, every token coloured by what student and self-teacher think of it, in one piece of HTML that needs nothing else.

What a page needs to know is made here as plain data (`view_data`, `page_data`); `token_view.js` draws it. Where no script runs, in
a mail, an untrusted notebook or a viewer of files, a plain coloured text stands in its place.
"""

from __future__ import annotations

import difflib
import html
import json
import re
import secrets
import unicodedata
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdpo_lab.analysis.credit import Credit, token_text
from sdpo_lab.core.checks import check_choice, check_kind, check_range, shown
from sdpo_lab.views.page import source

QUANTITIES = (
    "advantage",
    "divergence",
    "student",
    "teacher",
    "student entropy",
    "teacher entropy",
    "oracle",
)
SIGNED = ("advantage", "oracle")
BLUE, ORANGE, PLAIN = (
    "0,114,178",
    "213,94,0",
    "0,158,115",
)  # of the picture without scripts: colour-blind safe, read on white and on black
STEPS = (
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    3.0,
    5.0,
    7.0,
    10.0,
)  #: where a colour scale may end, nats; round numbers, which small changes leave alone
SHARE = 0.97  #: of the values lie within the scale
ALONE = 5.0  #: nats; a value that stands alone widens the scale no further
TEXTS: weakref.WeakKeyDictionary[Any, dict[int, str]] = (
    weakref.WeakKeyDictionary()
)  # of each tokenizer, what `texts_of` has decoded
PAIRS_AT_MOST = 100_000  # of equal words, one in each prompt, beyond which a difference is not looked for word by word


class TokenView:
    """One attempt or several on one scale. In a notebook its repr; `page()` is a whole document, `save(path)` writes it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data  #: what the page knows, see `page_data`

    def _repr_html_(self) -> str:
        return fragment(static_view(self.data), self.data, "sdpoTokenView(root, data);")

    def page(self) -> str:
        """A whole HTML document that needs no network and no kernel."""
        return document(
            self._repr_html_(), "Tokens of " + (self.data["attempts"][0]["title"] or "an attempt")
        )

    def save(self, path: str | Path) -> Path:
        """Write `page()` to a file and return its path. Raises TypeError or ValueError for what is no file's path, OSError where it cannot be written."""
        return write_page(path, self.page())

    def __repr__(self) -> str:
        sizes = [len(a["tokens"]) for a in self.data["attempts"]]
        return f"TokenView({len(sizes)} attempt{'s' * (len(sizes) > 1)}, {sum(sizes)} tokens, by {self.data['color_by']})"


def token_view(
    credits: Credit | Sequence[Credit],
    *,
    titles: str | Sequence[str] | None = None,
    color_by: str = "advantage",
    scale: float | None = None,
    k: int = 8,
) -> TokenView:
    """The token view of one `Credit`, or of several, one above the other on one scale.

    titles    a line above each attempt; for a single one a string will do
    color_by  what colours the tokens at first: "advantage", "divergence", "student", "teacher" (their probabilities), "student entropy",
              "teacher entropy", or "oracle" (the teacher's log-probability minus the oracle's); the reader can switch
    scale     nats, 0.01 to 100, at which the colour of a log-ratio is full. Give several views the same one to compare them. None: 1, 2, 3, 5,
              7 or 10, so that 97 in 100 of the values lie within; one alone widens it to 5 at most
    k         alternatives kept of each role at every position, 1 to 64

    Raises TypeError for what is no Credit, ValueError for an empty list, an unknown colouring or as many titles as there are no attempts.
    """
    if not isinstance(credits, (Credit, list, tuple)):
        raise TypeError(
            f"credits must be a Credit, as lab.credit returns, or a list of them; got {shown(credits)}"
        )
    if not isinstance(credits, Credit) and not credits:
        raise ValueError(
            f"there is no attempt to show: credits must hold one or more; got {shown(credits)}"
        )
    listed = [credits] if isinstance(credits, Credit) else list(credits)
    for credit in listed:
        if not isinstance(credit, Credit):
            raise TypeError(
                f"credits must be a Credit, as lab.credit returns, or a list of them; got {type(credit).__name__}: {shown(credit)}"
            )
    check_kind(
        "titles",
        titles,
        (str, list, tuple, type(None)),
        "a string, a list of one for each attempt, or None",
    )
    titles = (
        [titles]
        if isinstance(titles, str)
        else [""] * len(listed)
        if titles is None
        else list(titles)
    )
    if len(titles) != len(listed):
        raise ValueError(
            f"titles must be one for each attempt: there are {len(listed)} attempts and {len(titles)} titles, {shown(titles)}"
        )
    for title in titles:
        check_kind("titles", title, str, "strings, one for each attempt")
    return TokenView(
        page_data([view_data(c, k, title) for c, title in zip(listed, titles)], color_by, scale)
    )


def page_data(
    attempts: list[dict[str, Any]], color_by: str = "advantage", scale: float | None = None
) -> dict[str, Any]:
    """What `sdpoTokenView(root, data)` draws, from `view_data` of each attempt: {"attempts", "color_by", "scale", "limits"}. JSON-able.

    `limits` says at how many nats the colour of "advantage", "oracle", "divergence" and "entropy" is full.
    """
    if not attempts:
        raise ValueError("there is no attempt to show")
    possible = [q for q in QUANTITIES if q != "oracle" or any(a["oracle"] for a in attempts)]
    if isinstance(color_by, str) and color_by == "oracle" and "oracle" not in possible:
        raise ValueError(
            "color_by='oracle' needs an oracle: pass task= to lab.credit, a task that has one (toolcall with one call)"
        )
    check_choice("color_by", color_by, possible)
    if scale is not None:
        check_range("scale", scale, float, 0.01, 100)
    limits = {
        "advantage": limit([a["advantage"] for a in attempts], 1),
        "divergence": limit([a["divergence"] for a in attempts], 0.1),
        "entropy": limit(
            [a[f"{role}_entropy"] for a in attempts for role in ("student", "teacher")], 0.5
        ),
    }
    limits["oracle"] = max(
        limits["advantage"],
        limit([[values(a, "oracle", t) for t in range(len(a["tokens"]))] for a in attempts], 1),
    )
    if scale is not None:
        limits["advantage"] = limits["oracle"] = float(scale)
    return {"attempts": attempts, "color_by": color_by, "scale": scale, "limits": limits}


def limit(rows: list[list[Any]], least: float) -> float:
    """Where a colour scale over all these values ends: as far as `SHARE` of them go, from `least` to 10, rounded up to one of `STEPS`.

    The largest counts for no more than `ALONE`: one spike of any height does not wash out the rest.
    """
    sizes = sorted(
        abs(v) for row in rows for v in row if isinstance(v, (int, float)) and np.isfinite(v)
    )
    wanted = max(sizes[int(SHARE * (len(sizes) - 1))], min(sizes[-1], ALONE)) if sizes else 0.0
    return next((s for s in STEPS if s >= max(wanted, least)), STEPS[-1])


def view_data(credit: Credit, k: int = 8, title: str = "") -> dict[str, Any]:
    """What a page needs for one attempt of T tokens, as plain data that JSON can carry; numbers are rounded to three digits after the point.

    A number that is none is None, an infinite one "inf" or "-inf". `tokens` are texts and `ends` their last bytes; `partial` has the bytes of
    those that are only part of a character, `special` the places of special tokens. `top[t]` are places in `vocabulary`: the sampled token,
    then the union of both roles' `k` most likely by falling probability; `top_student`, `top_teacher` their log-probabilities, `tail_*` the mass of
    all others. `prompts` are pieces [is it only in this one, text].
    """
    check_range("k", k, int, 1, 64)
    top, probabilities, vocabulary = alternatives(credit, k)
    tokenizer = credit.tokenizer
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(
        tokenizer.all_special_ids
    )
    partial = {
        t: credit_bytes(tokenizer, i)
        for t, (i, text) in enumerate(zip(credit.completion_ids, credit.tokens))
        if not text
    }
    student, teacher = prompts(credit.student_prompt, credit.teacher_prompt)
    return {
        "title": clean(title),
        "tokens": [clean(t) for t in credit.tokens],
        "ends": [end for _, end in credit.spans],
        "special": [t for t, i in enumerate(credit.completion_ids) if i in special],
        "partial": {str(t): raw for t, raw in partial.items()},
        "student": rounded(credit.student_log_probs),
        "teacher": rounded(credit.teacher_log_probs),
        "advantage": rounded(credit.advantages),
        "divergence": rounded(credit.divergence, 4),
        "student_entropy": rounded(credit.student_entropy),
        "teacher_entropy": rounded(credit.teacher_entropy),
        "student_rank": credit.student_ranks.tolist(),
        "teacher_rank": credit.teacher_ranks.tolist(),
        "oracle": None if credit.oracle_log_probs is None else rounded(credit.oracle_log_probs),
        "top": top,
        "top_student": probabilities[0],
        "top_teacher": probabilities[1],
        "vocabulary": vocabulary,
        "tail_student": probabilities[2],
        "tail_teacher": probabilities[3],
        "size": credit.student_distribution.shape[-1],
        "prompts": {"student": student, "teacher": teacher},
        "shown": {name: clean(text) for name, text in credit.shown.items()},
        "shift_bits": rounded(torch.tensor([credit.shift_bits]))[0],
    }


def alternatives(
    credit: Credit, k: int
) -> tuple[list[list[int]], tuple[list, list, list, list], list[str]]:
    """(per position places in the vocabulary, (student's, teacher's log-probabilities of them, both tails), the vocabulary)."""
    p, q = (d.detach().cpu() for d in (credit.student_distribution, credit.teacher_distribution))
    k = min(k, p.shape[-1])
    sampled = torch.tensor(credit.completion_ids)[:, None]
    ids = torch.cat(
        [sampled, p.nan_to_num(-1e9).topk(k).indices, q.nan_to_num(-1e9).topk(k).indices], 1
    )  # (T, 2k+1), some of them twice
    likely = torch.maximum(p.gather(1, ids), q.gather(1, ids)).nan_to_num(-1e9)
    likely[:, 0] = torch.inf  # the sampled token comes first
    ids = ids.gather(1, likely.argsort(dim=1, descending=True, stable=True))
    kept = [
        sorted({i: n for n, i in reversed(list(enumerate(row)))}.values()) for row in ids.tolist()
    ]  # the first place of each
    student, teacher = p.gather(1, ids).double(), q.gather(1, ids).double()
    tails = [
        rounded(
            torch.tensor(
                [1 - sum(row[n] for n in places) for row, places in zip(d.exp().tolist(), kept)]
            ).clamp(min=0),
            6,
        )
        for d in (student, teacher)
    ]
    known = sorted(set(ids.flatten().tolist()))
    place = {i: n for n, i in enumerate(known)}
    columns = [
        [[row[n] for n in places] for row, places in zip(rounded(values), kept)]
        for values in (student, teacher)
    ]
    top = [[place[row[n]] for n in places] for row, places in zip(ids.tolist(), kept)]
    return top, (*columns, *tails), texts_of(credit.tokenizer, known)


def texts_of(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token of the vocabulary; decoded once, since a page that follows the reader's typing asks many times."""
    known = TEXTS.setdefault(tokenizer, {})
    known |= {i: clean(token_text(tokenizer, i)) for i in ids if i not in known}
    return [known[i] for i in ids]


def rounded(values: torch.Tensor, digits: int = 3) -> list[Any]:
    """A tensor as nested lists of rounded numbers; None, "inf" and "-inf" where JSON has no number."""
    array = values.detach().double().cpu().numpy().round(digits) + 0.0  # no -0
    found = array.tolist()
    return found if np.isfinite(array).all() else named(found)


def named(value: Any) -> Any:
    if isinstance(value, list):
        return [named(v) for v in value]
    return (
        value if np.isfinite(value) else None if value != value else "inf" if value > 0 else "-inf"
    )


def credit_bytes(tokenizer: Any, token: int) -> str:
    """The bytes of a token that is only part of a character, such as "E2 82"; "?" where that cannot be told."""
    text = token_text(tokenizer, token)
    return text[1:-1] if re.fullmatch(r"<[0-9A-F]{2}( [0-9A-F]{2})*>", text) else "?"


def clean(text: str) -> str:
    """Half a surrogate pair, which no file can hold, becomes its code."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def prompts(student: str, teacher: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """Both prompts as pieces [1 where the other has nothing like it, text]; the pieces of each make up its text."""
    a, b = (re.findall(r"\s|\w+|[^\w\s]", clean(text)) for text in (student, teacher))
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    after = 0
    while after < min(len(a), len(b)) - same and a[-1 - after] == b[-1 - after]:
        after += 1
    inside = [words[same : len(words) - after] for words in (a, b)]
    blocks = [(0, 0, 0)]
    counts = [Counter(words) for words in inside]
    if (
        sum(n * counts[1][word] for word, n in counts[0].items()) <= PAIRS_AT_MOST
    ):  # a few words in common are chance
        blocks += [
            m
            for m in difflib.SequenceMatcher(None, *inside, autojunk=False).get_matching_blocks()
            if sum(w.isalnum() for w in inside[0][m.a : m.a + m.size]) >= 4
        ]
    found = []
    for which, words in enumerate(inside):
        pieces, done = [[0, "".join((a, b)[which][:same])]], 0
        for block in blocks:
            pieces += [
                [1, "".join(words[done : block[which]])],
                [0, "".join(words[block[which] : block[which] + block[2]])],
            ]
            done = block[which] + block[2]
        pieces += [[1, "".join(words[done:])], [0, "".join((a, b)[which][len(words) + same :])]]
        found.append(joined(pieces))
    return found[0], found[1]


def joined(pieces: list[list[Any]]) -> list[list[Any]]:
    """The same without empty pieces and without neighbours of one kind; white space alone is no difference."""
    found: list[list[Any]] = []
    for marked, text in pieces:
        marked = marked if text.strip() else 0
        if found and found[-1][0] == marked:
            found[-1][1] += text
        elif text:
            found.append([marked, text])
    return found


# -- HTML


def values(attempt: dict[str, Any], quantity: str, t: int) -> float:
    """The value of `quantity` at a token, nan where it has none."""

    def number(name: str) -> float:
        return (
            float("nan")
            if attempt[name] is None or attempt[name][t] is None
            else float(attempt[name][t])
        )

    if quantity == "oracle":
        return number("teacher") - number("oracle")
    if quantity in ("student", "teacher"):
        return float(np.exp(number(quantity)))
    return number(quantity.replace(" ", "_"))


def static_view(data: dict[str, Any]) -> str:
    """The same without scripts: coloured text and a line that says what the colours mean."""
    parts = []
    for attempt in data["attempts"]:
        if attempt["title"]:
            parts.append(
                f'<div style="font-weight:600;padding:4px 0">{visible(attempt["title"], "")}</div>'
            )
        parts.append(
            f'<div style="font-family:monospace;white-space:pre-wrap;line-height:1.7">{coloured(attempt, data)}</div>'
        )
    return f'<div style="font-family:sans-serif;font-size:13px">{"".join(parts)}<div style="padding:4px 0">{key(data)}</div></div>'


def full_at(data: dict[str, Any]) -> float:
    """The value at which the colour of the chosen quantity is full."""
    name = data["color_by"]
    return (
        1.0
        if name in ("student", "teacher")
        else data["limits"]["entropy" if "entropy" in name else name]
    )


def coloured(attempt: dict[str, Any], data: dict[str, Any]) -> str:
    """One attempt as spans whose style stands in the text, where sanitisers leave it."""
    name, most, spans = data["color_by"], full_at(data), []
    for t, token in enumerate(attempt["tokens"]):
        text = (
            f"&lt;{attempt['partial'][str(t)]}&gt;"
            if str(t) in attempt["partial"]
            else visible(token)
        )
        value = values(attempt, name, t)
        strength = 0.0 if value != value else min(abs(value) / most, 1.0) * 0.55
        colour = PLAIN if name not in SIGNED else BLUE if value > 0 else ORANGE
        spans.append(
            f'<span style="background:rgba({colour},{strength:.2f})">{text}</span>'
            if strength >= 0.02
            else text
        )
    return "".join(spans)


def key(data: dict[str, Any]) -> str:
    """What the colours of `coloured` mean, in a line."""
    name, most = data["color_by"], full_at(data)
    words = {
        "advantage": ("the teacher lowers it", "raises it"),
        "oracle": ("the teacher below the oracle", "above"),
    }.get(name)
    if words:
        return (
            f'{words[0]} <span style="background:rgba({ORANGE},.55)">−{most:g}</span> 0 <span style="background:rgba({BLUE},.55)">+{most:g}</span> '
            f"{words[1]}, in nats"
        )
    return f'{name}: 0 <span style="background:rgba({PLAIN},.55)">{most:g}</span> {"probability" if name in ("student", "teacher") else "nats"}'


def visible(text: str, mark: str = "⏎") -> str:
    """Text with its line ends marked and what nobody could see written as its code, escaped; the same as `literal` in token_view.js."""

    def seen(c: str) -> str:
        if c == "\n":
            return f"{mark}\n"
        if c == "\t":
            return "⇥"
        odd = (
            unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp", "Zs")
            and c != " "
            or c in "\u115f\u1160\u2800\u3164\uffa0\u034f"
        )
        return f"\\u{ord(c):04x}" if odd else html.escape(c)

    return ("◌" if text and unicodedata.category(text[0])[0] == "M" else "") + "".join(
        map(seen, text)
    )


def fragment(inside: str, data: Any, draw: str) -> str:
    """A piece of HTML: `inside` where no script runs, else what the JavaScript `draw` makes of `root` and `data`.

    The script finds its place by the id (in JupyterLab it has no place of its own), and draws every copy of it there is, each once.
    """
    place = f"sdpo-{secrets.token_hex(6)}"
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )  # ASCII, so no character can do anything else
    return (
        f'<div id="{place}">{inside}<script type="application/json">{text}</script></div><style>{source("token_view.css")}</style><script>(() => {{\n'
        f"{source('dom.js', 'token_view.js')}\nfor (const root of document.querySelectorAll('#{place}')) {{\n"
        f"const given = root.querySelector(':scope > script');\nif (!given) continue;\nconst data = JSON.parse(given.textContent);\ngiven.remove();\n{draw}\n}}\n}})();</script>"
    )


def write_page(path: str | Path, page: str) -> Path:
    """Write a page to the file at `path`, and return that."""
    check_kind("path", path, (str, Path), "the path of the file to write, such as 'view.html'")
    path = Path(path)
    if path == Path() or path.is_dir():
        raise ValueError(
            f"path must be the path of a file, such as 'view.html', and {shown(str(path))} is a folder"
        )
    path.write_text(page, encoding="utf-8")
    return path


def document(inside: str, title: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{visible(title)}</title><style>body {{ margin: 16px; background: #fff; color: #1c2430 }}\n"
        "@media (prefers-color-scheme: dark) { body { background: #0f1216; color: #e6eaf0 } }</style></head>\n"
        f"<body><main>{inside}</main></body></html>\n"
    )
