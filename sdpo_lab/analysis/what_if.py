"""What if the teacher were shown something else? Contexts to try on an attempt, the attempt scored under them, what the teacher would write
itself, and whether a text is of a kind the model was taught to read. `views.Playground` puts these in front of a reader; none needs a front end.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sdpo_lab.analysis.credit import Credit, check_scored, credit, score, token_text
from sdpo_lab.analysis.evaluation import Mixture
from sdpo_lab.core import losses
from sdpo_lab.core.chat import render
from sdpo_lab.core.checks import check_choice, check_kind, check_range, check_task, check_text
from sdpo_lab.core.config import SDPOConfig
from sdpo_lab.core.reprompt import remove_thinking, teacher_messages
from sdpo_lab.core.rollouts import Rollout, judge_rollouts, rollout
from sdpo_lab.core.task import Problem, as_verdict
from sdpo_lab.core.teachers import Teacher
from sdpo_lab.tasks import load_task
from sdpo_lab.tasks.toolcall.world import nonsense_name

PRESETS = (
    "the real feedback",
    "another problem's feedback",
    "unrelated feedback",
    "nonsense",
    "the answer itself",
    "a sibling's success",
    "nothing",
)


# -- what to show


def contexts(
    task: Any,
    problem: Problem,
    completion: str | Rollout,
    *,
    rollouts: Iterable[Rollout] = (),
    seed: int = 0,
    config: SDPOConfig | None = None,
) -> dict[str, dict[str, str]]:
    """What a teacher of this attempt could be shown: {name: {"feedback": text, "solution": text}}, those of `PRESETS` there are, in their order.

    "the real feedback"           what the judge says of this attempt, or said of a judged `Rollout`; missing where it says nothing
    "another problem's feedback"  what it said of an attempt at another problem, of another kind where there is one (another tool); needs `rollouts`
    "unrelated feedback"          what the judge of another task said
    "nonsense"                    made-up words, as many as the real feedback has
    "the answer itself"           `task.solution(problem)`, of tasks that have it
    "a sibling's success"         an attempt at this problem that succeeded, not this one; needs `rollouts`
    "nothing"                     the question alone

    rollouts  attempts at this and other problems; they are judged where they have not been
    seed      which of several attempts, and which words
    config    its threshold of success, and whether a demonstration keeps its thoughts; the preset "laptop" when None
    """
    check_task(task, ("judge",))
    check_kind("problem", problem, Problem, "a Problem, as task.problems() gives them")
    check_kind("completion", completion, (str, Rollout), "a text or a Rollout")
    check_kind(
        "config", config, (SDPOConfig, type(None)), "an SDPOConfig, or None for the preset 'laptop'"
    )
    check_range("seed", seed, int, 0, 2**63 - 1)
    check_kind("rollouts", rollouts, Iterable, "attempts as lab.rollout returns them")
    config, rollouts = config or SDPOConfig.preset("laptop"), list(rollouts)
    for r in rollouts:
        check_kind("rollouts", r, Rollout, "attempts as lab.rollout returns them")
    judged = isinstance(completion, Rollout) and completion.reward is not None
    text = completion.text if isinstance(completion, Rollout) else completion
    real = completion.feedback if judged else as_verdict(task.judge(problem, text)).feedback
    rollouts = judge_rollouts(task, [replace(r) for r in rollouts])
    rng = random.Random(f"contexts/{seed}/{problem.id}")
    strangers = [
        r for r in rollouts if r.problem.id != problem.id and r.feedback and r.feedback != real
    ]
    far = [r for r in strangers if not kinds_of(r.problem) & kinds_of(problem)]
    siblings = [
        r.text
        for r in rollouts
        if r.problem.id == problem.id
        and r.reward >= config.success_reward_threshold
        and r.text.strip()
        and r.text != text
    ]
    words = len(real.split()) or 8
    found = {
        "the real feedback": real,
        "another problem's feedback": rng.choice(far or strangers).feedback if strangers else "",
        "unrelated feedback": unrelated_feedback(
            "toolcall" if getattr(task, "name", "") == "followup" else "followup", seed % 1000
        ),
        "nonsense": " ".join(nonsense_name(rng, held_out=True) for _ in range(words)),
    }
    shown = {name: {"feedback": said, "solution": ""} for name, said in found.items() if said}
    if hasattr(task, "solution"):
        shown["the answer itself"] = {"feedback": "", "solution": task.solution(problem)}
    if siblings:
        chosen = rng.choice(siblings)
        shown["a sibling's success"] = {
            "feedback": "",
            "solution": remove_thinking(chosen)
            if config.remove_thinking_from_demonstration
            else chosen,
        }
    return shown | {"nothing": {"feedback": "", "solution": ""}}


def kinds_of(problem: Problem) -> set[str]:
    """What a problem of the shipped tasks is about: its tools, or its kind of request. Empty for other tasks."""
    calls = problem.data.get("calls", [])
    return {c["tool"] for c in calls if isinstance(c, dict) and "tool" in c} | (
        {str(problem.data["kind"])} if "kind" in problem.data else set()
    )


@lru_cache(maxsize=64)
def unrelated_feedback(name: str, seed: int) -> str:
    """What the judge of a shipped task says of a wrong answer there."""
    here, elsewhere = (
        load_task(name, seed=seed),
        load_task(name, seed=seed + 1),
    )  # right there is wrong here
    for n in range(100):
        problem = here.problems(1, seed=n)[0]
        if said := here.judge(problem, elsewhere.solution(problem)).feedback:
            return said
    raise RuntimeError(f"the tasks {here!r} and {elsewhere!r} agree on everything")


# -- the attempt under them


class Rescorer:
    """One attempt, read by the student once; `score` gives its `Credit` under any context for the price of the teacher's pass.

    The arguments are those of `lab.credit`, and so are the numbers. Change the model's weights, and a new one is needed.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        problem: Problem,
        completion: str | list[int] | Rollout,
        *,
        teacher: Any = None,
        task: Any = None,
        config: SDPOConfig | None = None,
    ) -> None:
        self.model, self.tokenizer, self.problem, self.task = model, tokenizer, problem, task
        self.config = check_scored(model, tokenizer, problem, config)
        self.teacher = (
            teacher if isinstance(teacher, Teacher) else Teacher(teacher or model, "live", 0.0)
        )
        bare = credit(model, tokenizer, problem, completion, config=self.config)
        self.bare = replace(
            bare, teacher_distribution=bare.student_distribution
        )  # the same numbers, held once

    @torch.no_grad()
    def score(self, feedback: str = "", solution: str = "", attempt: str = "") -> Credit:
        """`lab.credit` of the attempt under these texts. Raises ValueError for an attempt alone, and for a prompt longer than the model's context."""
        if attempt and not (feedback or solution):
            raise ValueError(
                "attempt is shown before what is said of it; pass feedback= or solution= with it"
            )
        texts = {"feedback": feedback, "solution": solution, "attempt": attempt}
        for name, text in texts.items():
            check_text(name, text, "'' for nothing to show")
        messages = teacher_messages(self.problem.messages, solution, feedback, self.config, attempt)
        ids, p = self.bare.completion_ids, self.bare.student_distribution
        q = score(self.teacher, self.tokenizer, messages, ids, self.config.temperature)
        oracle = (
            self.task.oracle_teacher(self.tokenizer, self.problem, ids, **texts)
            if hasattr(self.task, "oracle_teacher")
            else None
        )
        return replace(
            self.bare,
            teacher_log_probs=q.gather(1, torch.tensor(ids, device=q.device)[:, None])[:, 0],
            divergence=losses.divergence(p, q, self.config.distillation_alpha),
            teacher_distribution=q,
            teacher_prompt=render(self.tokenizer, messages),
            shown={k: v for k, v in texts.items() if v},
            oracle_log_probs=None if oracle is None else oracle.log_probs.to(p),
        )


