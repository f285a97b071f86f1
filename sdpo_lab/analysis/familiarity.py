"""Was this model taught to read texts like this one? Answered by the words of its documents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdpo_lab.core.checks import check_choice, check_text

#: What `small_models/taught.py` writes into a model's folder: hashes of three neighbouring words,
#: of what its documents showed a reader.
TAUGHT = "taught.safetensors"
KINDS = ("feedback", "solution")
#: Below this share of known triples a text is of another kind. Measured by `python -m
#: small_models.taught --measure`.
THRESHOLD = 0.5
QUOTED = re.compile(r"(?<!\w)(['\"`])[^'\"`\n]{0,30}?\1(?!\w)")  # names and values are any
PIECES = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")


@dataclass(frozen=True)
class Familiarity:
    """How much of a text is worded as in the documents a model was trained on."""

    share: float  #: 0 to 1, of its triples of neighbouring words
    least: str  #: its least known word; "" when all are known

    @property
    def unfamiliar(self) -> bool:
        """Of a kind the model was never taught to read? Then what it makes of it means little."""
        return self.share < THRESHOLD


def familiarity(text: str, model: Any, kind: str = "feedback") -> Familiarity | None:
    """Was this model taught to read texts like this one as feedback, or as a solution? None where
    it is not known what it was taught: a model of the Hub.

    model  a model of `load_model`, or its folder

    Pre-training put the loss on answers alone, so likelihood says nothing of a prompt; this
    compares with what stood in the documents. It sees words, not sense: another wording of a known
    message can be unfamiliar and still be understood.
    """
    check_text("text", text)
    check_choice("kind", kind, KINDS)
    folder = model
    if not isinstance(model, (str, Path)):
        folder = getattr(getattr(model, "config", None), "_name_or_path", "")
    file = Path(folder or ".") / TAUGHT
    if not folder or not file.is_file():
        return None
    known = load_taught(file, file.stat().st_mtime_ns)
    words = pieces(text)
    if not words:
        return Familiarity(1.0, "")
    is_known = [
        phrase in known
        for phrase in phrases(words, kind, lambda word: phrase_hash(kind, word) in known)
    ]

    def triples_known(t: int) -> int:
        """A word stands in three triples, the t-th of them the first that holds it."""
        return sum(is_known[t : t + 3])

    alphabetic = [t for t, word in enumerate(words) if word.isalpha()]
    least = min(alphabetic or range(len(words)), key=triples_known)
    share = sum(is_known) / len(is_known)
    return Familiarity(share, "" if triples_known(least) == 3 else words[least])


@lru_cache(maxsize=8)
def load_taught(file: Path, changed: int) -> frozenset[int]:
    """The hashes in a file; `changed`, when it was written, tells a newer one from the old."""
    from safetensors.numpy import load_file

    return frozenset(load_file(file)["phrases"].tolist())


def pieces(text: str) -> list[str]:
    """Words, marks and numbers of a text; a number is "0", a short quoted text "''"."""
    return ["0" if p.isdigit() else p for p in PIECES.findall(QUOTED.sub(" '' ", text))]


def phrases(words: list[str], kind: str, is_known: Callable[[str], bool]) -> Iterator[int]:
    """Hashes of the triples of neighbouring words; the text begins after two "^" and ends in two
    "$". A solution holds any value, so a letter of it, and a word that is not known, is "*"."""
    if kind == "solution":
        words = ["*" if w.isalpha() and (len(w) == 1 or not is_known(w)) else w for w in words]
    padded = ["^", "^", *words, "$", "$"]
    return (phrase_hash(kind, *padded[t : t + 3]) for t in range(len(padded) - 2))


def phrase_hash(kind: str, *words: str) -> int:
    """32 bits, signed."""
    text = "\0".join((kind, *words)).encode("utf-8", "replace")
    digest = hashlib.blake2b(text, digest_size=4).digest()
    return int.from_bytes(digest, "big", signed=True)
