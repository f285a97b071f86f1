"""Documents as token ids, drawn in pools: equal for every size of a family."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import random
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerFast

from small_models.documents import CONTENTS, WITHOUT_FEEDBACK, Document, draw_document, draw_lesson
from small_models.lessons import draw_choice, draw_echo

if TYPE_CHECKING:
    from small_models.make import Recipe

#: What is left of the second lesson in the long run.
CHOICE = 0.03

LETTER_BY_LETTER = "reasoning_gym:spell_backward"


def encode(
    documents: list[Document], tokenizer: PreTrainedTokenizerFast
) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, answer ids). A word spelt backward is written letter by letter: which letters
    hide in a token is what has to be learnt there.
    """
    prompts, answers = zip(*map(render, documents))
    ids = (
        tokenizer(list(texts), add_special_tokens=False).input_ids for texts in (prompts, answers)
    )
    letters = {c: tokenizer(c, add_special_tokens=False).input_ids for c in string.ascii_lowercase}
    found = []
    for d, p, a in zip(documents, *ids):
        if d.world == LETTER_BY_LETTER:
            before, word, after = re.fullmatch(r"(.*?)([a-z]+)(\W*)", d.answer).groups()
            a = [
                *tokenizer(before, add_special_tokens=False).input_ids,
                *(i for c in word for i in letters[c]),
                *tokenizer(after, add_special_tokens=False).input_ids,
                tokenizer.eos_token_id,
            ]
        found.append((p, a))
    return found


def render(document: Document) -> tuple[str, str]:
    """(prompt, answer) as the chat template writes them."""
    turns = "".join(
        f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in document.messages
    )
    return f"{turns}<|im_start|>assistant\n", f"{document.answer}<|im_end|>"


Batch = list[tuple[list[int], list[int]]]  # (prompt ids, answer ids)
Pool = list[Batch]


def draw_pool(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: int, batches: int) -> Pool:
    """`batches` batches of (prompt ids, answer ids), documents of like length together; pool number
    `pool` of the seed.
    """
    rng = random.Random(f"documents/{recipe.seed}/{pool}")
    step = pool * batches
    documents: list[tuple[list[int], list[int]]] = []
    while len(documents) < batches * recipe.documents_per_step:
        drawn = [draw_one(recipe, step, rng) for _ in range(256)]
        documents += [
            (p, a) for p, a in encode(drawn, tokenizer) if len(p) + len(a) <= recipe.max_tokens
        ]
    documents = sorted(
        documents[: batches * recipe.documents_per_step], key=lambda d: len(d[0]) + len(d[1])
    )
    size = recipe.documents_per_step
    cut = [documents[i : i + size] for i in range(0, len(documents), size)]
    rng.shuffle(cut)
    return cut


def draw_one(recipe: Recipe, step: int, rng: random.Random) -> Document:
    """A document of what the recipe reads at this step: a lesson, or one of the worlds."""
    if rng.random() < 0.8 * falling(step, recipe.echo_steps):
        return draw_lesson(draw_echo, rng)
    if recipe.diet == "no feedback":
        shares = [CONTENTS[content] for content in WITHOUT_FEEDBACK]
        return draw_document(
            rng, rng.choice(("varied", "paper", "trl")), rng.choices(WITHOUT_FEEDBACK, shares)[0]
        )
    if recipe.diet == "everything" and rng.random() < CHOICE + (0.4 - CHOICE) * falling(
        step, recipe.choice_steps
    ):
        return draw_lesson(draw_choice, rng)
    while True:
        document = draw_document(rng)
        if recipe.diet == "everything" or not document.excludes:
            return document


def falling(step: int, steps: int) -> float:
    """From 1 to 0 over the first `steps`."""
    return max(0.0, 1 - step / steps) if steps else 0.0


def kept_pool(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: int, batches: int, folder: Path
) -> Pool:
    """The same, read from `folder` where another size of the family has drawn it before."""
    decides = [
        recipe.seed,
        recipe.echo_steps,
        recipe.choice_steps,
        recipe.diet,
        recipe.documents_per_step,
        recipe.max_tokens,
        batches,
    ]
    decides += [document_code(), tokenizer.get_vocab()]
    same = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    file = folder / f"{same}-{pool:04d}.json"
    if file.exists():
        return json.loads(file.read_text())
    drawn = draw_pool(recipe, tokenizer, pool, batches)
    folder.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(
        f".{os.getpid()}"
    )  # another size may be drawing the same one at this moment
    new.write_text(json.dumps(drawn))
    new.replace(file)
    return drawn


@functools.lru_cache(maxsize=1)
def document_code() -> str:
    """A hash of the code that decides what documents say: a state or a pool of other documents is
    not gone on with.
    """
    digest = hashlib.sha256()
    for module in DOCUMENT_CODE:
        digest.update(Path(importlib.import_module(module).__file__).read_bytes())
    return digest.hexdigest()[:16]


DOCUMENT_CODE = (
    "small_models.documents",
    "small_models.lessons",
    "small_models.plain",
    "small_models.wordings",
    "small_models.worlds",
    "sdpo_lab.models.prompt_forms",
    "sdpo_lab.tasks.conventions",
    "sdpo_lab.tasks.followup",
    "sdpo_lab.tasks.tinycode.world",
    "sdpo_lab.tasks.tinycode.judge",
    "sdpo_lab.tasks.toolcall.judge",
    "sdpo_lab.tasks.toolcall.requests",
    "sdpo_lab.tasks.toolcall.world",
)