def in_words(scored: Credit, least: float = 0.05) -> str:
    """One line on the tokens that moved most: "most lowered: 'town' (−4.2 nats)". Below `least` nats a token has not moved."""
    moves = [float(a) for a in scored.advantages]
    said = []
    for name, pick in (("lowered", min), ("raised", max)):
        a, t = pick((a, t) for t, a in enumerate(moves))
        if abs(a) >= least and (a < 0) == (name == "lowered"):
            text = scored.tokens[t] or token_text(scored.tokenizer, scored.completion_ids[t])
            said.append(
                f"most {name}: {text!r} ({'−' if a < 0 else '+'}{'∞' if math.isinf(a) else f'{abs(a):.1f}'} nats)"
            )
    return "; ".join(said) or f"no token moved by {least} nats or more"


def teacher_attempts(
    model: Any,
    tokenizer: Any,
    problem: Problem,
    n: int = 1,
    *,
    feedback: str = "",
    solution: str = "",
    attempt: str = "",
    teacher: Any = None,
    task: Any = None,
    config: SDPOConfig | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Rollout]:
    """`n` fresh attempts of the teacher: what it writes itself when it reads the question and these texts. Temperature 0 is greedy.

    They are attempts at `problem`, judged as such when `task` is given. The noise is `rollout`'s for the same problem and seed, so that they pair
    with the student's own attempts. `evaluation.evaluate_teacher` does this for many problems.
    """
    config = check_scored(model, tokenizer, problem, config)
    check_range("n", n, int, 1, 4096)
    for name, text in (("feedback", feedback), ("solution", solution), ("attempt", attempt)):
        check_text(name, text, "'' for nothing to show")
    shown = teacher_messages(problem.messages, solution, feedback, config, attempt)
    if isinstance(teacher, Teacher):
        writer = (
            Mixture(teacher.model, teacher.student, teacher.rate)
            if teacher.kind == "trust_region"
            else teacher.model
        )
    else:
        writer = teacher or model
    found = rollout(
        writer,
        tokenizer,
        [replace(problem, messages=shown)],
        n,
        temperature,
        seed,
        max_completion_length=config.max_completion_length,
    )
    found = [
        replace(
            r,
            problem=problem,
            teacher_messages=shown,
            shown_feedback=feedback,
            shown_solution=solution,
            shown_attempt=attempt,
        )
        for r in found
    ]
    return found if task is None else judge_rollouts(task, found)


