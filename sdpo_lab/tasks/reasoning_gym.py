"""`reasoning_gym:<name>`: any data set of the reasoning-gym package, judged by its own verifier. A
scalar reward and no words: the paper's §3.

Some of its verifiers evaluate the answer as Python or hand it to SymPy, which evaluates it too.
What a model wrote reaches those only when it is made of nothing that could call a function of ours
or take forever (`harmless`); any other answer has reward 0 and is counted.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import math
import random
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from sdpo_lab.core.checks import check_range, unknown_names
from sdpo_lab.core.task import Problem, Verdict, check_problems_asked
from sdpo_lab.tasks.conventions import checksum_id, is_test

PREFIX = "reasoning_gym:"
BLOCK = 100  #: a data set is made with so many entries at a time; some build all of them at once
MISSES = 300  #: after so many entries in a row without a new problem of the split it gives up
ENTRIES = 4096  #: entries kept for judging; an older one is made again
#: Data sets whose verifier evaluates the answer: as a Python literal, as arithmetic, as a formula.
LITERAL = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
ARITHMETIC = ("countdown", "puzzle24")
FORMULA = ("intermediate_integration", "polynomial_multiplication", "simple_integration")
#: Data sets that teach nothing: their verifier accepts every answer (0.1.25 compares the truth of
#: two non-empty strings).
ACCEPTS_ALL = ("game_of_life_halting",)
NAMES = frozenset(
    "sin cos tan cot sec csc asin acos atan sinh cosh tanh asinh acosh atanh exp log ln sqrt Abs "
    "pi E e".split()
)


class ReasoningGym:
    """A data set of the reasoning-gym package with its own verifier, no feedback.

    Its name is for instance "reasoning_gym:spell_backward".

    dataset  one of `names()`
    seed     which problems; the same seed gives the same ones
    suffix   an instruction put behind every question, for instance "\\nGive the answer alone." or
             one that asks for <answer>...</answer>
    config   the data set's own settings, for instance min_word_len=3; see its config class

    The reward is the verifier's score, in [0, 1] as a rule. For the whole answer it is 1; for a
    wrong one many data sets give 0.01, some a share for what is right of it, so leave
    `success_reward_threshold` at 1. What is judged is the inside of the last <answer>...</answer>,
    or the whole completion, stripped, where there is none. A completion at which the verifier
    raises has reward 0; `failures` counts these, and `refused` those that were kept from a verifier
    that evaluates them.

    A problem is of the test split by the checksum of its question, one in five. Raises ImportError
    without the package, ValueError for an unknown data set or setting.
    """

    def __init__(self, dataset: str, seed: int = 0, *, suffix: str = "", **config: Any) -> None:
        if dataset not in names():
            near = difflib.get_close_matches(str(dataset), names(), 3, cutoff=0.4)
            there = f"the nearest are {', '.join(near)}" if near else f"it has {', '.join(names())}"
            raise ValueError(f"reasoning-gym has no data set {dataset!r}; {there}")
        check_range("seed", seed, int, 0, 2**31 - 1)
        if not isinstance(suffix, str):
            raise TypeError(f"suffix must be a string, got {type(suffix).__name__}")
        settings = [s for s in settings_of(dataset) if s not in ("seed", "size")]
        unknown_names(f"the data set {dataset!r}", config, settings)
        if dataset in ACCEPTS_ALL:
            warnings.warn(
                f"the verifier of {dataset!r} accepts every answer, "
                "so nothing can be learnt from it",
                stacklevel=3,
            )
        self.dataset, self.suffix, self.config = dataset, suffix, config
        self.name, self.dials = PREFIX + dataset, dict(seed=seed, suffix=suffix, **config)
        # {(seed, index): (data set, entry)}, the newest last
        self.entries: OrderedDict[tuple[int, int], tuple[Any, dict]] = OrderedDict()
        # {(n, seed): problems of the test split}: evaluations ask for the same ones again and again
        self.test: dict[tuple[int, int], list[Problem]] = {}
        self.failures = self.refused = 0
        self.make(0)  # settings that do not go together are an error now

    def make(self, seed: int) -> Any:
        """The data set of one seed, of `BLOCK` entries."""
        try:
            return package().create_dataset(self.dataset, seed=seed, size=BLOCK, **self.config)
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(
                f"the data set {self.dataset!r} refuses its settings {self.config}: {error}"
            ) from error

    def problems(self, n: int, split: str = "train", seed: int = 0) -> list[Problem]:
        """`n` different problems; the same arguments always give the same ones.

        Raises ValueError when there are not so many.
        """
        check_problems_asked(n, split, seed)
        if split == "test" and (n, seed) in self.test:
            return list(self.test[n, seed])
        drawn: dict[str, Problem] = {}
        misses = 0
        for problem in self.stream(f"{self.name}/{self.dials['seed']}/{split}/{seed}"):
            fresh = (
                problem is not None
                and problem.id not in drawn
                and is_test(problem.data["question"]) == (split == "test")
            )
            misses = 0 if fresh else misses + 1
            if fresh:
                drawn[problem.id] = problem
            if len(drawn) == n:
                break
            if misses > MISSES:
                raise ValueError(
                    f"{self.name!r} has only about {len(drawn)} different {split} problems with "
                    f"these settings; asked for {n}. Ask for fewer, or widen the data set's "
                    f"settings: {', '.join(settings_of(self.dataset))}"
                )
        if split == "test":
            self.test = {**dict(list(self.test.items())[-3:]), (n, seed): list(drawn.values())}
        return list(drawn.values())

    def stream(self, key: str) -> Iterator[Problem | None]:
        """Problems without end; None for an entry that the data set could not make."""
        rng = random.Random(key)
        while True:
            seed = rng.randrange(2**31)
            data = self.make(seed)
            for index in range(BLOCK):
                try:
                    entry = data[index]
                except Exception:  # a generator that gave up on this one
                    yield None
                    continue
                self.keep(seed, index, data, entry)
                yield self.problem(seed, index, entry)

    def keep(self, seed: int, index: int, data: Any, entry: dict) -> None:
        self.entries[seed, index] = data, entry
        if len(self.entries) > ENTRIES:
            self.entries.popitem(last=False)

    def problem(self, seed: int, index: int, entry: dict) -> Problem:
        question = entry["question"]
        data = {
            "dataset": self.dataset,
            "seed": seed,
            "index": index,
            "question": question,
            "answer": entry["answer"],
            "metadata": plain(entry["metadata"]),
        }
        messages = [{"role": "user", "content": question + self.suffix}]
        return Problem(checksum_id(self.dataset, question), messages, data)

    def entry(self, problem: Problem) -> tuple[Any, dict]:
        """The data set and the entry itself, made again where it is not at hand.

        Raises ValueError when it comes out another.
        """
        at = problem.data["seed"], problem.data["index"]
        if at not in self.entries:
            data = self.make(at[0])
            self.keep(*at, data, data[at[1]])
        data, entry = self.entries[at]
        if entry["question"] != problem.data["question"]:
            raise ValueError(
                f"problem {problem.id!r} comes out another one here: other settings, or another "
                "version of reasoning-gym"
            )
        return data, entry

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """Never raises on a completion."""
        data, entry = self.entry(problem)
        answer = extract(completion)
        if answer != entry["answer"] and not harmless(self.dataset, answer):
            self.refused += 1
            return Verdict(0.0)
        try:
            score = float(data.score_answer(answer, entry))
        except Exception:  # not written for every text
            score = math.nan
        if not math.isfinite(score):
            self.failures += 1
            return Verdict(0.0)
        return Verdict(score)

    def __repr__(self) -> str:
        dials = ", ".join(f"{k}={v!r}" for k, v in self.dials.items())
        return f"ReasoningGym({self.dataset!r}, {dials})"


def package() -> Any:
    """The package, when it is first needed: it brings SymPy and matplotlib."""
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise ImportError(
            f"the tasks 'reasoning_gym:<name>' need the package reasoning-gym ({error}): "
            "pip install 'sdpo_lab[tasks]', or pip install reasoning-gym"
        ) from error


def settings_of(dataset: str) -> list[str]:
    """The names of a data set's own settings."""
    return list(inspect.signature(package().factory.DATASETS[dataset][1]).parameters)


