"""Names of tokens that are bytes, as byte-fallback tokenizers (Llama 2's) have them."""

from types import SimpleNamespace

from sdpo_lab.analysis.token_text import byte_spans, token_bytes, token_text

NAMES = {0: "<s>", 1: "<0xE2>", 2: "<0x82>", 3: "<0xAC>", 4: "<0x0A>", 5: "▁the", 6: "<0xZZ"}


class ByteFallback:
    added_tokens_decoder = {0: SimpleNamespace(content="<s>")}

    def convert_ids_to_tokens(self, token):
        return NAMES.get(token)

    def decode(self, ids, **_):
        raw = [token_bytes(self, i) or b"the" for i in ids]
        return b"".join(raw).decode("utf-8", "replace")


def test_a_byte_is_named_in_hexadecimal():
    tokenizer = ByteFallback()
    assert token_bytes(tokenizer, 1) == b"\xe2" and token_bytes(tokenizer, 4) == b"\n"
    assert token_text(tokenizer, 1) == "<E2>" and token_text(tokenizer, 4) == "\n"


def test_what_is_no_byte_is_not_taken_for_one():
    tokenizer = ByteFallback()
    assert token_bytes(tokenizer, 0) is None  # a special token
    assert token_bytes(tokenizer, 5) is None  # "▁" stands for a space
    assert token_bytes(tokenizer, 99) is None  # not in the vocabulary
    assert token_bytes(tokenizer, 6) == b"<0xZZ"  # five characters, as they are written


def test_the_bytes_of_a_character_go_to_the_tokens_that_hold_them():
    assert byte_spans(ByteFallback(), [1, 2, 3], ["", "", "€"]) == [(0, 1), (1, 2), (2, 3)]