# -- was the model taught to read this?

#: What `small_models/taught.py` writes into a model's folder: hashes of three neighbouring words, of what its documents showed a reader.
TAUGHT = "taught.safetensors"
KINDS = ("feedback", "solution")
#: Below this share of known triples a text is of another kind. Measured by `python -m small_models.taught --measure`.
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
        """Is it of a kind the model was never taught to read? What it makes of such a text means little."""
        return self.share < THRESHOLD


def familiarity(text: str, model: Any, kind: str = "feedback") -> Familiarity | None:
    """Was this model taught to read texts like this one as feedback, or as a solution? None where it is not known what it was taught: a model of the Hub.

    model  a model of `load_model`, or its folder

    Pre-training put the loss on answers alone, so likelihood says nothing of a prompt; this compares with what stood in the documents. It sees
    words, not sense: another wording of a known message can be unfamiliar and still be understood.
    """
    check_text("text", text)
    check_choice("kind", kind, KINDS)
    folder = (
        model
        if isinstance(model, (str, Path))
        else getattr(getattr(model, "config", None), "_name_or_path", "")
    )
    file = Path(folder or ".") / TAUGHT
    if not folder or not file.is_file():
        return None
    known = load_taught(file, file.stat().st_mtime_ns)
    words = pieces(text)
    if not words:
        return Familiarity(1.0, "")
    hits = [
        phrase in known
        for phrase in phrases(words, kind, lambda word: phrase_hash(kind, word) in known)
    ]
    # a word stands in three triples, the t-th of them the first that holds it
    alphabetic = [t for t, word in enumerate(words) if word.isalpha()] or range(len(words))
    t = min(alphabetic, key=lambda t: sum(hits[t : t + 3]))
    return Familiarity(sum(hits) / len(hits), "" if all(hits[t : t + 3]) else words[t])


@lru_cache(maxsize=8)
def load_taught(file: Path, changed: int) -> frozenset[int]:
    """The hashes in a file; `changed`, when it was written, keeps a newer one from being taken for the old."""
    from safetensors.numpy import load_file

    return frozenset(load_file(file)["phrases"].tolist())


def pieces(text: str) -> list[str]:
    """Words, marks and numbers of a text; a number is "0", a short quoted text "''"."""
    return ["0" if p.isdigit() else p for p in PIECES.findall(QUOTED.sub(" '' ", text))]


def phrases(words: list[str], kind: str, is_known: Callable[[str], bool]) -> Iterator[int]:
    """Hashes of the triples of neighbouring words; the text begins after two "^" and ends in two "$". A solution holds any value, so a letter
    of it, and a word that is not known, is "*"."""
    if kind == "solution":
        words = ["*" if w.isalpha() and (len(w) == 1 or not is_known(w)) else w for w in words]
    padded = ["^", "^", *words, "$", "$"]
    return (phrase_hash(kind, *padded[t : t + 3]) for t in range(len(padded) - 2))


def phrase_hash(kind: str, *words: str) -> int:
    """32 bits, signed."""
    return int.from_bytes(
        hashlib.blake2b(
            "\0".join((kind, *words)).encode("utf-8", "replace"), digest_size=4
        ).digest(),
        "big",
        signed=True,
    )
