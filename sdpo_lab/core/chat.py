"""Chats to token ids. Special tokens come from the chat template alone: the same characters inside a message stay text."""

from __future__ import annotations

import itertools
import re
from typing import Any

from sdpo_lab.core.checks import shown
from sdpo_lab.core.special_tokens import refuse_made, special_strings, without_special


def encode_chat(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a chat up to where the assistant starts to write.

    One render, one tokenisation. Only where a message holds the string of a special token is the render cut there and
    that string tokenised as plain characters. What the template reads besides is `load_model`'s chat_template_kwargs, by
    default enable_thinking=False. Raises ValueError when the tokenizer has no chat template, and where the template or the tokenizer makes a
    special token of texts that hold none: it drops characters, sets two texts side by side, or has a normalizer.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template; set tokenizer.chat_template (see the model's card) before using it here"
        )
    for m in messages:
        if (
            not isinstance(m, dict)
            or not isinstance(m.get("content"), str)
            or not isinstance(m.get("role"), str)
        ):
            raise TypeError(
                f"a chat message must have a role and a content, both strings; got {shown(m)}"
            )
    special = special_strings(tokenizer)
    found: list[str] = []  # special strings met in the messages, in the order of their marks
    mark = unused_mark(messages)

    def hide(match: re.Match[str]) -> str:
        found.append(match.group())
        return f"{mark}{len(found) - 1};"

    hidden = [
        {k: special.sub(hide, v) if special and isinstance(v, str) else v for k, v in m.items()}
        for m in messages
    ]
    pieces = re.split(
        f"{mark}(\\d+);", render(tokenizer, hidden)
    )  # template and text in even places, marks in odd ones
    ids = [
        token
        for i, piece in enumerate(pieces)
        for token in (
            encode_plain(tokenizer, found[int(piece)]) if i % 2 else encode(tokenizer, piece)
        )
    ]
    refuse_made(tokenizer, messages, ids, lambda chat: encode(tokenizer, render(tokenizer, chat)))
    return ids


def render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The chat as the template writes it. What it reads besides stands with the tokenizer's other settings, and is saved with them."""
    return tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=True,
        **{"enable_thinking": False, **tokenizer.init_kwargs.get("chat_template_kwargs", {})},
    )


def encode_plain(tokenizer: Any, text: str) -> list[int]:
    """Ids of `text` with no special token among them, whatever it says. Raises ValueError where one of its characters alone is such a token."""
    special = special_strings(tokenizer)
    pieces = [text] if special is None else special.split(text)
    ids = encode(tokenizer, pieces[0])
    for string, piece in zip(
        special.findall(text) if special else (), pieces[1:]
    ):  # cut after its first character, a special token is none
        rest = (
            encode_plain if special.search(string, 1) else encode
        )  # but what is left may be another one
        ids += (
            encode(tokenizer, string[:1]) + rest(tokenizer, string[1:]) + encode(tokenizer, piece)
        )
    return without_special(tokenizer, text, ids, encode)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of `text`, in which a special token's string is one. Half a surrogate pair, which no tokenizer can read, becomes U+FFFD."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return list(tokenizer(text, add_special_tokens=False).input_ids) if text else []


def unused_mark(messages: list[dict[str, str]]) -> str:
    """A string that stands in no message: a private-use character and a number."""
    text = "".join(v for m in messages for v in m.values() if isinstance(v, str))
    return next(mark for n in itertools.count() if (mark := f"\ue000{n}:") not in text)


def end_ids(model: Any, tokenizer: Any) -> set[int]:
    """Ids that end an attempt: all of the generation config's, and the tokenizer's own."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    ends = set(ids if isinstance(ids, list) else [] if ids is None else [ids])
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    if not ends:
        raise ValueError(
            "neither the tokenizer nor the model's generation_config names an end-of-sequence token; set tokenizer.eos_token"
        )
    return ends
