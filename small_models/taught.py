"""What the models were taught to read, as a small file beside each: `python -m small_models.taught
--out FOLDER...`

The loss of pre-training falls on answers alone, so how likely a model finds a prompt says nothing
of whether it has learnt to read it. This counts instead: it draws what documents show a reader
(feedback and solutions of all worlds, by the documents' shares), and writes the hashes of the
triples of neighbouring words that occur in at least three of them. `sdpo_lab.what_if.familiarity`
reads the file. `--measure` says how well it tells the kinds apart.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from sdpo_lab import load_task
from sdpo_lab.analysis.familiarity import KINDS, TAUGHT, familiarity, phrase_hash, phrases, pieces
from sdpo_lab.core.task import judge_all
from sdpo_lab.tasks.toolcall.judge import find_errors
from sdpo_lab.tasks.toolcall.world import nonsense_name
from small_models import held_out
from small_models.documents import draw
from small_models.worlds import WORLDS

CASES = 60_000
LEAST = 3  #: a word or triple in fewer texts is chance


def shown_texts(rng: random.Random) -> dict[str, str]:
    """What a document about one case may show, by kind."""
    case = draw(WORLDS, rng)(
        rng, told=rng.random() < 0.6
    )  # so many documents tell something, see `documents.CONTENTS`
    return {"solution": case.answer} | ({"feedback": case.fail(rng)[1]} if case.fail else {})


def learn(cases: int = CASES, seed: int = 0) -> np.ndarray:
    """Sorted int32 hashes of what `cases` cases show often: triples, and words of solutions."""
    rng = random.Random(f"taught/{seed}")
    texts: dict[str, list[list[str]]] = {kind: [] for kind in KINDS}
    for _ in range(cases):
        for kind, text in shown_texts(rng).items():
            texts[kind].append(pieces(text))
    words = Counter(w for text in texts["solution"] for w in set(text))
    found = {phrase_hash("solution", w) for w, n in words.items() if n >= LEAST}
    for kind in KINDS:
        counts = Counter(
            h for text in texts[kind] for h in set(phrases(text, kind, lambda w: words[w] >= LEAST))
        )
        found |= {h for h, n in counts.items() if n >= LEAST}
    return np.array(sorted(found), dtype=np.int32)


def write(folders: list[Path], cases: int = CASES) -> None:
    """The same file into every folder: it is of the documents, which a family has in common."""
    found = learn(cases)
    for folder in folders:
        save_file(
            {"phrases": found}, folder / TAUGHT, metadata={"cases": str(cases), "least": str(LEAST)}
        )
        print(
            f"{folder / TAUGHT}: {len(found)} hashes, "
            f"{(folder / TAUGHT).stat().st_size / 1000:.0f} kB",
            flush=True,
        )


# -- how well it tells the kinds apart


def real_messages(
    name: str, rng: random.Random, seeds: int = 8, problems: int = 25, **dials: object
) -> list[str]:
    """What the judge of a task says of wrong attempts: right ones by another convention, four in
    ten spoilt besides.
    """
    said = []
    for _ in range(seeds):
        here, elsewhere = (
            load_task(name, seed=rng.randrange(10_000, 2**31), **dials) for _ in range(2)
        )
        asked = here.problems(problems, rng.choice(("train", "test")), seed=rng.randrange(1000))
        said += [
            v.feedback
            for v in judge_all(here, asked, [spoil(elsewhere.solution(p), rng) for p in asked])
            if v.feedback
        ]
    return said


def spoil(text: str, rng: random.Random) -> str:
    u, at = rng.random(), rng.randrange(1, len(text))
    return (
        text
        if u < 0.6
        else text[:at]
        if u < 0.75
        else text[:at] + text[at + 1 :]
        if u < 0.9
        else text[:at] + rng.choice("abc (=',") + text[at:]
    )


def real_solutions(
    name: str, rng: random.Random, seeds: int = 8, problems: int = 25, **dials: object
) -> list[str]:
    tasks = [load_task(name, seed=rng.randrange(10_000, 2**31), **dials) for _ in range(seeds)]
    return [
        task.solution(p)
        for task in tasks
        for p in task.problems(problems, "test", seed=rng.randrange(1000))
    ]


def shuffled(texts: list[str], rng: random.Random) -> list[str]:
    """The same words in another order, of texts of four words or more."""
    split = [text.split() for text in dict.fromkeys(texts) if len(text.split()) >= 4]
    return [" ".join(rng.sample(words, len(words))) for words in split]


def unheard_wordings(rng: random.Random, n: int = 200) -> list[str]:
    found: list[str] = []
    while len(found) < n:
        here, elsewhere = (load_task("toolcall", seed=rng.randrange(2**31)) for _ in range(2))
        problem = here.problems(1, seed=rng.randrange(1000))[0]
        errors, _ = find_errors(problem.data["calls"], here.convention, elsewhere.solution(problem))
        found += [held_out.message(e, rng) for e in errors if e.kind == "unexpected"]
    return found


MESSAGES = (
    ("toolcall", dict(feedback=1)),
    ("toolcall", dict(feedback=2)),
    ("toolcall", dict(feedback=3)),
    ("toolcall", dict(calls=3)),
    ("toolcall", dict(novelty="nonsense")),
    ("tinycode", dict(feedback=1)),
    ("tinycode", dict(feedback=2)),
    ("followup", dict(feedback=1)),
    ("followup", dict(feedback=2)),
)
SOLUTIONS = (
    ("toolcall", {}),
    ("toolcall", dict(calls=3)),
    ("toolcall", dict(novelty="nonsense")),
    ("tinycode", {}),
    ("followup", {}),
)
ENGLISH = (
    "You mixed up the town and the state in your answer.",
    "The first argument is correct, the second is not.",
    "Maybe the tool wants a number there?",
    "My bicycle has a flat tyre and I am late.",
    "Rename the last keyword, then it should run.",
    "Have a look at the manual on page twelve.",
    "The value belongs to another parameter.",
    "Nobody ever told me that this field had been removed.",
    "Try to imagine what the author of the tool had in mind.",
    "I was hoping for something with more detail.",
    "Our teacher would not accept this as an answer.",
    "Two of the three names are fine.",
    "The result must be a list, and yours is a string.",
    "What happens when the input is empty?",
    "You should divide by the length, not by two.",
    "This loop never ends because the counter stays at zero.",
    "The birds fly south when the days grow short.",
    "He bought a house near the sea last summer.",
    "Write the greeting before the answer, not after it.",
    "I always put the year in front of the month.",
    "Kindly use the metric system from now on.",
    "It is customary to give the surname before the first name.",
    "Bullet points are easier for me to read.",
    "Prices in this shop include all taxes.",
    "There is no such thing as a free lunch.",
    "The argument you are looking for is quantity.",
    "Instead of city you have to write place.",
    "You made the same mistake as yesterday.",
    "Somebody changed the interface without telling us.",
    "That keyword was replaced by a newer one in spring.",
    "Well done, but the unit is missing.",
    "Please think again about the second name.",
    "A good answer would have mentioned the date.",
    "Python complains about a missing bracket at the end.",
    "The test expected seven and your code returned nine.",
    "Your function forgets to handle words written in capitals.",
    "If you read carefully, you will find the mistake on your own.",
    "The service accepts amount and article, nothing else.",
    "We all make mistakes, so do not worry.",
    "Just call the tool with the name that I gave you.",
)


def measure(folder: Path, seed: int = 1) -> str:
    """Markdown: for each kind of text, how many are called unfamiliar."""
    rng = random.Random(f"measure/{seed}")
    messages = {
        f"feedback of `{name}`, {dials}": real_messages(name, rng, **dials)
        for name, dials in MESSAGES
    }
    solutions = {
        f"solution of `{name}`, {dials or 'as it comes'}": real_solutions(name, rng, **dials)
        for name, dials in SOLUTIONS
    }
    nonsense = [
        " ".join(nonsense_name(rng, True) for _ in range(rng.randint(2, 10))) for _ in range(200)
    ]
    every = {
        kind: [t for texts in found.values() for t in texts]
        for kind, found in (("feedback", messages), ("solution", solutions))
    }
    rows = [("feedback", name, texts) for name, texts in messages.items()] + [
        ("solution", name, texts) for name, texts in solutions.items()
    ]
    for kind in KINDS:
        rows += [
            (kind, f"all real ones as {kind}", every[kind]),
            (kind, f"English sentences as {kind}", list(ENGLISH)),
            (kind, f"made-up words as {kind}", nonsense),
            (kind, f"real {kind}, words shuffled", shuffled(every[kind], rng)),
        ]
    rows.append(("feedback", "wordings held out (`held_out.py`)", unheard_wordings(rng)))
    lines = ["| texts | number | called unfamiliar |", "|---|---|---|"]
    for kind, name, texts in rows:
        unfamiliar = sum(familiarity(text, folder, kind).unfamiliar for text in texts)
        lines.append(f"| {name} | {len(texts)} | {unfamiliar / len(texts):.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        nargs="+",
        required=True,
        help="folders of models the documents of today were made for",
    )
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="then print how many texts of each kind are called unfamiliar",
    )
    arguments = parser.parse_args()
    write(arguments.out, arguments.cases)
    if arguments.measure:
        print(measure(arguments.out[0]))


if __name__ == "__main__":
    main()