def names() -> list[str]:
    """The data sets there are. Left out is "composite", which mixes others."""
    return sorted(set(package().factory.DATASETS) - {"composite"})


def extract(completion: str) -> str:
    """The inside of the last <answer>...</answer>, or all of it, stripped."""
    until = completion.rfind("</answer>") + len("</answer>")  # to search behind it takes long
    inside = re.findall(r"<answer>(.*?)</answer>", completion[:until], re.S)
    return (inside[-1] if inside else completion).strip()


def harmless(dataset: str, answer: str) -> bool:
    """May this text be handed to the verifier of that data set, which may evaluate it?"""
    if dataset not in LITERAL + ARITHMETIC + FORMULA:
        return True
    if len(answer) > 2000:
        return False
    if dataset in LITERAL:
        # no call, no operator that grows, no look at the verifier's own variables
        if re.fullmatch(r"[\w\s,-]*", answer):
            return True
        try:
            ast.literal_eval(answer)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return False
        return True
    if dataset in ARITHMETIC:
        return (
            re.fullmatch(r"[\d\s+*/().-]*", answer) is not None
            and "**" not in answer
            and not re.search(r"\d{13}", answer)
        )
    words = re.findall(r"[^\W\d]\w*", answer)
    powers = re.findall(
        r"(.)\s*\*\*\s*(\(\s*-?\d{1,2}(?:\s*/\s*\d{1,2})?\s*\)|-?\d{1,2}(?![\d.])|[^\W\d]\w*|\(|.|$)",
        answer,
    )
    return (
        re.fullmatch(r"[\w\s+*/().,-]*", answer) is not None
        and not re.search(r"\d{13}|\.\s*[^\W\d]|\*\*\s*-?\s*\w+\s*\*\*|\d[^\W\d]", answer)
        and all(
            w in NAMES or len(w) == 1 and w not in "NOQS" for w in words
        )  # those are SymPy's own; "Integral" would be the question again
        and all(exponent[:1] in ("(", "-") or exponent[:1].isalnum() for _, exponent in powers)
        and all(exponent != "(" or base.isalpha() for base, exponent in powers)
        and sum(base in ")0123456789" for base, _ in powers) <= 3
        and answer.count("**") == len(powers)
    )


def plain(value: Any) -> Any:
    """As JSON can hold it: tuples and sets as lists, keys as strings, anything else as its text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v) for v in value), key=repr)
    if (
        value is None
        or isinstance(value, (bool, str))
        or (isinstance(value, (int, float)) and type(value) in (int, float))
    ):
        return value
    return value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else str(value)
