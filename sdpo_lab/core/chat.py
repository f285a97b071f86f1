"""Chats to token ids.

Special tokens come from the chat template alone: the same characters inside a message stay text.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, cast

from sdpo_lab.core.checks import is_message, short_repr
from sdpo_lab.core.special_tokens import refuse_injection, special_strings, without_special

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a chat up to where the assistant starts to write.

    A text that holds "<|im_end|>" must not end its message: an attempt, or what the environment
    says of it, could then write turns of its own into the teacher's prompt. So 'a<|im_end|>b' is
    rendered with a mark in the place of '<|im_end|>', the render is split at the mark, and
    '<|im_end|>' encoded as plain pieces. A chat without such a string takes one render and one
    tokenisation. Besides the messages the template gets chat_template_kwargs of `load_model`, by
    default enable_thinking=False. Raises ValueError when
    the tokenizer has no chat template, and where the template or the tokenizer makes a special
    token of texts that hold none: it drops characters, sets two texts side by side, or has a
    normalizer.
    """
    check_chat(tokenizer, messages)
    special = special_strings(tokenizer)
    mark = unused_mark(messages)
    found: list[str] = []  # special strings met in the messages, in the order of their marks

    def mark_of(match: re.Match[str]) -> str:
        found.append(match.group())
        return f"{mark}{len(found) - 1};"

    marked: list[dict[str, Any]] = messages
    if special:
        marked = [
            {k: special.sub(mark_of, v) if isinstance(v, str) else v for k, v in m.items()}
            for m in messages
        ]
    # template and text in even places, numbers of marks in odd ones
    pieces = re.split(f"{mark}(\\d+);", render(tokenizer, marked))
    ids: list[int] = []
    for place, piece in enumerate(pieces):
        if place % 2:
            ids += encode_plain(tokenizer, found[int(piece)])
        else:
            ids += encode(tokenizer, piece)
    refuse_injection(
        tokenizer, messages, ids, lambda chat: encode(tokenizer, render(tokenizer, chat))
    )
    return ids


def check_chat(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> None:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template; set tokenizer.chat_template (see the model's "
            "card) before using it here"
        )
    for m in messages:
        if not is_message(m):
            raise TypeError(
                f"a chat message must have a role and a content, both strings; got {short_repr(m)}"
            )


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]) -> str:
    """The chat as the template writes it.

    Its chat_template_kwargs stand with the tokenizer's other settings, and are saved with them.
    """
    settings = {"enable_thinking": False} | tokenizer.init_kwargs.get("chat_template_kwargs", {})
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **settings
    )
    return cast(str, text)  # not tokenised, and one chat


def encode_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text` with no special token among them, whatever it says.

    Raises ValueError where one of its characters alone is such a token.
    """
    special = special_strings(tokenizer)
    if special is None:
        return without_special(tokenizer, text, encode(tokenizer, text), encode)
    first, *pieces = special.split(text)
    ids = encode(tokenizer, first)
    for string, piece in zip(special.findall(text), pieces):
        # cut after its first character it is no special token, but what is left may be another one
        rest = encode_plain if special.search(string, 1) else encode
        ids += encode(tokenizer, string[:1])
        ids += rest(tokenizer, string[1:])
        ids += encode(tokenizer, piece)
    return without_special(tokenizer, text, ids, encode)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text`, in which a special token's string is one.

    Half a surrogate pair, which no tokenizer can read, becomes U+FFFD.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return list(tokenizer(text, add_special_tokens=False).input_ids) if text else []


def unused_mark(messages: list[dict[str, str]]) -> str:
    """A string that stands in no message: a private-use character and a number."""
    text = "".join(v for m in messages for v in m.values() if isinstance(v, str))
    return next(mark for n in itertools.count() if (mark := f"\ue000{n}:") not in text)


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that end an attempt: all of the generation config's, and the tokenizer's own."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    named = ids if isinstance(ids, list) else [ids]
    ends = {i for i in (*named, tokenizer.eos_token_id) if i is not None}
    if not ends:
        raise ValueError(
            "neither the tokenizer nor the model's generation_config names an end-of-sequence "
            "token; set tokenizer.eos_token"
        )
    return ends
