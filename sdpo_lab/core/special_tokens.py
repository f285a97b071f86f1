"""Which tokens of a tokenizer are special, and what is done where a text becomes one after all."""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from sdpo_lab.core.checks import short_repr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Encode = Callable[[PreTrainedTokenizerBase, str], list[int]]


class Special(NamedTuple):
    tokens: dict[int, str]  #: {id: string} of the tokens that no text may become
    strings: re.Pattern[str] | None  #: of their strings, longest first; None when there are none


#: What the string of a special token has, and a role or a switch in a text ("/no_think") has not.
PUNCTUATION = re.compile(r"[^\w\s/-]")
#: By tokenizer: (its state, what is special in it).
SPECIAL: weakref.WeakKeyDictionary[Any, tuple[tuple, Special]] = weakref.WeakKeyDictionary()
#: By tokenizer: the special tokens its template writes by itself, by all it depends on.
TEMPLATE: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], Counter[str]]]
TEMPLATE = weakref.WeakKeyDictionary()
MAX_TEMPLATE = 500  #: kinds of chats that are remembered, by their roles


def special_of(tokenizer: PreTrainedTokenizerBase) -> Special:
    """What is special in a tokenizer; found once for every state of it, as some have thousands.

    Runs of spaces, which some tokenizers add, are text, and so is a single character that is added
    and not called special.
    """
    state = (len(tokenizer), *tokenizer.all_special_tokens)
    remembered = SPECIAL.get(tokenizer)
    if remembered is not None and remembered[0] == state:
        return remembered[1]
    tokens = {
        i: token.content
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special or len(token.content) > 1
    }
    # those with a name are not always among those added
    tokens |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens))
    tokens = {i: string for i, string in tokens.items() if string.strip()}
    strings = {*tokens.values(), *(s for s in tokenizer.all_special_tokens if s.strip())}
    escaped = [re.escape(string) for string in sorted(strings, key=len, reverse=True)]
    pattern = re.compile("|".join(escaped)) if escaped else None
    SPECIAL[tokenizer] = state, Special(tokens, pattern)
    return SPECIAL[tokenizer][1]


def special_strings(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """A pattern of every special token's string, longest first; None when there are none."""
    return special_of(tokenizer).strings


def count_special(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> Counter[str]:
    """How often each special token stands in `ids`.

    The one that stands for unknown characters is no way in, unless it has another meaning too.
    """
    tokens, unknown = special_of(tokenizer).tokens, tokenizer.unk_token_id
    if unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        unknown = None
    return Counter(tokens[i] for i in ids if i in tokens and i != unknown)


def without_special(
    tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], encode: Encode
) -> list[int]:
    """`ids` of a text where no special token is among them.

    Else, a normalizer having made one, the ids of its characters one by one. Raises ValueError
    where a single character is a special token.
    """
    if not count_special(tokenizer, ids):
        return ids
    ids = [i for character in text for i in encode(tokenizer, character)]
    if made := count_special(tokenizer, ids):
        raise ValueError(
            f"the tokenizer has no way to read the text {short_repr(text)} without its special "
            f"token {short_repr(next(iter(made)))}, which a single character becomes; a text must "
            "not have that character: replace it, in the task's texts or in what the judge says"
        )
    return ids


def refuse_injection(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    ids: list[int],
    write: Callable[[list[dict[str, str]]], list[int]],
) -> None:
    """Raise ValueError where a text of a chat, whose `ids` these are, has become a special token.

    Render the same chat with harmless text (`write` gives its ids) and count its special tokens. If
    the real chat has more, its text has turned into one: refuse. A template does it that drops or
    changes characters or sets texts side by side, or a normalizer. What the template writes by
    itself is counted once for each sequence of roles, so that a chat costs no second render.
    """
    found = count_special(tokenizer, ids)
    bare = [{k: "a" if k == "content" else letters(v) for k, v in m.items()} for m in messages]
    counts = TEMPLATE.setdefault(tokenizer, {})
    key = (
        str(tokenizer.chat_template),
        str(tokenizer.init_kwargs.get("chat_template_kwargs")),
        repr((len(tokenizer), tokenizer.all_special_tokens, bare)),
    )
    if key not in counts:
        if len(counts) >= MAX_TEMPLATE:
            counts.clear()
        counts[key] = count_special(tokenizer, write(bare))
    if not found - counts[key]:
        return
    # the template may write more where a text says so ("/no_think"): such words are left
    plain = [{**m, "content": letters(given["content"])} for m, given in zip(bare, messages)]
    if made := found - count_special(tokenizer, write(plain)):
        raise ValueError(
            f"the tokenizer's chat template makes the special token {short_repr(next(iter(made)))} "
            f"of the text of the messages {short_repr(messages)}, where there was none; it must "
            "write each content as it is, with something between two of them: change "
            "tokenizer.chat_template, or take the characters out of the texts"
        )


def letters(value: Any) -> Any:
    """A text without what only a special token has; anything else as it is."""
    return PUNCTUATION.sub("a", value) if isinstance(value, str) else value
