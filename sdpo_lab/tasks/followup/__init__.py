"""`followup`: the user's next message says what was wrong with the answer, or how they like it.

Simulated users with profiles: a user of seed s likes lists in one way, dates in another, a greeting
or none. A request leaves that open; after an answer they do not like, their next message corrects
it. An exact answer in the form they like has reward 1. The tables are in `world`.
"""

from __future__ import annotations

import random

from sdpo_lab.core.checks import check_choice, check_range
from sdpo_lab.core.task import Problem, Verdict
from sdpo_lab.tasks.conventions import DrawnTask, draw_convention, is_test, problem_of
from sdpo_lab.tasks.followup.world import (
    KINDS,
    QUESTIONS,
    TONE_COMPLAINTS,
    TONE_MESSAGES,
    TONES,
    UNRELATED,
    next_message,
    spoken,
    write_answer,
)

__all__ = [
    "FEEDBACK",
    "KINDS",
    "QUESTIONS",
    "TONES",
    "TONE_COMPLAINTS",
    "TONE_MESSAGES",
    "UNRELATED",
    "FollowUp",
    "draw_problem",
    "next_message",
    "spoken",
    "write_answer",
]

FEEDBACK = {0: "nothing", 1: "that they do not like it, and what about it", 2: "how they like it"}


class FollowUp(DrawnTask):
    """Answer as this user likes it; feedback is their next message, a correction or unrelated.

    seed           which user
    base_accuracy  0.01 to 0.5: how often a learner who knows only the prior answers as the user
                   likes; sets how unusual the user is
    feedback       0 to 2, the dial `FEEDBACK`
    unrelated      0 to 1: share of next messages that have nothing to do with the answer
    """

    name = "followup"

    def __init__(
        self,
        seed: int = 0,
        *,
        base_accuracy: float = 0.1,
        feedback: int = 2,
        unrelated: float = 0.0,
    ) -> None:
        self.dials = dict(
            seed=check_range("seed", seed, int, 0, 2**31 - 1),
            base_accuracy=check_range("base_accuracy", base_accuracy, float, 0.01, 0.5),
            feedback=check_choice("feedback", feedback, FEEDBACK),
            unrelated=check_range("unrelated", unrelated, float, 0, 1),
        )
        self.convention = draw_convention(
            QUESTIONS, self.name, self.dials["seed"], self.dials["base_accuracy"]
        )

    def draw(self, split: str, rng: random.Random) -> Problem:
        return draw_problem(split, rng)

    def judge(self, problem: Problem, completion: str) -> Verdict:
        """The user's words are a function of seed, problem and answer."""
        readings = self.convention[problem.data["kind"]]
        if completion == write_answer(problem.data, readings):
            return Verdict(1.0)
        if not self.dials["feedback"]:
            return Verdict(0.0)
        rng = random.Random(f"followup/{self.dials['seed']}/{problem.id}/{completion!r}")
        if rng.random() < self.dials["unrelated"]:
            return Verdict(0.0, rng.choice(UNRELATED))
        level = self.dials["feedback"]
        return Verdict(0.0, next_message(problem.data, readings, completion, level, rng))

    def solution(self, problem: Problem) -> str:
        """The answer in the form the user likes."""
        return write_answer(problem.data, self.convention[problem.data["kind"]])


def draw_problem(split: str, rng: random.Random) -> Problem:
    """One problem of `split`."""
    while True:
        name = rng.choice(list(KINDS))
        values = KINDS[name].draw(rng)
        text = rng.choice(KINDS[name].texts).format(**values, spoken=spoken(name, values))
        if is_test(text) == (split == "test"):
            return problem_of("followup", text, {"kind": name, "values": values})
