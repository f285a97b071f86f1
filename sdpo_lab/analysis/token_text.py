"""The text of tokens: which part of an attempt's text each token is, in characters and in bytes."""

from __future__ import annotations

from typing import Any


def split_text(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token. Decoded cumulatively, so that their concatenation is exact, and a
    character cut in two bytes appears with its last byte."""
    pieces, done = [], ""
    for end in range(1, len(ids) + 1):
        text = decode(tokenizer, ids[:end])
        if text.endswith("\ufffd") and end < len(ids):
            pieces.append("")
            continue
        pieces.append(text[len(done) :])
        done = text
    return pieces


def byte_spans(tokenizer: Any, ids: list[int], tokens: list[str]) -> list[tuple[int, int]]:
    """[begin, end) of each token in the UTF-8 bytes of the text.

    A character's bytes go to the tokens that hold them. Where the tokenizer does not tell which (or
    they make no character, which shows as U+FFFD), all go to the last of them.
    """
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in tokens]
    first = 0
    for last, size in enumerate(sizes):
        if tokens[last]:  # the end of a character, or of several
            raw = [token_bytes(tokenizer, i) for i in ids[first : last + 1]]
            if first < last and None not in raw and sum(map(len, raw)) == size:
                sizes[first : last + 1] = map(len, raw)
            first = last + 1
    ends = [sum(sizes[: t + 1]) for t in range(len(sizes))]
    return list(zip([0, *ends], ends))


def token_bytes(tokenizer: Any, token: int) -> bytes | None:
    """The bytes one token of the vocabulary stands for, for byte-level and byte-fallback
    tokenizers; None where the tokenizer does not tell."""
    name = tokenizer.convert_ids_to_tokens(token)
    if name is None or token in tokenizer.added_tokens_decoder:
        return None
    if len(name) == 6 and name.startswith("<0x"):
        return bytes([int(name[3:5], 16)])
    return bytes(BYTE_OF[c] for c in name) if all(c in BYTE_OF for c in name) else None


def byte_alphabet() -> dict[str, int]:
    """{character: byte} of byte-level tokenizers (GPT-2's): printable bytes stand for themselves,
    the others for characters from 256 on."""
    ranges = (("!", "~"), ("¡", "¬"), ("®", "ÿ"))
    printable = [b for first, last in ranges for b in range(ord(first), ord(last) + 1)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


BYTE_OF = byte_alphabet()


def token_text(tokenizer: Any, token: int) -> str:
    """One token as text; one that is only part of a character as its bytes, such as "<E2 82>"."""
    text = decode(tokenizer, [token])
    raw = token_bytes(tokenizer, token) if "\ufffd" in text else None
    return f"<{raw.hex(' ').upper()}>" if raw else text


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of tokens as it was written, special tokens included."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
