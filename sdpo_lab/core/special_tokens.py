"""Which tokens of a tokenizer are special, and what is done where a template or a tokenizer makes one of a text after all."""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from sdpo_lab.core.checks import shown

ODD = re.compile(
    r"[^\w\s/-]"
)  # what the string of a special token has, and a role or a switch in a text ("/no_think") has not
KNOWN: weakref.WeakKeyDictionary[Any, tuple] = (
    weakref.WeakKeyDictionary()
)  # by tokenizer: (its state, what `known` says)
# by tokenizer: what its template writes by itself, by all it depends on
WRITTEN: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], Counter[str]]] = (
    weakref.WeakKeyDictionary()
)
MOST_WRITTEN = 500  # kinds of chats, by their roles


def known(tokenizer: Any) -> tuple[dict[int, str], re.Pattern[str] | None]:
    """({id: string} of the tokens that no text may become, a pattern of their strings, longest first, None when there are none).

    Runs of spaces, which some tokenizers add, are text, and so is a single character that is added and not called special. Found once for every
    state of a tokenizer: some have thousands.
    """
    state = (len(tokenizer), *tokenizer.all_special_tokens)
    if KNOWN.get(tokenizer, ((),))[0] != state:
        added = {
            i: t.content
            for i, t in tokenizer.added_tokens_decoder.items()
            if t.special or len(t.content) > 1
        }
        named = dict(
            zip(tokenizer.all_special_ids, tokenizer.all_special_tokens)
        )  # not always among those added
        tokens = {i: string for i, string in {**added, **named}.items() if string.strip()}
        strings = {*tokens.values(), *(s for s in tokenizer.all_special_tokens if s.strip())}
        pattern = (
            re.compile("|".join(re.escape(s) for s in sorted(strings, key=len, reverse=True)))
            if strings
            else None
        )
        KNOWN[tokenizer] = state, tokens, pattern
    return KNOWN[tokenizer][1:]


def special_strings(tokenizer: Any) -> re.Pattern[str] | None:
    """A pattern of every special token's string, longest first; None when the tokenizer has none."""
    return known(tokenizer)[1]


def count_special(tokenizer: Any, ids: list[int]) -> Counter[str]:
    """How often each special token stands in `ids`. The one that stands for unknown characters is no way in, unless it has another meaning too."""
    tokens, unknown = known(tokenizer)[0], tokenizer.unk_token_id
    if unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        unknown = None
    return Counter(tokens[i] for i in ids if i in tokens and i != unknown)


def without_special(
    tokenizer: Any, text: str, ids: list[int], encode: Callable[[Any, str], list[int]]
) -> list[int]:
    """`ids` of a text where no special token is among them; else, a normalizer having made one, the ids of its characters one by one. Raises
    ValueError where a single character is a special token."""
    if not count_special(tokenizer, ids):
        return ids
    ids = [i for character in text for i in encode(tokenizer, character)]
    if made := count_special(tokenizer, ids):
        raise ValueError(
            f"the tokenizer has no way to read the text {shown(text)} without its special token {shown(next(iter(made)))}, which a single character becomes; "
            "a text must not have that character: replace it, in the task's texts or in what the judge says"
        )
    return ids


def refuse_made(
    tokenizer: Any,
    messages: list[dict[str, str]],
    ids: list[int],
    write: Callable[[list[dict[str, str]]], list[int]],
) -> None:
    """Raise ValueError where `ids`, a chat's, hold more special tokens than `write` makes of the same chat with letters for its texts: a template
    that drops or changes characters or sets texts side by side, or a normalizer, has made one of them.

    What the template writes by itself is counted once for each sequence of roles, so that a chat costs no second render.
    """
    found = count_special(tokenizer, ids)
    bare = [
        {
            k: "a" if k == "content" else ODD.sub("a", v) if isinstance(v, str) else v
            for k, v in m.items()
        }
        for m in messages
    ]
    counts = WRITTEN.setdefault(tokenizer, {})
    key = (
        str(tokenizer.chat_template),
        str(tokenizer.init_kwargs.get("chat_template_kwargs")),
        repr((len(tokenizer), tokenizer.all_special_tokens, bare)),
    )
    if key not in counts:
        if len(counts) >= MOST_WRITTEN:
            counts.clear()
        counts[key] = count_special(tokenizer, write(bare))
    if not found - counts[key]:
        return
    # the template may write more where a text says so ("/no_think"): such words are left
    plain = [{**m, "content": ODD.sub("a", given["content"])} for m, given in zip(bare, messages)]
    if made := found - count_special(tokenizer, write(plain)):
        raise ValueError(
            f"the tokenizer's chat template makes the special token {shown(next(iter(made)))} of the text of the messages {shown(messages)}, where there was none; "
            "it must write each content as it is, with something between two of them: change tokenizer.chat_template, or take the characters out of the texts"
        )
