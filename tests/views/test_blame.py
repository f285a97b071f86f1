"""The kernel's half of the blame widget: what is blamed, what is refused, and what a page without a
kernel shows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import traitlets

from sdpo_lab.views.blame import MOST_TOKENS, Blame, visible

TOKENS = ["order", "(", "count", "='", "4", ")", "<|im_end|>"]
HOSTILE = [
    "<script>alert(1)</script>",
    "</style>",
    "{{",
    "\u202egnp",
    "\x00\x1b",
    "\ud83d",
    "👩\u200d👩",
    "שלום",
    "\u2028",
    "",
    " a\n\tb",
    "\u0301",
    "\u3164",
]


class Reader(HTMLParser):
    """The tags of a fragment, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def read(fragment: str) -> Reader:
    reader = Reader()
    reader.feed(fragment)
    return reader


def test_what_is_blamed_is_a_mask():
    blame = Blame(TOKENS, blamed=(4, 2, 4))
    assert blame.blamed == [2, 4] and blame.tokens == TOKENS
    assert torch.equal(blame.mask, torch.tensor([0.0, 0, 1, 0, 1, 0, 0]))
    assert repr(blame) == "Blame(2: 'count', 4: '4' of 7 tokens)"


def test_a_click_arrives_at_once():
    """The page sends the trait as its state; nothing has to be run in between."""
    blame, seen = Blame(TOKENS), []
    blame.observe(lambda change: seen.append(change["new"]), "blamed")
    blame.set_state({"blamed": [5, 2]})
    assert blame.blamed == [2, 5] and seen == [[2, 5]] and blame.mask.sum() == 2
    blame.set_state({"blamed": []})
    assert (
        blame.blamed == []
        and blame.mask.tolist() == [0.0] * 7
        and repr(blame) == "Blame(nothing of 7 tokens)"
    )
    blame.blamed = [np.int64(6)]
    assert blame.blamed == [6] and type(blame.blamed[0]) is int


@pytest.mark.parametrize(
    "blamed, error, words",
    [
        ([7], ValueError, "from 0 to 6, there are 7 tokens; got 7"),
        ([-1], ValueError, "got -1"),
        ([1.0], TypeError, "whole numbers"),
        ([True], TypeError, "whole numbers"),
        (["count"], TypeError, "whole numbers"),
        (3, TypeError, r"such as \[3\]; got 3"),
        ("2", TypeError, "got '2'"),
    ],
)
def test_positions_are_checked(blamed, error, words):
    with pytest.raises(error, match=words):
        Blame(TOKENS, blamed=blamed)
    blame = Blame(TOKENS, blamed=[0])
    with pytest.raises(traitlets.TraitError):
        blame.blamed = blamed
    with pytest.raises(traitlets.TraitError):
        blame.set_state({"blamed": blamed})  # as a page would
    assert blame.blamed == [0] and blame.mask.sum() == 1


@pytest.mark.parametrize(
    "tokens, error, words",
    [
        ("order", TypeError, "list of strings"),
        ([1, 2], TypeError, "list of strings"),
        ([], ValueError, f"1 to {MOST_TOKENS}; got 0"),
        (["a"] * (MOST_TOKENS + 1), ValueError, f"got {MOST_TOKENS + 1}"),
    ],
)
def test_tokens_are_checked(tokens, error, words):
    with pytest.raises(error, match=words):
        Blame(tokens)


def test_without_a_kernel_the_blamed_tokens_are_marked():
    data, _ = Blame(TOKENS, blamed=[2])._repr_mimebundle_()
    assert (
        data["text/plain"].startswith("Blame(2: 'count'")
        and "application/vnd.jupyter.widget-view+json" in data
    )
    page = read(data["text/html"])
    assert (
        set(page.tags) <= {"div", "span"}
        and page.text == "order(count='4)<|im_end|>Blamed: count (position 2)"
    )
    assert re.findall(r"line-through[^>]*>([^<]*)", data["text/html"]) == ["count"]
    assert "Blamed: nothing" in read(Blame(TOKENS)._repr_html_()).text


def test_hostile_tokens_are_literal():
    blame = Blame(HOSTILE, blamed=[0, 3])
    json.dumps(
        blame.get_state(), allow_nan=False, ensure_ascii=False
    ).encode()  # half a surrogate pair would not survive this
    assert blame.tokens == HOSTILE
    page = read(blame._repr_html_())
    assert set(page.tags) <= {"div", "span"} and "<script>alert(1)</script>" in page.text
    assert blame.labels[3:6] == ["\\u202egnp", "\\u0000\\u001b", "\\ud83d"] and blame.labels[
        8:
    ] == ["\\u2028", "◌", "·a⏎⇥b", "◌\u0301", "\\u3164"]
    assert blame.labels[7] == "שלום" and "\u200d" not in blame.labels[6]


def test_visible_leaves_ordinary_text_alone():
    for text in ("order", "='", "naïve", "日本", "❤\ufe0f", "<|im_end|>"):
        assert visible(text) == text


def test_the_page_never_makes_html_of_text():
    code = Blame._esm.lower()
    for word in (
        "innerhtml",
        "outerhtml",
        "insertadjacenthtml",
        "document.write",
        "eval(",
        "http://",
        "https://",
        "import(",
    ):
        assert word not in code, word
    assert len(Blame._esm) < 5 * 1024 and "import " not in Blame._css.replace("!important", "")
