"""The text of a model's card, from what `card.py` measured."""

from __future__ import annotations

from typing import Any

SEED, LAST_SEED = 200, 205  #: of the conventions that serve for the cards alone

CHECKPOINT = """---
license: apache-2.0
---
# {name}

`{of}` after {step:,} of its {steps:,} steps, in the middle of its schedule of learning rates: for
experiments on how skill and the use of feedback grow. SHA-256 of the weights: `{sha256}`.

{tasks}"""

CARD = """---
license: apache-2.0
---
# {name}

A Qwen3-architecture model of {parameters:,} parameters ({layers} layers of width {width},
vocabulary {vocab_size}, byte-level), made from nothing to be *weak from the bare question and
better once it reads feedback*. It is a teaching instrument for the tasks below and knows nothing
else. It is no language model for any other purpose.

**Made** by `python -m small_models.make --only {name}` (seed {seed}): {steps:,} steps of
{documents_per_step} documents, Muon and AdamW, peak learning rate {learning_rate:g}, float32; last
logged loss {loss:.3f} a token of the answers. The weights are stored in half precision. SHA-256 of
the weights: `{sha256}`.

**On** synthetic chats, each a small world with a convention of its own, in every form of prompt
that `sdpo_lab.models.prompt_forms` lists: bare question, solution, feedback, both, with the
attempt, histories of feedbacks, unrelated, permuted and (in one of 250) misleading feedback, the
next message in hindsight, two turns, and foretelling the feedback; frames in hundreds of wordings,
every fourth of random words; messages as a validator words them and as a person would type them.
The loss falls on answers only. `small_models/README.md` has the shares.

**Held out** of all documents: all test problems; of `toolcall` combinations of a second with a
third name ("combination"), certain pairs of argument and name ("pair"), the tool `taxi` ("tool"),
half of all made-up names ("nonsense"); and every word of four letters or more in `held_out.py`,
but for four small ones.

## On every task

{tasks}
## What it reads, in `toolcall`

One attempt a problem at T = 1, on test problems of conventions {first} to {last} with base
accuracy dial 0.05. "After a failure": shown what stands there after an attempt of its own that
failed, in the frame of the paper unless said otherwise. "Could be read": an exact Bayes reader of
the documents on the same cases (`readers.py`), which knows how often documents lie and names are
strange, and answers as often as it believes.

| what | accuracy | could be read | n |
|---|---|---|---|
{rows}

In words no document used, {kept:.0%} of the gain that feedback (dial 2) brings in familiar words
is kept.

## What a message moves

Mean change of log p of a name where it stands in the model's own failed attempt, in nats, over {n}
attempts. The excluded name should fall, the name that is asked for should rise.

| said | nats |
|---|---|
{nats}

Distance to the Bayes reader, KL(reader || model) of a whole answer after one message of the judge,
in nats; in brackets among the answers it may give, copying of values aside: {distance}.

**What it cannot do:** anything but these tasks; understand requests in other sentence patterns
than theirs; know which of two made-up names belongs to which argument when a message merely lists
both (no reader could); add up what several messages exclude as a Bayes learner would."""


def task_table(card: dict[str, Any]) -> str:
    heads = ("pass@1", "pass@8", "teacher, feedback", "teacher, solution")
    rows = "\n".join(
        f"| `{name}` | {' | '.join(show(found[h]) if h in found else '' for h in heads)} |"
        for name, found in card["tasks"].items()
    )
    return f"""Preflight on training problems of seed {SEED} at T = 1: one attempt, eight attempts,
and fresh answers of the teacher in the place of failed attempts. Wilson's intervals at 95 %.

| task | {" | ".join(heads)} |
|---|---|---|---|---|
{rows}
"""


def checkpoint_text(card: dict[str, Any]) -> str:
    recipe = card["recipe"]
    return CHECKPOINT.format(
        name=card["name"],
        of=recipe["name"],
        step=card["step"],
        steps=recipe["steps"],
        sha256=card["sha256"],
        tasks=task_table(card),
    )


def card_text(card: dict[str, Any]) -> str:
    recipe, words = card["recipe"], card["words"]
    rows = "\n".join(
        f"| {name} | {show(m)} | {could_be_read(m)} | {m['n']} |"
        for name, m in card["measured"].items()
    )
    distance = "; ".join(
        f"{dial} {d['whole answer']:.2f} ({d['names']:.2f})"
        for dial, d in words["distance"].items()
    )
    return CARD.format(
        **{key: recipe[key] for key in ("layers", "width", "vocab_size", "seed", "steps")},
        documents_per_step=recipe["documents_per_step"],
        learning_rate=recipe["learning_rate"],
        name=card["name"],
        parameters=card["parameters"],
        sha256=card["sha256"],
        loss=card["loss_curve"][-1]["loss"],
        tasks=task_table(card),
        first=SEED,
        last=LAST_SEED,
        rows=rows,
        kept=card["summary"]["kept in new words"],
        n=words["n"],
        nats="\n".join(f"| {name} | {value:+.2f} |" for name, value in words["nats"].items()),
        distance=distance,
    )


def could_be_read(m: dict[str, Any]) -> str:
    return f"{m['bayes']:.3f}" if "bayes" in m else ""


def show(m: dict[str, Any]) -> str:
    return f"{m['accuracy']:.3f} ({m['interval'][0]:.3f}–{m['interval'][1]:.3f})"
